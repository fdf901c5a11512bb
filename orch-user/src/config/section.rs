//! Reads a table of the file key by key. What is asked for is known; what is left over at the end
//! is reported with the nearest known key. So the reading code in `raw` is the schema.

use std::{cell::RefCell, collections::BTreeMap};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::problem::{At, Sink};

/// The text of a file, for line numbers, and everything that was found wrong with it.
pub(crate) struct Reader<'a> {
    pub(crate) text: &'a str,
    pub(crate) sink: &'a Sink,
    /// Paths of all keys that were asked for, without indices.
    pub(crate) keys: RefCell<Vec<String>>,
    unknown: RefCell<Vec<Unknown>>,
}

/// A key that nobody asked for.
struct Unknown {
    place: At<()>,
    name: String,
    /// Of the same table.
    nearest: Option<&'static str>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str, sink: &'a Sink) -> Self {
        Self {
            text,
            sink,
            keys: RefCell::default(),
            unknown: RefCell::default(),
        }
    }

    /// Reports the keys that nobody asked for. Only now are all known, and a key that is right in
    /// another table is most often a line below the wrong heading. Returns the paths of all keys.
    pub(crate) fn finish(self) -> Vec<String> {
        let keys = self.keys.into_inner();
        for unknown in self.unknown.into_inner() {
            let mut homes: Vec<_> = keys
                .iter()
                .filter_map(|key| home(key, &unknown.name))
                .collect();
            homes.sort_unstable();
            homes.dedup();
            let hint = match (homes.is_empty(), unknown.nearest) {
                (false, _) => format!("unknown key here; it belongs {}", homes.join(" or ")),
                (true, Some(known)) => format!("unknown key; the nearest known key is `{known}`"),
                (true, None) => "unknown key".to_owned(),
            };
            self.sink.at(&unknown.place, hint);
        }
        keys
    }

    /// The line of a byte of the file, from 1.
    pub(crate) fn line(&self, byte: usize) -> usize {
        let upto = self.text.as_bytes().iter().take(byte);
        1 + upto.filter(|byte| **byte == b'\n').count()
    }
}

/// One table of the file, or the place where it could be.
pub(crate) struct Section<'a> {
    reader: &'a Reader<'a>,
    table: Option<&'a DeTable<'a>>,
    /// `service[0].scale.`: what comes before the key.
    prefix: String,
    line: Option<usize>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The file's top level.
    pub(crate) fn root(reader: &'a Reader<'a>, table: &'a DeTable<'a>) -> Self {
        Self::new(reader, Some(table), String::new(), None)
    }

    /// A table that the file does not have: every key has its default.
    pub(crate) fn absent(reader: &'a Reader<'a>, prefix: &str) -> Self {
        Self::new(reader, None, prefix.to_owned(), None)
    }

    fn new(
        reader: &'a Reader<'a>,
        table: Option<&'a DeTable<'a>>,
        prefix: String,
        line: Option<usize>,
    ) -> Self {
        Self {
            reader,
            table,
            prefix,
            line,
            known: Vec::new(),
        }
    }

    /// A place for problems of the table as a whole.
    pub(crate) fn place(&self) -> At<()> {
        At {
            value: (),
            key: self.prefix.trim_end_matches('.').to_owned(),
            line: self.line,
        }
    }

    pub(crate) fn string(&mut self, key: &'static str, default: &str) -> At<String> {
        let found = self.get(key, "a string", |value| value.as_str().map(str::to_owned));
        found.or_default(default.to_owned())
    }

    pub(crate) fn integer(&mut self, key: &'static str, default: i64) -> At<i64> {
        self.get(key, "an integer", integer).or_default(default)
    }

    pub(crate) fn float(&mut self, key: &'static str, default: f64) -> At<f64> {
        let found = self.get(key, "a number", |value| {
            let digits = match value {
                DeValue::Float(float) => float.as_str(),
                DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
                _ => return None,
            };
            digits.parse().ok()
        });
        found.or_default(default)
    }

    pub(crate) fn boolean(&mut self, key: &'static str, default: bool) -> At<bool> {
        self.get(key, "true or false", DeValue::as_bool)
            .or_default(default)
    }

    /// An array of strings, each with its own place.
    pub(crate) fn strings(&mut self, key: &'static str, default: &[&str]) -> At<Vec<At<String>>> {
        let default = default.iter().map(|value| (*value).to_owned()).collect();
        self.items(key, "an array of strings", default, |value| {
            value.as_str().map(str::to_owned)
        })
    }

    /// An array of whole numbers, each with its own place; empty by default.
    pub(crate) fn integers(&mut self, key: &'static str) -> At<Vec<At<i64>>> {
        self.items(key, "an array of integers", Vec::new(), integer)
    }

    fn items<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        default: Vec<T>,
        convert: impl Fn(&DeValue<'a>) -> Option<T>,
    ) -> At<Vec<At<T>>> {
        let place = self.place_of(key, self.line);
        let found = self.get(key, wanted, |value| {
            let items = value.as_array()?.iter();
            items
                .map(|item| Some((item.span().start, convert(item.get_ref())?)))
                .collect::<Option<Vec<_>>>()
        });
        let lines = |items: Vec<(usize, T)>| {
            let item = |(at, (byte, value)): (usize, (usize, T))| At {
                value,
                key: format!("{}[{at}]", place.key),
                line: Some(self.reader.line(byte)),
            };
            items.into_iter().enumerate().map(item).collect()
        };
        let defaults = || {
            let item = |value: T| At {
                value,
                key: place.key.clone(),
                line: None,
            };
            default.into_iter().map(item).collect()
        };
        At {
            value: found.value.map_or_else(defaults, lines),
            key: found.key,
            line: found.line,
        }
    }

    /// A table whose keys are the user's own and whose values are strings.
    pub(crate) fn pairs(&mut self, key: &'static str) -> At<BTreeMap<String, String>> {
        let found = self.get(key, "a table of strings", |value| {
            let entries = value.as_table()?.iter();
            entries
                .map(|(key, value)| {
                    let value = value.get_ref().as_str()?;
                    Some((key.get_ref().to_string(), value.to_owned()))
                })
                .collect::<Option<BTreeMap<_, _>>>()
        });
        found.or_default(BTreeMap::new())
    }

    /// A table within this one.
    pub(crate) fn section(&mut self, key: &'static str) -> Section<'a> {
        let prefix = format!("{}{key}.", self.prefix);
        let Some((place, value)) = self.find(key) else {
            return Self::new(self.reader, None, prefix, self.line);
        };
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(&place, "a table", value.get_ref());
        }
        Self::new(self.reader, table, prefix, place.line)
    }

    /// An array of tables within this one.
    pub(crate) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some((place, value)) = self.find(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = value.get_ref() else {
            let text = format!("must be an array of tables: write [[{}]]", place.key);
            self.reader.sink.at(&place, text);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let place = At {
                value: (),
                key: format!("{}[{at}]", place.key),
                line: Some(self.reader.line(item.span().start)),
            };
            match item.get_ref().as_table() {
                Some(table) => {
                    let prefix = format!("{}.", place.key);
                    sections.push(Self::new(self.reader, Some(table), prefix, place.line));
                }
                None => self.wrong_type(&place, "a table", item.get_ref()),
            }
        }
        sections
    }

    /// Notes the keys that nobody asked for.
    pub(crate) fn finish(self) {
        for (key, _) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let nearest = self
                .known
                .iter()
                .min_by_key(|known| strsim::damerau_levenshtein(known, name));
            let line = self.reader.line(key.span().start);
            self.reader.unknown.borrow_mut().push(Unknown {
                place: self.place_of(name, Some(line)),
                name: name.to_owned(),
                nearest: nearest.copied(),
            });
        }
    }

    fn get<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        convert: impl FnOnce(&DeValue<'a>) -> Option<T>,
    ) -> At<Option<T>> {
        let Some((place, value)) = self.find(key) else {
            let At { key, .. } = self.place_of(key, None);
            return At {
                value: None,
                key,
                line: None,
            };
        };
        let converted = convert(value.get_ref());
        if converted.is_none() {
            self.wrong_type(&place, wanted, value.get_ref());
        }
        At {
            value: converted,
            key: place.key,
            line: place.line,
        }
    }

    fn find(&mut self, key: &'static str) -> Option<(At<()>, &'a Spanned<DeValue<'a>>)> {
        self.known.push(key);
        self.reader
            .keys
            .borrow_mut()
            .push(without_indices(&format!("{}{key}", self.prefix)));
        let (name, value) = self.table?.get_key_value(key)?;
        let line = self.reader.line(name.span().start);
        Some((self.place_of(key, Some(line)), value))
    }

    fn place_of(&self, key: &str, line: Option<usize>) -> At<()> {
        At {
            value: (),
            key: format!("{}{key}", self.prefix),
            line,
        }
    }

    fn wrong_type(&self, place: &At<()>, wanted: &str, found: &DeValue<'_>) {
        let found = match found {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        let text = if wanted.contains(found) {
            // An array of the wrong things, or an integer that does not fit 64 bits.
            format!("must be {wanted}")
        } else {
            format!("must be {wanted}, not {found}")
        };
        self.reader.sink.at(place, text);
    }
}

impl<T> At<Option<T>> {
    fn or_default(self, default: T) -> At<T> {
        At {
            value: self.value.unwrap_or(default),
            key: self.key,
            line: self.line,
        }
    }
}

/// Where a key of this name belongs, if the path is of one.
fn home(path: &str, name: &str) -> Option<String> {
    let table = path.strip_suffix(name)?;
    match table {
        "" => Some("above the first table".to_owned()),
        "service." => Some("in [[service]]".to_owned()),
        _ => Some(format!("in [{}]", table.strip_suffix('.')?)),
    }
}

/// `service[0].name` as `service.name`.
fn without_indices(path: &str) -> String {
    let mut inside = false;
    path.chars()
        .filter(|char| {
            match char {
                '[' => inside = true,
                ']' => {
                    inside = false;
                    return false;
                }
                _ => {}
            }
            !inside
        })
        .collect()
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}
