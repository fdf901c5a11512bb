//! Is a request plain, and what is said to a copy in its place?

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Status};
use hyper::Method;

use super::{
    super::{
        framing::{Framer, Phase},
        headers::Asker,
        host,
        route::Route,
        service::Settings,
    },
    field::{Field, line},
};

/// Header lines of a plain request at the most.
const LINES: usize = 64;

/// A request that is all head, and asks for nothing that a proxy has to understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is something that a request says or does not say"
)]
pub(super) struct Request {
    /// Bytes of it.
    pub(super) size: usize,
    /// To do it twice is the same as once.
    pub(super) is_idempotent: bool,
    /// It counts.
    pub(super) counted: bool,
    /// Its answer has no body, whatever its head says.
    pub(super) is_head: bool,
    /// The client wants the connection to end behind the answer.
    pub(super) closes: bool,
}

/// Reads the first request of these bytes, and writes its head as a copy gets it. `None` where it is
/// not whole, not plain, not for a copy, or against the rules: then it is the library's, which knows
/// what to do.
pub(super) fn translate(
    bytes: &[u8],
    settings: &Settings,
    asker: &Asker,
    out: &mut Vec<u8>,
) -> Option<Request> {
    let mut lines = [const { MaybeUninit::<Header<'_>>::uninit() }; LINES];
    let mut head = httparse::Request::new(&mut []);
    let parser = ParserConfig::default();
    let parsed = parser.parse_request_with_uninit_headers(&mut head, bytes, &mut lines);
    let Ok(Status::Complete(size)) = parsed else {
        return None;
    };
    let http = &settings.http;
    if head.version != Some(1) || size > http.max_header || head.headers.len() > http.max_headers {
        return None;
    }
    let (method, target) = (
        Method::from_bytes(head.method?.as_bytes()).ok()?,
        head.path?,
    );
    if method == Method::CONNECT {
        return None;
    }
    let Route::Forward { counted } = settings.rules.route(path(target)?) else {
        return None;
    };
    // What two parsers could read in two ways, and whether a body follows.
    let mut framer = Framer::new(size);
    framer.feed(bytes.get(..size)?).ok()?;
    if framer.phase() != Phase::Idle || framer.asks_for_upgrade() {
        return None;
    }
    out.clear();
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let closes = fields(head.headers, asker, out)?;
    Some(Request {
        size,
        is_idempotent: method.is_idempotent(),
        counted,
        is_head: method == Method::HEAD,
        closes,
    })
}

/// The path of a target that every parser reads in the same way.
fn path(target: &str) -> Option<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/?".contains(&byte);
    if !target.starts_with('/') || !target.bytes().all(plain) {
        return None;
    }
    target.split('?').next()
}

/// Writes the header fields, and says whether the connection is to end.
fn fields(headers: &[Header<'_>], asker: &Asker, out: &mut Vec<u8>) -> Option<bool> {
    let (mut hosts, mut closes, mut chain) = (0, false, false);
    for header in headers {
        match Field::of(header.name) {
            Field::Connection if header.value.eq_ignore_ascii_case(b"close") => closes = true,
            Field::Connection if header.value.eq_ignore_ascii_case(b"keep-alive") => {}
            Field::Connection
            | Field::Expect
            | Field::ProxyConnection
            | Field::Te
            | Field::TransferEncoding
            | Field::Upgrade => return None,
            Field::ForwardedFor => chain = true,
            Field::ForwardedProto | Field::KeepAlive => {}
            Field::Host if !host::is_valid(header.value) => return None,
            Field::Host => {
                hosts += 1;
                line(out, header.name, header.value);
            }
            Field::ContentLength | Field::Date | Field::Line => {
                line(out, header.name, header.value);
            }
        }
    }
    if hosts != 1 {
        return None;
    }
    out.extend_from_slice(b"X-Forwarded-For: ");
    if chain {
        let before = |header: &&Header<'_>| Field::of(header.name) == Field::ForwardedFor;
        for header in headers.iter().filter(before) {
            out.extend_from_slice(header.value);
            out.extend_from_slice(b", ");
        }
    }
    out.extend_from_slice(asker.address.as_bytes());
    out.extend_from_slice(if asker.secure {
        b"\r\nX-Forwarded-Proto: https\r\nVia: 1.1 orch\r\n\r\n"
    } else {
        b"\r\nX-Forwarded-Proto: http\r\nVia: 1.1 orch\r\n\r\n"
    });
    Some(closes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::route::Rules;

    fn settings() -> Settings {
        let text = "[[service]]\nmode = \"http\"\nbackend.image = \"a:b\"\ncount.prefix = \"/api/\"\ncount.exclude = [\"/api/_health\"]";
        let service = &crate::config::parse("test", text).unwrap().services[0];
        Settings {
            rules: Rules::new(&service.http.routes, &service.count),
            http: service.http.clone(),
        }
    }

    fn read(text: &str) -> Option<(Request, String)> {
        let asker = Asker::new("10.0.0.9".parse().unwrap(), false);
        let mut out = b"rubbish".to_vec();
        let request = translate(text.as_bytes(), &settings(), &asker, &mut out)?;
        Some((request, String::from_utf8(out).unwrap()))
    }

    const TOLD: &str =
        "X-Forwarded-For: 10.0.0.9\r\nX-Forwarded-Proto: http\r\nVia: 1.1 orch\r\n\r\n";

    #[test]
    fn a_plain_request_is_handed_on_line_by_line() {
        let head = "GET /api/a?b=%20 HTTP/1.1\r\nHost: a\r\nAccept:  */* \r\nCookie: a=b\r\ncookie: c\r\nConnection: Keep-Alive\r\nKeep-Alive: 5\r\nX-Forwarded-Proto: gopher\r\n\r\n";
        let (request, out) = read(&format!("{head}GET /next")).unwrap();
        assert_eq!(
            request,
            Request {
                size: head.len(),
                is_idempotent: true,
                counted: true,
                is_head: false,
                closes: false,
            }
        );
        assert_eq!(
            out,
            format!(
                "GET /api/a?b=%20 HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nCookie: a=b\r\ncookie: c\r\n{TOLD}"
            )
        );
    }

    #[test]
    fn what_follows_from_method_path_and_connection() {
        let (request, _) =
            read("HEAD /api/_health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        assert!(request.is_head && request.closes && !request.counted);
        let (request, out) =
            read("POST /api/ HTTP/1.1\r\nhost: a\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert!(!request.is_idempotent && request.counted);
        assert!(out.contains("Content-Length: 0\r\n"), "{out}");
    }

    #[test]
    fn chains_grow_at_their_end() {
        let (_, out) = read(
            "GET /api/ HTTP/1.1\r\nX-Forwarded-For: 1.1.1.1\r\nHost: a\r\nx-forwarded-for: 2.2.2.2\r\nVia: 1.0 fred\r\n\r\n",
        )
        .unwrap();
        assert!(
            out.contains("\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.9\r\n"),
            "{out}"
        );
        assert!(out.contains("\r\nVia: 1.0 fred\r\n"), "{out}");
        assert!(out.ends_with("\r\nVia: 1.1 orch\r\n\r\n"), "{out}");
        assert_eq!(out.matches("orwarded-").count(), 2, "{out}");
    }

    #[test]
    fn whatever_is_not_plain_is_the_library_s() {
        let host = "Host: a\r\n";
        for head in [
            format!("GET /api/ HTTP/1.1\r\n{host}"),
            format!("GET /api/ HTTP/1.0\r\n{host}\r\n"),
            format!("GET / HTTP/1.1\r\n{host}\r\n"),
            format!("GET /other HTTP/1.1\r\n{host}\r\n"),
            format!("GET * HTTP/1.1\r\n{host}\r\n"),
            format!("GET http://a/api/ HTTP/1.1\r\n{host}\r\n"),
            format!("GET /api/#a HTTP/1.1\r\n{host}\r\n"),
            format!("GET /api/\u{e9} HTTP/1.1\r\n{host}\r\n"),
            format!("GET /api/{{a}} HTTP/1.1\r\n{host}\r\n"),
            "GET /api/ HTTP/1.1\r\n\r\n".to_owned(),
            format!("GET /api/ HTTP/1.1\r\n{host}{host}\r\n"),
            format!("GET /api/ HTTP/1.1\n{host}\r\n"),
            format!("GET /api/ HTTP/1.1\r\n{host}\n"),
            format!("GET /api/ HTTP/1.1\r\n{host}A: b\nC: d\r\n\r\n"),
            format!("GET /api/ HTTP/1.1\r\n{host}A: b\r\n c\r\n\r\n"),
            format!("GET /api/ HTTP/1.1\r\n{host}A : b\r\n\r\n"),
            format!("GET /api/ HTTP/1.1\r\n{host}Connection: close, x\r\n\r\n"),
            format!("GET /api/ HTTP/1.1\r\n{host}Connection: Upgrade\r\nUpgrade: chat\r\n\r\n"),
            format!("GET /api/ HTTP/1.1\r\n{host}TE: trailers\r\n\r\n"),
            format!("GET /api/ HTTP/1.1\r\n{host}Expect: 100-continue\r\n\r\n"),
            format!("GET /api/ HTTP/1.1\r\n{host}Proxy-Connection: a\r\n\r\n"),
            format!("POST /api/ HTTP/1.1\r\n{host}Content-Length: 3\r\n\r\nabc"),
            format!("POST /api/ HTTP/1.1\r\n{host}Content-Length: 0\r\nContent-Length: 0\r\n\r\n"),
            format!("POST /api/ HTTP/1.1\r\n{host}Content-Length: x\r\n\r\n"),
            format!("POST /api/ HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            format!(
                "GET /api/ HTTP/1.1\r\n{host}A: {}\r\n\r\n",
                "b".repeat(1 << 20)
            ),
            format!(
                "GET /api/ HTTP/1.1\r\n{host}{}\r\n",
                "a: b\r\n".repeat(LINES)
            ),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "CONNECT /api/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        ] {
            assert_eq!(read(&head), None, "{head:.200}");
        }
    }
}
