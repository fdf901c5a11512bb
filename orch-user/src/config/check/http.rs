//! Checks of `[service.http]`.

use super::{service::parse_listen, value};
use crate::config::{
    HttpConfig, Listen, TlsConfig,
    http::{RawHttp, RawTls},
    problem::Sink,
    raw::RawCount,
};

/// Longest route.
const ROUTE_BYTES: usize = 1024;
/// Fewest bytes of a head: less is no more than a request line.
const LEAST_HEAD: u64 = 8 << 10;
/// Most bytes of a head: each connection may hold as many.
const MOST_HEAD: u64 = 1 << 20;

pub(super) fn check(raw: &RawHttp, count: &RawCount, sink: &Sink) -> HttpConfig {
    let duration = |raw| value::positive_duration(raw, sink).unwrap_or_default();
    let max_header = value::size(&raw.max_header, sink);
    if !(LEAST_HEAD..=MOST_HEAD).contains(&max_header) {
        sink.at(&raw.max_header, "must be from 8KiB to 1MiB");
    }
    let mut routes: Vec<String> = raw
        .routes
        .value
        .iter()
        .map(|route| value::url_path(route, ROUTE_BYTES, sink))
        .collect();
    if routes.is_empty() {
        routes.push(count.prefix.value.clone());
    }
    HttpConfig {
        routes,
        wait: value::duration(&raw.wait, sink).unwrap_or_default(),
        waiting: value::number(&raw.waiting, 0, 1 << 20, sink),
        header_timeout: duration(&raw.header_timeout),
        body_timeout: duration(&raw.body_timeout),
        idle_timeout: duration(&raw.idle_timeout),
        connect_timeout: duration(&raw.connect_timeout),
        answer_timeout: duration(&raw.answer_timeout),
        max_header: max_header as usize,
        max_headers: value::number(&raw.max_headers, 8, 1000, sink),
        max_connections: value::number(&raw.max_connections, 1, 1 << 20, sink),
        proxy_protocol: raw.proxy_protocol.value,
        tls: tls(&raw.tls, sink),
    }
}

fn tls(raw: &RawTls, sink: &Sink) -> Option<TlsConfig> {
    if raw.listen.value.is_empty() {
        for file in [&raw.certificate, &raw.key] {
            if !file.value.is_empty() {
                sink.at(file, "is of no use without tls.listen: write \"443\" there");
            }
        }
        return None;
    }
    let listen = parse_listen(&raw.listen.value).unwrap_or_else(|| {
        let text = format!(
            "{:?} is not a listening address: write \"443\", \"10.0.0.1:443\" or \"[::]:443\"",
            raw.listen.value
        );
        sink.at(&raw.listen, text);
        Listen {
            address: None,
            port: 0,
        }
    });
    Some(TlsConfig {
        listen,
        certificate: value::path(&raw.certificate, sink),
        key: value::path(&raw.key, sink),
    })
}
