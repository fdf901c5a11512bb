//! What does a copy answer, and what is the client told in its place?

use std::{io::Write, mem::MaybeUninit, time::SystemTime};

use httparse::{Header, ParserConfig, Status};

use super::{
    super::framing::decimal,
    chunks::Chunks,
    field::{Field, line},
};

/// Header lines of an answer at the most, as many as the library takes.
const LINES: usize = 100;

/// What came is not HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbled;

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    /// Bytes of it.
    pub(super) size: usize,
    pub(super) status: u16,
    /// Another request may follow.
    pub(super) keeps: bool,
    pub(super) body: Extent,
}

/// How far a body reaches.
#[derive(Debug)]
pub(super) enum Extent {
    Counted(u64),
    Chunked(Chunks),
    /// Until the copy closes the connection.
    UntilEnd,
}

/// What some bytes are to a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// So many are of it.
    pub(super) used: usize,
    /// So many of these the client gets.
    pub(super) passed: usize,
    /// The body ends with them.
    pub(super) ended: bool,
}

impl Extent {
    /// Takes bytes up to the body's end.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Part, Garbled> {
        let (used, ended) = match self {
            Self::Counted(left) => {
                let here = (*left).min(bytes.len() as u64);
                *left -= here;
                (here as usize, *left == 0)
            }
            Self::Chunked(chunks) => return chunks.take(bytes),
            Self::UntilEnd => (bytes.len(), false),
        };
        Ok(Part {
            used,
            passed: used,
            ended,
        })
    }
}

/// Reads the head that these bytes begin with, and appends what the client gets in its place, but for
/// the empty line. `None` where it is not whole. Of a status below 200 nothing is written: what counts
/// follows. `to_head`: a request with HEAD is answered.
pub(super) fn translate(
    bytes: &[u8],
    to_head: bool,
    out: &mut Vec<u8>,
) -> Result<Option<Head>, Garbled> {
    let mut lines = [const { MaybeUninit::<Header<'_>>::uninit() }; LINES];
    let mut head = httparse::Response::new(&mut []);
    let parser = ParserConfig::default();
    let parsed = parser.parse_response_with_uninit_headers(&mut head, bytes, &mut lines);
    let size = match parsed {
        Ok(Status::Complete(size)) => size,
        Ok(Status::Partial) => return Ok(None),
        Err(_) => return Err(Garbled),
    };
    let (Some(status), Some(version)) = (head.code, head.version) else {
        return Err(Garbled);
    };
    if status < 100 || status == 101 {
        // Nobody has asked for another protocol.
        return Err(Garbled);
    }
    let told = Told::read(head.headers);
    let body = if to_head || matches!(status, 100..200 | 204 | 304) {
        Extent::Counted(0)
    } else {
        told.extent(version)?
    };
    if status >= 200 {
        out.extend_from_slice(b"HTTP/1.1 ");
        let digits = [status / 100, status / 10 % 10, status % 10];
        out.extend(digits.map(|digit| b'0' + digit as u8));
        out.push(b' ');
        out.extend_from_slice(head.reason.unwrap_or_default().as_bytes());
        out.extend_from_slice(b"\r\n");
        told.write(head.headers, status, &body, out);
    }
    let stays = if version == 1 {
        !told.closes
    } else {
        told.stays
    };
    Ok(Some(Head {
        size,
        status,
        keeps: stays && !matches!(body, Extent::UntilEnd),
        body,
    }))
}

/// What a head says of its connection and its body.
#[derive(Debug, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is something that a head says or does not say"
)]
struct Told {
    length: Option<u64>,
    /// Two lengths, or one that is no number, or a coding that nobody has asked for.
    odd: bool,
    chunked: bool,
    closes: bool,
    /// An old copy says so, where others need not.
    stays: bool,
    dated: bool,
    /// `Connection` names fields that are of this connection alone.
    names: bool,
}

impl Told {
    fn read(headers: &[Header<'_>]) -> Self {
        let mut told = Self::default();
        for header in headers {
            match Field::of(header.name) {
                Field::Connection => {
                    for name in listed(header) {
                        let closes = name.eq_ignore_ascii_case(b"close");
                        let stays = name.eq_ignore_ascii_case(b"keep-alive");
                        told.closes |= closes;
                        told.stays |= stays;
                        told.names |= !closes && !stays;
                    }
                }
                Field::ContentLength => {
                    let lengths = header.value.split(|byte| *byte == b',');
                    for length in lengths.map(|text| decimal(text.trim_ascii())) {
                        told.odd |=
                            length.is_none() || told.length.is_some_and(|one| Some(one) != length);
                        told.length = length;
                    }
                }
                Field::TransferEncoding => {
                    let chunked = header.value.eq_ignore_ascii_case(b"chunked");
                    told.odd |= told.chunked || !chunked;
                    told.chunked = true;
                }
                Field::Date => told.dated = true,
                _ => {}
            }
        }
        told.dated &= !(told.names && is_listed(headers, "date"));
        // Of two ways to say where the body ends, the other one holds; whoever says both may have
        // been led to it, so nothing more is asked by this connection.
        told.closes |= told.chunked && told.length.is_some();
        told.stays &= !told.closes;
        told
    }

    /// How far the body reaches that an answer of this version has.
    fn extent(&self, version: u8) -> Result<Extent, Garbled> {
        if self.odd || self.chunked && version == 0 {
            return Err(Garbled);
        }
        Ok(match self.length {
            _ if self.chunked => Extent::Chunked(Chunks::new()),
            Some(length) => Extent::Counted(length),
            None => Extent::UntilEnd,
        })
    }

    fn write(&self, headers: &[Header<'_>], status: u16, body: &Extent, out: &mut Vec<u8>) {
        for header in headers {
            match Field::of(header.name) {
                Field::Connection
                | Field::ContentLength
                | Field::KeepAlive
                | Field::ProxyConnection
                | Field::Te
                | Field::TransferEncoding
                | Field::Upgrade => {}
                _ if self.names && is_listed(headers, header.name) => {}
                _ => line(out, header.name, header.value),
            }
        }
        if !self.dated {
            let now = httpdate::fmt_http_date(SystemTime::now());
            line(out, "Date", now.as_bytes());
        }
        if !matches!(body, Extent::Counted(_)) {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        } else if let Some(length) = self.length
            && !self.odd
            && !self.chunked
            && status != 204
        {
            // Writing to memory does not fail.
            let _ = write!(out, "Content-Length: {length}\r\n");
        }
    }
}

/// The words of a list.
fn listed<'a>(header: &Header<'a>) -> impl Iterator<Item = &'a [u8]> {
    let words = header.value.split(|byte| *byte == b',');
    words
        .map(<[u8]>::trim_ascii)
        .filter(|word| !word.is_empty())
}

fn is_listed(headers: &[Header<'_>], name: &str) -> bool {
    let connection = |header: &&Header<'_>| Field::of(header.name) == Field::Connection;
    let mut names = headers.iter().filter(connection).flat_map(listed);
    names.any(|listed| listed.eq_ignore_ascii_case(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    fn read(text: &str, to_head: bool) -> Result<Option<(Head, String)>, Garbled> {
        let mut out = Vec::new();
        let head = translate(text.as_bytes(), to_head, &mut out)?;
        Ok(head.map(|head| (head, String::from_utf8(out).unwrap())))
    }

    fn told(text: &str) -> (Head, String) {
        read(text, false).unwrap().unwrap()
    }

    #[test]
    fn an_answer_is_handed_on_line_by_line() {
        let lines = format!("HTTP/1.1 200 Fine\r\nETag: \"a\"\r\n{DATE}Content-Length: 5\r\n");
        let text = format!("{lines}\r\n");
        let (head, out) = told(&format!("{text}hello"));
        assert_eq!(
            (head.size, head.status, head.keeps),
            (text.len(), 200, true)
        );
        assert!(matches!(head.body, Extent::Counted(5)));
        assert_eq!(out, lines);
        for end in 0..text.len() {
            assert!(read(&text[..end], false).unwrap().is_none());
        }
    }

    #[test]
    fn what_is_of_the_connection_stays_on_it() {
        let (head, out) = told(&format!(
            "HTTP/1.1 404 Not Found\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nUpgrade: h2\r\nProxy-Connection: a\r\nTE: a\r\nContent-Length: 0\r\n{DATE}\r\n"
        ));
        assert!(!head.keeps);
        assert_eq!(
            out,
            format!("HTTP/1.1 404 Not Found\r\n{DATE}Content-Length: 0\r\n")
        );
        let (_, out) = told(&format!(
            "HTTP/1.1 204 No Content\r\nConnection: date\r\n{DATE}\r\n"
        ));
        assert!(out.contains("Date: ") && !out.contains("1994"), "{out}");
    }

    #[test]
    fn a_body_ends_where_its_head_says() {
        let (head, out) = told(&format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n{DATE}\r\n"
        ));
        assert!(head.keeps && matches!(head.body, Extent::Chunked(_)));
        assert_eq!(
            out,
            format!("HTTP/1.1 200 OK\r\n{DATE}Transfer-Encoding: chunked\r\n")
        );
        let (head, out) = told(&format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n{DATE}\r\n"
        ));
        assert!(!head.keeps && matches!(head.body, Extent::Chunked(_)));
        assert!(!out.contains("Length"), "{out}");
        let (head, out) = told(&format!("HTTP/1.0 200 OK\r\n{DATE}\r\n"));
        assert!(!head.keeps && matches!(head.body, Extent::UntilEnd));
        assert!(out.starts_with("HTTP/1.1 200 OK\r\n"), "{out}");
        assert!(out.contains("Transfer-Encoding: chunked"), "{out}");
        for lengths in [
            "Content-Length: 3\r\nContent-Length: 3\r\n",
            "Content-Length: 3, 3\r\n",
        ] {
            let (_, out) = told(&format!("HTTP/1.1 200 OK\r\n{lengths}{DATE}\r\n"));
            assert!(out.ends_with("Content-Length: 3\r\n"), "{out}");
            assert_eq!(out.matches("Length").count(), 1, "{out}");
        }
    }

    #[test]
    fn old_copies_keep_a_connection_if_they_say_so() {
        for (lines, keeps) in [
            ("Content-Length: 1\r\n", false),
            ("Content-Length: 1\r\nConnection: keep-alive\r\n", true),
            (
                "Content-Length: 1\r\nConnection: keep-alive, close\r\n",
                false,
            ),
            ("Connection: keep-alive\r\n", false),
        ] {
            let (head, _) = told(&format!("HTTP/1.0 200 OK\r\n{lines}{DATE}\r\n"));
            assert_eq!(head.keeps, keeps, "{lines}");
        }
    }

    #[test]
    fn some_answers_have_no_body_whatever_they_say() {
        for status in ["204 No Content", "304 Not Modified", "103 Early Hints"] {
            let (head, out) = told(&format!(
                "HTTP/1.1 {status}\r\nContent-Length: 3\r\n{DATE}\r\n"
            ));
            assert!(matches!(head.body, Extent::Counted(0)));
            assert_eq!(out.contains("Length"), status.starts_with("304"), "{out}");
            assert_eq!(out.is_empty(), status.starts_with('1'), "{out}");
        }
        for length in [
            "Content-Length: 3\r\n",
            "Content-Length: x\r\n",
            "Transfer-Encoding: gzip\r\n",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{length}{DATE}\r\n");
            let (head, out) = read(&text, true).unwrap().unwrap();
            assert!(head.keeps && matches!(head.body, Extent::Counted(0)));
            assert_eq!(
                out.contains("Content-Length: 3\r\n"),
                length.contains('3'),
                "{out}"
            );
        }
    }

    #[test]
    fn an_answer_without_a_date_gets_one() {
        let (_, out) = told("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert!(
            out.contains("\r\nDate: ") && out.contains(" GMT\r\n"),
            "{out}"
        );
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for bad in [
            "HTTP/2 200 OK\r\n\r\n",
            "SSH-2.0-x\r\n",
            "HTTP/1.1 99 Low\r\n\r\n",
            "HTTP/1.1 099 Low\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        ] {
            let refused = read(bad, false);
            assert!(matches!(refused, Err(Garbled)), "{bad:?}");
        }
    }
}
