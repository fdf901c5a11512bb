//! Tables of text whose columns line up.

/// Rows below a header; numbers to the right.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

/// Where a column's text is flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[(&'static str, Side)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, a cell per column.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The text, a line per row. `paint` may colour a cell of the given column once its width is
    /// settled; it gets the cell's text as it is to be shown, padding included.
    pub fn render(&self, paint: impl Fn(&str, &str) -> String) -> String {
        let widths: Vec<_> = (0..self.columns.len()).map(|at| self.width(at)).collect();
        let header = self.columns.iter().map(|(name, _)| (*name).to_owned());
        let mut text = self.line(&header.collect::<Vec<_>>(), &widths, |_, cell| {
            cell.to_owned()
        });
        for row in &self.rows {
            text.push_str(&self.line(row, &widths, &paint));
        }
        text
    }

    fn width(&self, column: usize) -> usize {
        let header = self.columns.get(column).map_or(0, |(name, _)| name.len());
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max();
        widest.unwrap_or(0).max(header)
    }

    fn line(
        &self,
        cells: &[String],
        widths: &[usize],
        paint: impl Fn(&str, &str) -> String,
    ) -> String {
        let mut line = String::new();
        let last = self.columns.len().saturating_sub(1);
        for (at, ((name, side), width)) in self.columns.iter().zip(widths).enumerate() {
            let cell = cells.get(at).map_or("", String::as_str);
            let padded = match side {
                Side::Right => format!("{cell:>width$}"),
                Side::Left if at == last => cell.to_owned(),
                Side::Left => format!("{cell:<width$}"),
            };
            line.push_str(&paint(name, &padded));
            if at < last {
                line.push_str("  ");
            }
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

/// Seconds as a person says them: `0.4s`, `12s`, `3m05s`, `2h10m`, `4d03h`.
pub fn seconds(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86400);
    match whole {
        0..10 => format!("{seconds:.1}s"),
        10..60 => format!("{whole}s"),
        60..3600 => format!("{minutes}m{:02}s", whole % 60),
        3600..86400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[
            ("NAME", Side::Left),
            ("COUNT", Side::Right),
            ("NOTE", Side::Left),
        ]);
        table.row(vec!["a".into(), "7".into(), String::new()]);
        table.row(vec!["überlang".into(), "123456".into(), "x".into()]);
        let expect = "NAME       COUNT  NOTE\na              7\nüberlang  123456  x\n";
        assert_eq!(table.render(|_, cell| cell.to_owned()), expect);
    }

    #[test]
    fn seconds_are_short() {
        let said = [0.44, 12.9, 185.0, 7800.0, 356_400.0].map(seconds);
        assert_eq!(said, ["0.4s", "12s", "3m05s", "2h10m", "4d03h"]);
    }
}
