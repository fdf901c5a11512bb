//! What is asked, and of whom.

use std::{io, net::SocketAddr};

use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Uri, Version,
    body::Bytes,
    header::{self, HeaderName, HeaderValue},
    http::uri::{PathAndQuery, Scheme},
};
use tokio::net::lookup_host;

use super::error::LoadError;

/// The request that is sent again and again.
#[derive(Clone, Debug)]
pub struct Target {
    /// The URL in full.
    pub url: String,
    host: String,
    port: u16,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Target {
    /// A request of a URL; the scheme `http://` may be left out. Without a method it is GET, or POST
    /// where there is a body.
    pub fn new(
        url: &str,
        method: Option<Method>,
        headers: &[String],
        body: Bytes,
    ) -> Result<Self, LoadError> {
        let wrong = |why| LoadError::Url {
            url: url.to_owned(),
            why,
        };
        let full = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let parsed: Uri = full.parse().map_err(|_| wrong("it is no URL"))?;
        if parsed.scheme() != Some(&Scheme::HTTP) {
            return Err(wrong("only http is spoken here, without TLS"));
        }
        let authority = parsed.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it has a user's name; send it with --header"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(wrong("it has no host"));
        }
        // The library takes a port that is no port for none.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => 80,
            rest => rest
                .and_then(|rest| rest.strip_prefix(':')?.parse().ok())
                .filter(|port| *port > 0)
                .ok_or_else(|| wrong("its port is none: 1 to 65535"))?,
        };
        let path = parsed.path_and_query().map_or("/", PathAndQuery::as_str);
        let uri = path.parse().map_err(|_| wrong("its path is none"))?;
        let fallback = if body.is_empty() {
            Method::GET
        } else {
            Method::POST
        };
        let mut all = HeaderMap::new();
        let named = HeaderValue::from_str(authority.as_str());
        all.insert(header::HOST, named.map_err(|_| wrong("its host is none"))?);
        let agent = concat!("orch-load/", env!("CARGO_PKG_VERSION"));
        all.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        for text in headers {
            let (name, value) = parse_header(text)?;
            // What is said by hand replaces what is said by itself.
            all.insert(name, value);
        }
        Ok(Self {
            url: full,
            host,
            port,
            method: method.unwrap_or(fallback),
            uri,
            headers: all,
            body,
        })
    }

    /// One connection carries one request, and says so.
    #[must_use]
    pub fn closing(mut self) -> Self {
        let close = HeaderValue::from_static("close");
        self.headers.insert(header::CONNECTION, close);
        self
    }

    /// The addresses of the host, of which there is one at the least.
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, LoadError> {
        let lost = |source| LoadError::Host {
            host: self.host.clone(),
            source,
        };
        let found = lookup_host((self.host.as_str(), self.port)).await;
        let found: Vec<_> = found.map_err(lost)?.collect();
        if found.is_empty() {
            return Err(lost(io::ErrorKind::NotFound.into()));
        }
        Ok(found)
    }

    /// The request, once more.
    pub(super) fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().clone_from(&self.headers);
        request
    }
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), LoadError> {
    let wrong = || LoadError::Header {
        text: text.to_owned(),
    };
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = name.trim().parse().map_err(|_| wrong())?;
    let value = value.trim().parse().map_err(|_| wrong())?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<Target, String> {
        Target::new(url, None, &[], Bytes::new()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_url_may_leave_out_what_is_usual() {
        for (url, host, port, uri) in [
            ("http://a.example/x?y=1", "a.example", 80, "/x?y=1"),
            ("localhost:8000", "localhost", 8000, "/"),
            ("127.0.0.1/doWork", "127.0.0.1", 80, "/doWork"),
            ("http://[::1]:81/", "::1", 81, "/"),
        ] {
            let target = target(url).unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, port), "{url}");
            assert_eq!(target.uri.to_string(), uri, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_told() {
        for (url, why) in [
            ("https://a/", "without TLS"),
            ("ftp://a/", "without TLS"),
            ("http://", "it is no URL"),
            ("http://a:99999/", "1 to 65535"),
            ("http://a:/", "1 to 65535"),
            ("http://a:0/", "1 to 65535"),
            ("a b", "it is no URL"),
            ("http://me@a/", "a user's name"),
            ("", "it is no URL"),
        ] {
            let error = target(url).unwrap_err();
            assert!(error.contains(why), "{url:?}: {error}");
        }
    }

    #[test]
    fn headers_by_hand_come_last_and_a_body_is_posted() {
        let headers = ["Host: b".to_owned(), "x-one:  two ".to_owned()];
        let body = Bytes::from_static(b"{}");
        let target = Target::new("http://a/", None, &headers, body).unwrap();
        let request = target.closing().request();
        assert_eq!(request.method(), Method::POST);
        let value = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        assert_eq!((value("host"), value("x-one")), ("b".into(), "two".into()));
        assert_eq!(value("connection"), "close");
        for text in ["none", "a b: c", ": x"] {
            assert!(parse_header(text).is_err(), "{text}");
        }
    }
}
