//! Finding the engine.

use std::env;

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error};

use super::{ASK_LIMIT, within};

/// Where the engine listens if `DOCKER_HOST` does not say.
const USUAL_ENDPOINT: &str = "unix:///var/run/docker.sock";
/// For bollard's own limit, in seconds. Every call sets its own, shorter one.
const CLIENT_LIMIT: u64 = 120;

/// Where the engine is to be.
pub(super) fn endpoint() -> String {
    env::var("DOCKER_HOST")
        .ok()
        .filter(|host| !host.is_empty())
        .unwrap_or_else(|| USUAL_ENDPOINT.to_owned())
}

/// Connects, and agrees on the lower one of the two versions of the API. bollard 0.21 names no
/// version in its requests, so that every engine answers in its own; a bollard that names one
/// must name this.
pub(super) async fn connect(endpoint: &str) -> Result<Docker, Error> {
    let version = API_DEFAULT_VERSION;
    let docker = match endpoint.split_once("://") {
        Some(("unix", _)) => Docker::connect_with_unix(endpoint, CLIENT_LIMIT, version),
        Some(("tcp" | "http", _)) => Docker::connect_with_http(endpoint, CLIENT_LIMIT, version),
        _ => Err(Error::UnsupportedURISchemeError {
            uri: endpoint.to_owned(),
        }),
    };
    let docker = within(ASK_LIMIT, docker?.negotiate_version()).await?;
    log::debug!("Docker at {endpoint}, API {}", docker.client_version());
    Ok(docker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn says_what_is_wrong_with_an_endpoint() {
        let error = connect("ssh://host").await.unwrap_err();
        assert!(matches!(error, Error::UnsupportedURISchemeError { .. }));
        let error = connect("unix:///nowhere/docker.sock").await.unwrap_err();
        assert!(matches!(error, Error::SocketNotFoundError(_)));
    }
}
