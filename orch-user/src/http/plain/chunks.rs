//! Where does a chunked body end (RFC 9112, 7.1)? Followed over bytes that are handed on as they are.

use super::answer::Garbled;

/// Bytes of a size line with its extensions, and of all trailer fields, at the most.
const LINE: usize = 4 << 10;
const TRAILERS: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the digits of a size.
    Size,
    /// Behind them.
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
    digits: u32,
    /// Bytes of this size line, or of the trailers.
    line: usize,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self {
            at: At::Size,
            size: 0,
            digits: 0,
            line: 0,
        }
    }

    /// Takes bytes up to the body's end; how many, and whether it has come.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), Garbled> {
        let mut taken = 0;
        while let Some(&byte) = bytes.get(taken) {
            if self.at == At::End {
                break;
            }
            if let At::Data(left) = self.at {
                let here = left.min((bytes.len() - taken) as u64);
                taken += here as usize;
                self.at = if left == here {
                    At::DataCr
                } else {
                    At::Data(left - here)
                };
                continue;
            }
            self.at = self.step(byte)?;
            taken += 1;
        }
        Ok((taken, self.at == At::End))
    }

    fn step(&mut self, byte: u8) -> Result<At, Garbled> {
        self.line += 1;
        match (self.at, byte) {
            (At::Extension | At::Trailer | At::TrailerLine, b'\n') => Err(Garbled),
            (At::Size, _) if byte.is_ascii_hexdigit() => {
                self.digits += 1;
                if self.digits > 15 {
                    return Err(Garbled);
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                self.size = self.size << 4 | u64::from(digit);
                Ok(At::Size)
            }
            (At::Size, b'\r') if self.digits > 0 => Ok(At::SizeLf),
            (At::Size, b';' | b' ' | b'\t') if self.digits > 0 => Ok(At::Extension),
            (At::Extension, b'\r') => Ok(At::SizeLf),
            (At::Extension, _) if self.line < LINE => Ok(At::Extension),
            (At::SizeLf, b'\n') => Ok(self.data()),
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => {
                self.line = 0;
                Ok(At::Size)
            }
            (At::Trailer, b'\r') => Ok(At::EndLf),
            (At::TrailerLine, b'\r') => Ok(At::TrailerLf),
            (At::Trailer | At::TrailerLine, _) if self.line < TRAILERS => Ok(At::TrailerLine),
            (At::TrailerLf, b'\n') => Ok(At::Trailer),
            (At::EndLf, b'\n') => Ok(At::End),
            _ => Err(Garbled),
        }
    }

    fn data(&mut self) -> At {
        self.digits = 0;
        self.line = 0;
        match std::mem::take(&mut self.size) {
            0 => At::Trailer,
            size => At::Data(size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All at once, and cut in two anywhere.
    fn check(body: &str, behind: &str, expect: Result<bool, Garbled>) {
        let text = format!("{body}{behind}");
        let bytes = text.as_bytes();
        let whole = Chunks::new().take(bytes);
        let ended = expect == Ok(true);
        let size = if ended { body.len() } else { bytes.len() };
        assert_eq!(whole, expect.map(|end| (size, end)), "{text:?}");
        for cut in 0..=bytes.len() {
            let mut chunks = Chunks::new();
            let first = chunks.take(&bytes[..cut]);
            let both = first.and_then(|(taken, _)| {
                let (more, end) = chunks.take(&bytes[taken..])?;
                Ok((taken + more, end))
            });
            assert_eq!(both, expect.map(|end| (size, end)), "{text:?} at {cut}");
        }
    }

    #[test]
    fn bodies_end_where_they_end() {
        check("0\r\n\r\n", "HTTP/1.1", Ok(true));
        check("3\r\nabc\r\n00\r\n\r\n", "", Ok(true));
        check("a;x=\"y\"\r\n0123456789\r\n0;z\r\n\r\n", "more", Ok(true));
        check("1  \r\na\r\n0\r\nA: b\r\nC: d\r\n\r\n", "\r\n", Ok(true));
        check("F\r\n0\r\n\r\n0\r\n\r\n01234\r\n0\r\n\r\n", "", Ok(true));
        check("5\r\nabcd", "", Ok(false));
        check("0\r\nA: b\r\n", "", Ok(false));
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
            ";\r\n",
        ] {
            check(bad, "", Err(Garbled));
        }
        check(&format!("1;{}\r\n", "a".repeat(LINE)), "", Err(Garbled));
    }
}
