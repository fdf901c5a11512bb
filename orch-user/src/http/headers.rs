//! What a proxy changes in a head (RFC 9110, 7.6): fields of one connection stay on it, and who
//! asked is told.

use std::{fmt::Write, net::IpAddr};

use hyper::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, Entry, HOST, HeaderMap, HeaderName, HeaderValue,
    TE, TRANSFER_ENCODING, UPGRADE, VIA,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const UPGRADES: HeaderValue = HeaderValue::from_static("upgrade");

/// Who asks, as the copy is told.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    /// The client's address, in text.
    pub(super) address: HeaderValue,
    /// Whether over TLS.
    pub(super) secure: bool,
}

impl Asker {
    pub(super) fn new(address: IpAddr, secure: bool) -> Self {
        let text = address.to_canonical().to_string();
        Self {
            // An address is always a header's value.
            address: HeaderValue::from_str(&text)
                .unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            secure,
        }
    }
}

/// Whether this field is of one connection alone, whatever `Connection` says.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    name == CONNECTION
        || name == TRANSFER_ENCODING
        || name == UPGRADE
        || name == TE
        || name == KEEP_ALIVE
        || name == PROXY_CONNECTION
}

/// The names that `Connection` lists.
fn listed(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim)
}

fn lists(headers: &HeaderMap, word: &str) -> bool {
    listed(headers).any(|name| name.eq_ignore_ascii_case(word))
}

/// The protocol that a request asks for, if it may have it: not HTTP/2, which is had otherwise.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<&HeaderValue> {
    let wanted = headers.get(UPGRADE)?;
    let h2 = wanted.as_bytes().to_ascii_lowercase().starts_with(b"h2");
    (lists(headers, "upgrade") && !h2).then_some(wanted)
}

/// Makes one line of a cookie that HTTP/2 has in parts: copies speak HTTP/1.1 (RFC 9113, 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let parts: Vec<_> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if parts.len() < 2 {
        return;
    }
    // Parts of values are one, with what is between them.
    if let Ok(whole) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

/// The head of the request as a copy gets it. `host` is for requests that have it elsewhere.
pub(super) fn outgoing(
    from: &HeaderMap,
    asker: &Asker,
    via: &'static str,
    host: Option<HeaderValue>,
) -> HeaderMap {
    let mut to = HeaderMap::with_capacity(from.len() + 4);
    let mut before: Option<String> = None;
    // `Host` is never of one connection alone: without it the copy could not tell for whom it answers.
    let kept = |name: &&str| !name.eq_ignore_ascii_case("host");
    let mut named = listed(from)
        .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("keep-alive"))
        .filter(kept)
        .peekable();
    let own: Vec<&str> = if named.peek().is_some() {
        named.collect()
    } else {
        Vec::new()
    };
    for (name, value) in from {
        let of_connection = |listed: &&str| listed.eq_ignore_ascii_case(name.as_str());
        if is_hop_by_hop(name)
            || name == EXPECT
            || name == FORWARDED_PROTO
            || (host.is_some() && name == HOST)
            || own.iter().any(of_connection)
        {
            continue;
        }
        if name == FORWARDED_FOR {
            let text = before.get_or_insert_default();
            let _ = write!(text, "{}, ", String::from_utf8_lossy(value.as_bytes()));
            continue;
        }
        to.append(name.clone(), value.clone());
    }
    if let Some(host) = host {
        to.insert(HOST, host);
    }
    let chain = before.and_then(|text| {
        let text = text + asker.address.to_str().ok()?;
        HeaderValue::from_str(&text).ok()
    });
    to.insert(
        FORWARDED_FOR,
        chain.unwrap_or_else(|| asker.address.clone()),
    );
    let proto = if asker.secure { "https" } else { "http" };
    to.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
    add_via(&mut to, via);
    let takes_trailers = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text.split(',')
            .any(|word| word.trim().eq_ignore_ascii_case("trailers"))
    };
    if from.get_all(TE).iter().any(takes_trailers) {
        to.insert(TE, TRAILERS);
        to.insert(CONNECTION, HeaderValue::from_static("TE"));
    }
    if let Some(wanted) = upgrade(from) {
        to.insert(UPGRADE, wanted.clone());
        to.insert(CONNECTION, UPGRADES);
    }
    to
}

/// Whether a trailer field may be handed on: those of one connection may not, and nobody but us says
/// who asked.
pub(super) fn may_trail(name: &HeaderName) -> bool {
    !is_hop_by_hop(name) && name != FORWARDED_FOR && name != FORWARDED_PROTO && name != VIA
}

fn add_via(to: &mut HeaderMap, via: &'static str) {
    match to.entry(VIA) {
        Entry::Vacant(entry) => {
            entry.insert(HeaderValue::from_static(via));
        }
        Entry::Occupied(mut entry) => {
            entry.append(HeaderValue::from_static(via));
        }
    }
}

/// Takes out of a copy's answer what is of its connection. `switching` is for status 101.
pub(super) fn clean_answer(headers: &mut HeaderMap, switching: bool) {
    let names: Vec<HeaderName> = listed(headers)
        .filter_map(|name| name.parse().ok())
        .filter(|name| !(switching && name == UPGRADE))
        .collect();
    let chunked = headers.contains_key(TRANSFER_ENCODING);
    for name in names {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        TRANSFER_ENCODING,
        TE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
    ] {
        headers.remove(name);
    }
    if chunked {
        // Of two ways to say where the body ends, the other one holds.
        headers.remove(CONTENT_LENGTH);
    }
    if switching {
        headers.insert(CONNECTION, UPGRADES);
    } else {
        headers.remove(UPGRADE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        map
    }

    fn sent(pairs: &[(&str, &str)]) -> HeaderMap {
        let asker = Asker::new("::ffff:10.0.0.9".parse().unwrap(), false);
        outgoing(&map(pairs), &asker, "1.1 orch", None)
    }

    #[test]
    fn what_is_of_the_connection_stays_on_it() {
        let out = sent(&[
            ("host", "a"),
            ("connection", "close, X-Mine, Host"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip"),
            ("upgrade", "websocket"),
            ("expect", "100-continue"),
            ("cookie", "a=b"),
            ("cookie", "c=d"),
        ]);
        let mut names: Vec<_> = out.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expect = [
            "cookie",
            "host",
            "via",
            "x-forwarded-for",
            "x-forwarded-proto",
        ];
        assert_eq!(names, expect);
        assert_eq!(out.get_all("cookie").iter().count(), 2);
        assert_eq!(out[FORWARDED_FOR], "10.0.0.9");
        assert_eq!(out[FORWARDED_PROTO], "http");
    }

    #[test]
    fn trailers_say_nothing_of_connections_or_clients() {
        for (name, may) in [
            (CONNECTION, false),
            (FORWARDED_FOR, false),
            (VIA, false),
            (COOKIE, true),
            (HeaderName::from_static("x-sum"), true),
        ] {
            assert_eq!(may_trail(&name), may, "{name}");
        }
    }

    #[test]
    fn chains_grow_at_their_end() {
        let out = sent(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "gopher"),
            ("via", "1.0 fred"),
        ]);
        assert_eq!(out[FORWARDED_FOR], "1.1.1.1, 2.2.2.2, 10.0.0.9");
        assert_eq!(out[FORWARDED_PROTO], "http");
        let via: Vec<_> = out.get_all(VIA).iter().collect();
        assert_eq!(via, ["1.0 fred", "1.1 orch"]);
    }

    #[test]
    fn upgrades_and_trailers_are_asked_for_anew() {
        let out = sent(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(
            (&out[UPGRADE], &out[CONNECTION]),
            (&"websocket".parse().unwrap(), &UPGRADES)
        );
        let out = sent(&[
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", "h2c"),
        ]);
        assert!(!out.contains_key(UPGRADE));
        let out = sent(&[("te", "trailers, deflate;q=0.5")]);
        assert_eq!(out[TE], "trailers");
    }

    #[test]
    fn answers_lose_their_connection_s_fields() {
        let mut answer = map(&[
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("upgrade", "h2"),
            ("etag", "\"a\""),
        ]);
        clean_answer(&mut answer, false);
        assert_eq!(answer.keys().collect::<Vec<_>>(), ["etag"]);
        let mut switch = map(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        clean_answer(&mut switch, true);
        assert_eq!(switch[UPGRADE], "websocket");
        assert_eq!(switch[CONNECTION], "upgrade");
    }
}
