//! Where does a chunked body end (RFC 9112, 7.1)? Followed over bytes that are handed on as they are.

use super::answer::{Garbled, Part};

/// Largest size of a chunk that is believed.
const MOST: u64 = 1 << 60;
/// Bytes of a size line with its extensions, and of all trailer fields, at the most.
const LINE: usize = 4 << 10;
const TRAILERS: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the digits of a size.
    Size,
    /// Behind them, where some leave room.
    Space,
    Extension,
    SizeLf,
    /// So many bytes of a chunk are to come.
    Data(u64),
    DataCr,
    DataLf,
    /// At the beginning of a trailer line.
    Trailer,
    /// In one.
    TrailerLine,
    TrailerLf,
    /// In the empty line at the end.
    EndLf,
    End,
}

/// Follows one body.
#[derive(Debug)]
pub(super) struct Chunks {
    at: At,
    size: u64,
    /// Bytes of this size line, or of the trailers.
    line: usize,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self {
            at: At::Size,
            size: 0,
            line: 0,
        }
    }

    /// Takes bytes up to the body's end. What comes behind the last chunk is not for a client that has
    /// not asked for trailers.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Part, Garbled> {
        let mut used = 0;
        let mut passed = 0;
        while let Some(&byte) = bytes.get(used) {
            match self.at {
                At::End => break,
                At::Data(left) => {
                    let here = left.min((bytes.len() - used) as u64);
                    used += here as usize;
                    self.at = if left == here {
                        At::DataCr
                    } else {
                        At::Data(left - here)
                    };
                }
                _ => {
                    self.at = self.step(byte)?;
                    used += 1;
                }
            }
            if !self.is_behind() {
                passed = used;
            }
        }
        Ok(Part {
            used,
            passed,
            ended: self.at == At::End,
        })
    }

    /// Whether what comes is behind the line of the last chunk.
    fn is_behind(&self) -> bool {
        matches!(
            self.at,
            At::TrailerLine | At::TrailerLf | At::EndLf | At::End
        ) || self.at == At::Trailer && self.line > 0
    }

    fn step(&mut self, byte: u8) -> Result<At, Garbled> {
        self.line += 1;
        match (self.at, byte) {
            (At::Size, _) if byte.is_ascii_hexdigit() && self.line < LINE => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                self.size = self.size << 4 | u64::from(digit);
                if self.size < MOST {
                    Ok(At::Size)
                } else {
                    Err(Garbled)
                }
            }
            (At::Size, b'\r') if self.line > 1 => Ok(At::SizeLf),
            (At::Size, b';') if self.line > 1 => Ok(At::Extension),
            (At::Size, b' ' | b'\t') if self.line > 1 => Ok(At::Space),
            (At::Space, b' ' | b'\t') if self.line < LINE => Ok(At::Space),
            (At::Space, b';') => Ok(At::Extension),
            (At::Space | At::Extension, b'\r') => Ok(At::SizeLf),
            (At::Extension, _) if is_text(byte) && self.line < LINE => Ok(At::Extension),
            (At::SizeLf, b'\n') => Ok(self.data()),
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => {
                self.line = 0;
                Ok(At::Size)
            }
            (At::Trailer, b'\r') => Ok(At::EndLf),
            (At::TrailerLine, b'\r') => Ok(At::TrailerLf),
            (At::Trailer | At::TrailerLine, _) if is_text(byte) && self.line < TRAILERS => {
                Ok(At::TrailerLine)
            }
            (At::TrailerLf, b'\n') => Ok(At::Trailer),
            (At::EndLf, b'\n') => Ok(At::End),
            _ => Err(Garbled),
        }
    }

    fn data(&mut self) -> At {
        self.line = 0;
        match std::mem::take(&mut self.size) {
            0 => At::Trailer,
            size => At::Data(size),
        }
    }
}

/// What may stand in a line.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All at once, and cut in two anywhere: what is passed on, and whether it is the whole body.
    fn check(body: &str, behind: &str, expect: Result<(&str, bool), Garbled>) {
        let text = format!("{body}{behind}");
        for cut in 0..=text.len() {
            let mut chunks = Chunks::new();
            let mut passed = String::new();
            let mut take = |bytes: &str| {
                let part = chunks.take(bytes.as_bytes())?;
                passed += &bytes[..part.passed];
                Ok(part)
            };
            let both = take(&text[..cut]).and_then(|first| {
                let second = take(&text[first.used..])?;
                Ok((first.used + second.used, second.ended))
            });
            let ended = expect.is_ok_and(|(_, ended)| ended);
            let used = if ended { body.len() } else { text.len() };
            assert_eq!(both, expect.map(|_| (used, ended)), "{text:?} at {cut}");
            if let Ok((expect, _)) = expect {
                assert_eq!(passed, expect, "{text:?} at {cut}");
            }
        }
    }

    #[test]
    fn bodies_end_where_they_end() {
        for (body, behind, last) in [
            ("0\r\n\r\n", "HTTP/1.1", "0\r\n"),
            ("3\r\nabc\r\n00\r\n\r\n", "", "3\r\nabc\r\n00\r\n"),
            (
                "a;x=\"y\"\r\n0123456789\r\n0;z\r\n\r\n",
                "more",
                "a;x=\"y\"\r\n0123456789\r\n0;z\r\n",
            ),
            (
                "1  \r\na\r\n0\r\nA: b\r\nC: d\r\n\r\n",
                "\r\n",
                "1  \r\na\r\n0\r\n",
            ),
            (
                "F\r\n0\r\n\r\n0\r\n\r\n01234\r\n0\r\n\r\n",
                "",
                "F\r\n0\r\n\r\n0\r\n\r\n01234\r\n0\r\n",
            ),
            (
                "00000000000000000001\r\na\r\n0\r\n\r\n",
                "",
                "00000000000000000001\r\na\r\n0\r\n",
            ),
        ] {
            check(body, behind, Ok((last, true)));
        }
        check("5\r\nabcd", "", Ok(("5\r\nabcd", false)));
        check("0\r\nA: b\r\n", "", Ok(("0\r\n", false)));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for bad in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "3\n",
            "3;a\n",
            "3\r\nabcd\r\n",
            "3\r\nabc\n",
            "0\r\n\n",
            "0\r\nA: b\n",
            "0\r\n\rx",
            "1234567890abcdef\r\n",
            "1;\0\r\n",
            "0\r\nA: \x01\r\n",
            ";\r\n",
            "5 6\r\n",
            "5 \n",
        ] {
            check(bad, "", Err(Garbled));
        }
        check(&format!("1;{}\r\n", "a".repeat(LINE)), "", Err(Garbled));
    }
}
