//! Where does a request end and the next one begin? Followed over the raw bytes of a client's
//! connection, by RFC 9112 and as strictly as it allows, in front of the library's parser: what two
//! parsers could read in two ways is refused before either does. A pure machine: bytes in, the place
//! of the first fault out.

use memchr::memchr;

/// Why the bytes of a client are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A line ends with LF alone, or CR stands alone.
    BareLf,
    /// A header line is the continuation of another.
    Fold,
    /// Two `Content-Length`, or one that is not a number.
    Length,
    /// Both `Content-Length` and `Transfer-Encoding`.
    Both,
    /// A `Transfer-Encoding` that is not `chunked` alone, or in HTTP/1.0.
    Encoding,
    /// A target with a fragment, which is the client's own (RFC 9112, 3.2).
    Target,
    /// A chunk that is not one.
    Chunk,
    /// Too many bytes in the head.
    TooLarge,
}

/// What the bytes that come next are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A new request's first.
    Idle,
    /// A head's.
    Head,
    /// A body's.
    Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before a request: empty lines may come.
    Begin,
    /// In the request line or a header line.
    Line,
    /// So many bytes of a body are to come.
    Counted(u64),
    /// In a line that gives a chunk's size.
    Size,
    /// In a chunk's data.
    Data(u64),
    /// Behind a chunk's data: CR, then LF.
    DataCr,
    DataLf,
    /// In a line of the trailer section.
    Trailer,
}

/// Longest size line of a chunk, with its extensions.
const SIZE_LINE: usize = 256;

/// Follows one connection.
#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is something that a head says or does not say"
)]
pub struct Framer {
    at: At,
    /// What has come of a line that is not whole yet.
    line: Vec<u8>,
    /// Bytes of this head, or of this trailer section.
    head: usize,
    max_head: usize,
    first: bool,
    old: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl Framer {
    /// For a connection whose heads have so many bytes at the most.
    pub fn new(max_head: usize) -> Self {
        Self {
            at: At::Begin,
            line: Vec::new(),
            head: 0,
            max_head,
            first: true,
            old: false,
            length: None,
            chunked: false,
            upgrade: false,
        }
    }

    /// What comes next.
    pub(super) fn phase(&self) -> Phase {
        match self.at {
            At::Begin => Phase::Idle,
            At::Line => Phase::Head,
            _ => Phase::Body,
        }
    }

    /// Whether the last head asked for another protocol.
    pub(super) fn asks_for_upgrade(&self) -> bool {
        self.upgrade
    }

    /// Takes the next bytes. The error has how many of them come before the request that is broken,
    /// or before what breaks its body.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), (usize, Broken)> {
        let mut from = 0;
        while let Some(rest) = bytes.get(from..).filter(|rest| !rest.is_empty()) {
            match self.step(rest) {
                Ok(taken) => from += taken,
                Err(why) => return Err((from, why)),
            }
        }
        Ok(())
    }

    /// Takes some of the bytes, at least one.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let len = bytes.len() as u64;
        match self.at {
            At::Begin => {
                self.reset();
                self.at = At::Line;
                self.lines(bytes)
            }
            At::Line | At::Size | At::Trailer => self.lines(bytes),
            At::Counted(left) if left > len => {
                self.at = At::Counted(left - len);
                Ok(bytes.len())
            }
            At::Counted(left) => {
                self.at = At::Begin;
                Ok(left as usize)
            }
            At::Data(left) if left > len => {
                self.at = At::Data(left - len);
                Ok(bytes.len())
            }
            At::Data(left) => {
                self.at = At::DataCr;
                Ok(left as usize)
            }
            At::DataCr if bytes.first() == Some(&b'\r') => {
                self.at = At::DataLf;
                Ok(1)
            }
            At::DataLf if bytes.first() == Some(&b'\n') => {
                self.at = At::Size;
                Ok(1)
            }
            At::DataCr | At::DataLf => Err(Broken::Chunk),
        }
    }

    fn reset(&mut self) {
        self.head = 0;
        self.first = true;
        self.old = false;
        self.length = None;
        self.chunked = false;
        self.upgrade = false;
    }

    /// One line, or the part of it that is there.
    fn lines(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let end = memchr(b'\n', bytes);
        let taken = end.map_or(bytes.len(), |end| end + 1);
        self.head += taken;
        let most = if self.at == At::Size {
            SIZE_LINE
        } else {
            self.max_head
        };
        if self.head > most {
            return Err(if self.at == At::Size {
                Broken::Chunk
            } else {
                Broken::TooLarge
            });
        }
        let part = bytes.get(..taken).unwrap_or_default();
        if end.is_none() {
            self.line.extend_from_slice(part);
            return Ok(taken);
        }
        if self.line.is_empty() {
            self.line_is(part)?;
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(part);
            self.line_is(&line)?;
        }
        Ok(taken)
    }

    /// A whole line, with its end.
    fn line_is(&mut self, line: &[u8]) -> Result<(), Broken> {
        let line = line.strip_suffix(b"\r\n").ok_or(Broken::BareLf)?;
        if memchr(b'\r', line).is_some() {
            return Err(Broken::BareLf);
        }
        match self.at {
            At::Size => self.size_line(line),
            At::Trailer => {
                if line.is_empty() {
                    self.at = At::Begin;
                }
                Ok(())
            }
            _ if self.first => {
                // A client may send an empty line too many behind a body.
                if !line.is_empty() {
                    if memchr(b'#', line).is_some() {
                        return Err(Broken::Target);
                    }
                    self.first = false;
                    self.old = line.ends_with(b"HTTP/1.0");
                } else if self.head > 4 {
                    return Err(Broken::BareLf);
                }
                Ok(())
            }
            _ if line.is_empty() => self.head_ends(),
            _ => self.header(line),
        }
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Broken> {
        match line.first() {
            Some(b' ' | b'\t') => return Err(Broken::Fold),
            Some(b'c' | b'C' | b't' | b'T' | b'u' | b'U') => {}
            _ => return Ok(()),
        }
        if let Some(value) = value_of(line, b"content-length") {
            let length = decimal(value).ok_or(Broken::Length)?;
            if self.length.replace(length).is_some() {
                return Err(Broken::Length);
            }
        } else if let Some(value) = value_of(line, b"transfer-encoding") {
            if self.chunked || self.old || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Broken::Encoding);
            }
            self.chunked = true;
        } else if value_of(line, b"upgrade").is_some() {
            self.upgrade = true;
        }
        Ok(())
    }

    fn head_ends(&mut self) -> Result<(), Broken> {
        self.head = 0;
        self.at = match (self.chunked, self.length) {
            (true, Some(_)) => return Err(Broken::Both),
            (true, None) => At::Size,
            (false, Some(length)) if length > 0 => At::Counted(length),
            _ => At::Begin,
        };
        Ok(())
    }

    fn size_line(&mut self, line: &[u8]) -> Result<(), Broken> {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
        let count = digits.count();
        let rest = line.get(count..).unwrap_or_default();
        let is_text = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
        let extension = matches!(rest.first(), None | Some(b';')) && rest.iter().all(is_text);
        if count == 0 || count > 15 || !extension {
            return Err(Broken::Chunk);
        }
        let text = line.get(..count).and_then(|text| str::from_utf8(text).ok());
        let size = text.and_then(|text| u64::from_str_radix(text, 16).ok());
        self.head = 0;
        self.at = match size {
            None => return Err(Broken::Chunk),
            Some(0) => At::Trailer,
            Some(size) => At::Data(size),
        };
        Ok(())
    }
}

/// The value of a header line, if it is of this name.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (field, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    field.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

/// The number that a `Content-Length` is.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All at once and byte by byte must be the same, but for the place.
    fn check(text: &str, expect: Result<Phase, Broken>) {
        let mut whole = Framer::new(1024);
        let got = whole.feed(text.as_bytes());
        let got = got.map(|()| whole.phase()).map_err(|(_, why)| why);
        assert_eq!(got, expect, "{text:?}");
        let mut slow = Framer::new(1024);
        let mut bytes = text.as_bytes().chunks(1);
        let fault = bytes.find_map(|byte| slow.feed(byte).err());
        let got = fault.map_or(Ok(slow.phase()), |(_, why)| Err(why));
        assert_eq!(got, expect, "byte by byte: {text:?}");
    }

    #[test]
    fn requests_end_where_they_end() {
        check("", Ok(Phase::Idle));
        check("GET / HT", Ok(Phase::Head));
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(Phase::Idle));
        check("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(Phase::Idle));
        let post = "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n";
        check(&format!("{post}abc"), Ok(Phase::Body));
        check(&format!("{post}abcd"), Ok(Phase::Idle));
        check(&format!("{post}abcdGET"), Ok(Phase::Head));
        let chunks = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{chunks}3;x=y\r\nabc\r\n"), Ok(Phase::Body));
        check(&format!("{chunks}3\r\nabc\r\n0\r\n\r\n"), Ok(Phase::Idle));
        check(&format!("{chunks}0\r\nA: b\r\n\r\nG"), Ok(Phase::Head));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (head, why) in [
            ("A: b\nC: d\r\n", Broken::BareLf),
            ("A: b\rc\r\n", Broken::BareLf),
            ("A: b\r\n c\r\n", Broken::Fold),
            ("A: b\r\n\tc\r\n", Broken::Fold),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", Broken::Length),
            ("Content-Length: 1, 1\r\n", Broken::Length),
            ("Content-Length: +1\r\n", Broken::Length),
            ("content-length:\r\n", Broken::Length),
            ("Content-Length: 99999999999999999999\r\n", Broken::Length),
            ("Transfer-Encoding: xchunked\r\n", Broken::Encoding),
            ("Transfer-Encoding: gzip, chunked\r\n", Broken::Encoding),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Broken::Encoding,
            ),
            (
                "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
                Broken::Both,
            ),
            (
                "Transfer-Encoding: chunked\r\ncontent-length: 4\r\n\r\n",
                Broken::Both,
            ),
        ] {
            check(&format!("POST / HTTP/1.1\r\n{head}"), Err(why));
        }
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n";
        check(old, Err(Broken::Encoding));
        check("GET / HTTP/1.1\n", Err(Broken::BareLf));
        check("\n", Err(Broken::BareLf));
        check("GET /a#b HTTP/1.1\r\n", Err(Broken::Target));
        let chunks = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for bad in [
            "x\r\n",
            "\r\n",
            "3 \r\n",
            "3;a\0b\r\n",
            "-1\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc\n",
        ] {
            check(&format!("{chunks}{bad}"), Err(Broken::Chunk));
        }
        check(&format!("{chunks}3\n"), Err(Broken::BareLf));
        check(&format!("{chunks}{}", "0".repeat(300)), Err(Broken::Chunk));
        check(
            &format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(1024)),
            Err(Broken::TooLarge),
        );
    }

    #[test]
    fn the_place_of_a_fault_is_the_line_it_is_in() {
        let good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let bad = format!("{good}GET / HTTP/1.1\nHost: a\r\n\r\n");
        let fault = Framer::new(1024).feed(bad.as_bytes());
        assert_eq!(fault, Err((good.len(), Broken::BareLf)));
    }
}
