//! `[service.http]`: what was typed, and what it means once it is checked.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Listen, problem::At, section::Section};

/// What is balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Connections, in the kernel.
    Tcp,
    /// Requests, by the gateway.
    Http,
}

impl Mode {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
        }
    }
}

/// Mode `http`: what is forwarded, and within which limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpConfig {
    /// Paths that begin so are forwarded; at least one.
    pub routes: Vec<String>,
    /// How long a request waits while no copy is ready.
    pub wait: Duration,
    /// How many requests may wait so.
    pub waiting: usize,
    /// For the whole head of a request.
    pub header_timeout: Duration,
    /// Between two pieces of a body, either way, and for each 256 bytes of a client's.
    pub body_timeout: Duration,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// For a connection to a copy.
    pub connect_timeout: Duration,
    /// From a request to the head of its answer.
    pub answer_timeout: Duration,
    /// Bytes of a request's head.
    pub max_header: usize,
    /// Header lines of a request.
    pub max_headers: usize,
    /// Connections of clients that are open at a time.
    pub max_connections: usize,
    /// Connections begin with the PROXY protocol, version 1 or 2.
    pub proxy_protocol: bool,
    /// Where TLS is spoken, if anywhere.
    pub tls: Option<TlsConfig>,
}

/// TLS beside the plain port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsConfig {
    /// Where.
    pub listen: Listen,
    /// The chain of certificates, in PEM; read again when it changes.
    pub certificate: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
}

pub(crate) struct RawHttp {
    pub(crate) routes: At<Vec<At<String>>>,
    pub(crate) wait: At<String>,
    pub(crate) waiting: At<i64>,
    pub(crate) header_timeout: At<String>,
    pub(crate) body_timeout: At<String>,
    pub(crate) idle_timeout: At<String>,
    pub(crate) connect_timeout: At<String>,
    pub(crate) answer_timeout: At<String>,
    pub(crate) max_header: At<String>,
    pub(crate) max_headers: At<i64>,
    pub(crate) max_connections: At<i64>,
    pub(crate) proxy_protocol: At<bool>,
    pub(crate) tls: RawTls,
}

pub(crate) struct RawTls {
    pub(crate) listen: At<String>,
    pub(crate) certificate: At<String>,
    pub(crate) key: At<String>,
}

impl RawHttp {
    pub(crate) fn read(mut table: Section<'_>) -> Self {
        let http = Self {
            routes: table.strings("routes", &[]),
            wait: table.string("wait", "10s"),
            waiting: table.integer("waiting", 1024),
            header_timeout: table.string("header_timeout", "10s"),
            body_timeout: table.string("body_timeout", "30s"),
            idle_timeout: table.string("idle_timeout", "75s"),
            connect_timeout: table.string("connect_timeout", "1s"),
            answer_timeout: table.string("answer_timeout", "60s"),
            max_header: table.string("max_header", "32KiB"),
            max_headers: table.integer("max_headers", 100),
            max_connections: table.integer("max_connections", 16_384),
            proxy_protocol: table.boolean("proxy_protocol", false),
            tls: RawTls::read(table.section("tls")),
        };
        table.finish();
        http
    }
}

impl RawTls {
    fn read(mut table: Section<'_>) -> Self {
        let tls = Self {
            listen: table.string("listen", ""),
            certificate: table.string("certificate", ""),
            key: table.string("key", ""),
        };
        table.finish();
        tls
    }
}
