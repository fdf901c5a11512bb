//! What the engine's errors mean.

use bollard::errors::Error;

/// The HTTP status of an answer.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Whether the engine did not answer at all.
pub(super) fn is_engine_gone(error: &Error) -> bool {
    matches!(
        error,
        Error::HyperLegacyError { .. }
            | Error::HyperResponseError { .. }
            | Error::IOError { .. }
            | Error::RequestTimeoutError
            | Error::SocketNotFoundError(_)
    )
}

/// Whether a start failed because the host's port is not free: held by another container or not
/// yet given back by one that is gone ("allocated"), or by any other program ("in use").
pub(super) fn is_port_in_use(error: &Error) -> bool {
    let Error::DockerResponseServerError { message, .. } = error else {
        return false;
    };
    ["port is already allocated", "address already in use"]
        .iter()
        .any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status_code: u16, message: &str) -> Error {
        Error::DockerResponseServerError {
            status_code,
            message: message.to_owned(),
        }
    }

    #[test]
    fn what_errors_mean() {
        let allocated = "driver failed programming external connectivity on endpoint x: \
            Bind for 0.0.0.0:8000 failed: port is already allocated";
        let in_use = "Error starting userland proxy: listen tcp4 0.0.0.0:80: bind: \
            address already in use";
        assert!(is_port_in_use(&answer(500, allocated)));
        assert!(is_port_in_use(&answer(500, in_use)));
        assert!(!is_port_in_use(&answer(500, "no such file or directory")));
        assert_eq!(status(&answer(404, "")), Some(404));
        assert!(!is_engine_gone(&answer(500, "")));
        assert!(is_engine_gone(&Error::RequestTimeoutError));
        assert_eq!(status(&Error::RequestTimeoutError), None);
    }
}
