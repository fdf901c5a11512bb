//! What does a copy answer, and what is the client told in its place?

use std::{mem::MaybeUninit, time::SystemTime};

use httparse::{Header, ParserConfig, Status};

use super::{
    chunks::Chunks,
    field::{Field, line},
};

/// Header lines of an answer at the most, as many as the library takes.
const LINES: usize = 100;

/// What came is not HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbled;

/// What the client has asked, as far as the answer depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// There is no body in the answer to this.
    pub(super) is_head: bool,
    /// The connection to the client ends behind the answer.
    pub(super) closes: bool,
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    /// Bytes of it.
    pub(super) size: usize,
    pub(super) status: u16,
    /// Another request may follow.
    pub(super) keeps: bool,
    pub(super) body: Rest,
}

/// What is to come of a body.
#[derive(Debug)]
pub(super) enum Rest {
    Counted(u64),
    Chunked(Chunks),
    /// Until the copy closes the connection.
    UntilEnd,
}

impl Rest {
    /// Takes bytes up to the body's end; how many, and whether it has come.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), Garbled> {
        match self {
            Self::Counted(left) => {
                let here = (*left).min(bytes.len() as u64);
                *left -= here;
                Ok((here as usize, *left == 0))
            }
            Self::Chunked(chunks) => chunks.take(bytes),
            Self::UntilEnd => Ok((bytes.len(), false)),
        }
    }
}

/// Reads the head that these bytes begin with, and appends what the client gets in its place. `None`
/// where it is not whole. Of a status below 200 nothing is written: what counts follows.
pub(super) fn translate(
    bytes: &[u8],
    asked: Asked,
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
    let told = Told::read(head.headers)?;
    let body = match (status, told.chunked, told.length) {
        // Nobody has asked for another protocol.
        (101 | 0..100, _, _) => return Err(Garbled),
        (100..200 | 204 | 304, _, _) => Rest::Counted(0),
        _ if asked.is_head => Rest::Counted(0),
        (_, true, _) => Rest::Chunked(Chunks::new()),
        (_, _, Some(length)) => Rest::Counted(length),
        _ => Rest::UntilEnd,
    };
    if status >= 200 {
        out.extend_from_slice(b"HTTP/1.1 ");
        let digits = [status / 100, status / 10 % 10, status % 10];
        out.extend(digits.map(|digit| b'0' + digit as u8));
        out.push(b' ');
        out.extend_from_slice(head.reason.unwrap_or_default().as_bytes());
        out.extend_from_slice(b"\r\n");
        told.write(head.headers, status, asked, &body, out);
    }
    Ok(Some(Head {
        size,
        status,
        keeps: version == 1 && !told.closes && !matches!(body, Rest::UntilEnd),
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
    chunked: bool,
    closes: bool,
    dated: bool,
    /// `Connection` names fields that are of this connection alone.
    names: bool,
}

impl Told {
    fn read(headers: &[Header<'_>]) -> Result<Self, Garbled> {
        let mut told = Self::default();
        for header in headers {
            match Field::of(header.name) {
                Field::Connection => {
                    for name in listed(header) {
                        told.closes |= name.eq_ignore_ascii_case(b"close");
                        told.names |= !name.eq_ignore_ascii_case(b"keep-alive")
                            && !name.eq_ignore_ascii_case(b"close");
                    }
                }
                Field::ContentLength => {
                    let length = decimal(header.value).ok_or(Garbled)?;
                    if told.length.is_some_and(|other| other != length) {
                        return Err(Garbled);
                    }
                    told.length = Some(length);
                }
                Field::TransferEncoding => {
                    if told.chunked || !header.value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Garbled);
                    }
                    told.chunked = true;
                }
                Field::Date => told.dated = true,
                _ => {}
            }
        }
        // Of two ways to say where the body ends, the other one holds; whoever says both may have
        // been led to it, so nothing more is asked by this connection.
        told.closes |= told.chunked && told.length.is_some();
        Ok(told)
    }

    fn write(
        &self,
        headers: &[Header<'_>],
        status: u16,
        asked: Asked,
        body: &Rest,
        out: &mut Vec<u8>,
    ) {
        let mut counted = false;
        for header in headers {
            match Field::of(header.name) {
                Field::Connection
                | Field::KeepAlive
                | Field::ProxyConnection
                | Field::Te
                | Field::TransferEncoding
                | Field::Upgrade => {}
                Field::ContentLength => {
                    // Once, and not beside chunks or where there is never a body.
                    if !counted && !self.chunked && status != 204 {
                        line(out, header.name, header.value);
                    }
                    counted = true;
                }
                _ if self.names && is_listed(headers, header.name) => {}
                _ => line(out, header.name, header.value),
            }
        }
        if !self.dated {
            let now = httpdate::fmt_http_date(SystemTime::now());
            line(out, "Date", now.as_bytes());
        }
        if matches!(body, Rest::Chunked(_) | Rest::UntilEnd) {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if asked.closes {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
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

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    fn read(text: &str, asked: Asked) -> Result<Option<(Head, String)>, Garbled> {
        let mut out = Vec::new();
        let head = translate(text.as_bytes(), asked, &mut out)?;
        Ok(head.map(|head| (head, String::from_utf8(out).unwrap())))
    }

    fn told(text: &str) -> (Head, String) {
        read(text, Asked::default()).unwrap().unwrap()
    }

    #[test]
    fn an_answer_is_handed_on_line_by_line() {
        let text = format!("HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nETag: \"a\"\r\n{DATE}\r\n");
        let (head, out) = told(&format!("{text}hello"));
        assert_eq!(
            (head.size, head.status, head.keeps),
            (text.len(), 200, true)
        );
        assert!(matches!(head.body, Rest::Counted(5)));
        assert_eq!(out, text);
        for end in 0..text.len() {
            assert!(read(&text[..end], Asked::default()).unwrap().is_none());
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
            format!("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n{DATE}\r\n")
        );
    }

    #[test]
    fn a_body_ends_where_its_head_says() {
        let (head, out) = told(&format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n{DATE}\r\n"
        ));
        assert!(head.keeps && matches!(head.body, Rest::Chunked(_)));
        assert_eq!(
            out,
            format!("HTTP/1.1 200 OK\r\n{DATE}Transfer-Encoding: chunked\r\n\r\n")
        );
        let (head, out) = told(&format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n{DATE}\r\n"
        ));
        assert!(!head.keeps && matches!(head.body, Rest::Chunked(_)));
        assert!(!out.contains("Length"), "{out}");
        let (head, out) = told(&format!("HTTP/1.0 200 OK\r\n{DATE}\r\n"));
        assert!(!head.keeps && matches!(head.body, Rest::UntilEnd));
        assert!(out.starts_with("HTTP/1.1 200 OK\r\n"), "{out}");
        assert!(out.contains("Transfer-Encoding: chunked"), "{out}");
        let (_, out) = told(&format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n{DATE}\r\n"
        ));
        assert_eq!(out.matches("Length").count(), 1, "{out}");
    }

    #[test]
    fn some_answers_have_no_body_whatever_they_say() {
        for status in ["204 No Content", "304 Not Modified", "103 Early Hints"] {
            let (head, out) = told(&format!(
                "HTTP/1.1 {status}\r\nContent-Length: 3\r\n{DATE}\r\n"
            ));
            assert!(matches!(head.body, Rest::Counted(0)));
            assert_eq!(out.contains("Length"), status.starts_with("304"), "{out}");
            assert_eq!(out.is_empty(), status.starts_with('1'), "{out}");
        }
        let asked = Asked {
            is_head: true,
            closes: true,
        };
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n{DATE}\r\n");
        let (head, out) = read(&text, asked).unwrap().unwrap();
        assert!(head.keeps && matches!(head.body, Rest::Counted(0)));
        assert!(out.contains("Content-Length: 3"), "{out}");
        assert!(out.ends_with("Connection: close\r\n\r\n"), "{out}");
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
            "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        ] {
            let refused = read(bad, Asked::default());
            assert!(matches!(refused, Err(Garbled)), "{bad:?}");
        }
    }
}
