//! Finding the engine and agreeing on a version of its API.

use std::env;

use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker, errors::Error};

use super::{ASK_LIMIT, failure, within};

/// Where the engine listens if `DOCKER_HOST` does not say.
const USUAL_ENDPOINT: &str = "unix:///var/run/docker.sock";
/// For bollard's own limit, in seconds. Every call sets its own, shorter one.
const CLIENT_LIMIT: u64 = 120;
/// What is asked for, in this order. Engines refuse a version they do not speak, even to the
/// question which ones they speak: the first is old enough for engine 25 and later, the last one
/// for engine 20.10. Nothing newer is needed here.
const VERSIONS: [ClientVersion; 3] = [version(44), *API_DEFAULT_VERSION, version(41)];

const fn version(minor_version: usize) -> ClientVersion {
    ClientVersion {
        major_version: 1,
        minor_version,
    }
}

/// Where the engine is to be.
pub(super) fn endpoint() -> String {
    env::var("DOCKER_HOST")
        .ok()
        .filter(|host| !host.is_empty())
        .unwrap_or_else(|| USUAL_ENDPOINT.to_owned())
}

/// Connects with the first version that the engine accepts.
pub(super) async fn connect(endpoint: &str) -> Result<Docker, Error> {
    let mut last = Error::APIVersionParseError {};
    for version in VERSIONS {
        let docker = client(endpoint, version)?;
        match within(ASK_LIMIT, docker.negotiate_version()).await {
            Ok(docker) => {
                log::debug!("Docker at {endpoint}, API {}", docker.client_version());
                return Ok(docker);
            }
            Err(error) if failure::status(&error) == Some(400) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn client(endpoint: &str, version: ClientVersion) -> Result<Docker, Error> {
    match endpoint.split_once("://") {
        Some(("unix", _)) => Docker::connect_with_unix(endpoint, CLIENT_LIMIT, &version),
        Some(("tcp" | "http", _)) => Docker::connect_with_http(endpoint, CLIENT_LIMIT, &version),
        _ => Err(Error::UnsupportedURISchemeError {
            uri: endpoint.to_owned(),
        }),
    }
}
