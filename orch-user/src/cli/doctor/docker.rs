//! Whether a Docker engine answers.

use std::{
    env,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use serde::Deserialize;

use super::Finding;
use crate::config::Config;

/// Where an engine listens.
const SOCKET: &str = "/var/run/docker.sock";
/// It answers in milliseconds, or is ill.
const LIMIT: Duration = Duration::from_secs(3);

/// The part of an engine's answer that matters.
#[derive(Deserialize)]
struct Version {
    #[serde(rename = "Version")]
    version: String,
    #[serde(rename = "ApiVersion")]
    api: String,
}

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let host = env::var("DOCKER_HOST").unwrap_or_default();
    let Some(socket) = socket(&host) else {
        let meaning = format!("DOCKER_HOST is {host}, which is not a unix socket: not asked");
        return vec![Finding::warn(
            "docker",
            meaning,
            "make sure that it is an engine of this host",
        )];
    };
    vec![judge(socket, ask(socket), wants_docker(config))]
}

fn socket(host: &str) -> Option<&str> {
    if host.is_empty() {
        return Some(SOCKET);
    }
    host.strip_prefix("unix://")
}

fn wants_docker(config: &Config) -> bool {
    config
        .services
        .iter()
        .any(|service| !service.backend.is_process())
}

fn judge(socket: &str, answer: io::Result<Version>, wanted: bool) -> Finding {
    match answer {
        Ok(Version { version, api }) => Finding::ok(
            "docker",
            format!("engine {version} (API {api}) answers at {socket}"),
        ),
        Err(error) if wanted => Finding::fail(
            "docker",
            format!("no engine answers at {socket} ({error}): services with an image cannot run"),
            "systemctl start docker, or name a command instead of an image (runtime process)",
        ),
        Err(error) => {
            let meaning = format!("no engine answers at {socket} ({error}); no service needs one");
            Finding::ok("docker", meaning)
        }
    }
}

fn ask(socket: &str) -> io::Result<Version> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    // HTTP/1.0: the answer ends with the connection and is not chunked.
    stream.write_all(b"GET /version HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).map_err(io::Error::from)
}
