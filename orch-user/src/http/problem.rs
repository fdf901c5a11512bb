//! What the gateway answers itself when something is wrong: problem+json (RFC 9457).

use std::time::SystemTime;

use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use serde_json::json;

use super::body::Body;

const KIND: &str = "application/problem+json";

/// Why a request was not answered by a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// No route has its path.
    NoRoute,
    /// The path is the controller's, which answers to reading alone.
    ReadOnly,
    /// It is not a request that HTTP/1.1 allows; says what is wrong.
    Bad(&'static str),
    /// It has more header lines than `max_headers`.
    Headers,
    /// It asks for a tunnel.
    Tunnel,
    /// So many ask for the page that this one may not.
    Guests,
    /// The controller does not answer.
    NoController,
    /// Every copy refused the connection.
    Refused,
    /// The copy closed the connection before it had answered.
    Closed,
    /// The copy's answer is not HTTP.
    Garbled,
    /// No copy was ready in time.
    NoCopy,
    /// So many requests wait for a copy that this one may not.
    Crowded,
    /// The copy was silent for too long.
    Silent,
    /// The client's body came too slowly.
    SlowBody,
}

impl Problem {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::ReadOnly => StatusCode::METHOD_NOT_ALLOWED,
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::Headers => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Tunnel => StatusCode::NOT_IMPLEMENTED,
            Self::Refused | Self::Closed | Self::Garbled => StatusCode::BAD_GATEWAY,
            Self::NoController | Self::NoCopy | Self::Crowded | Self::Guests => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Silent => StatusCode::GATEWAY_TIMEOUT,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
        }
    }

    fn detail(self) -> &'static str {
        match self {
            Self::NoRoute => "no route of this service has this path",
            Self::ReadOnly => "this path can be read alone: GET or HEAD",
            Self::Bad(what) => what,
            Self::Headers => "the request has too many header fields",
            Self::Tunnel => "this gateway makes no tunnels",
            Self::Guests => {
                "so many follow the status page here that there is no room for one more"
            }
            Self::NoController => {
                "the controller does not answer: it restarts or has ended; the service itself goes on"
            }
            Self::Refused => "every copy of the service refused the connection",
            Self::Closed => "the copy closed the connection before it had answered",
            Self::Garbled => "the copy's answer is not HTTP",
            Self::NoCopy => "no copy of the service was ready in time",
            Self::Crowded => "no copy of the service is ready, and too many requests wait for one",
            Self::Silent => "the copy did not answer in time",
            Self::SlowBody => "the body of the request did not come in time",
        }
    }

    fn text(self) -> String {
        let status = self.status();
        let text = json!({
            "title": reason(status),
            "status": status.as_u16(),
            "detail": self.detail(),
        });
        text.to_string()
    }

    /// Appends the head of the answer, but for the empty line.
    pub(super) fn write_head(self, out: &mut Vec<u8>) {
        let status = self.status();
        let more = match status {
            StatusCode::SERVICE_UNAVAILABLE => "Retry-After: 1\r\n",
            StatusCode::METHOD_NOT_ALLOWED => "Allow: GET, HEAD\r\n",
            _ => "",
        };
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {KIND}\r\n{more}Content-Length: {}\r\nDate: {}\r\n",
            status.as_u16(),
            reason(status),
            self.text().len(),
            httpdate::fmt_http_date(SystemTime::now()),
        );
        out.extend_from_slice(head.as_bytes());
    }

    /// Appends its body.
    pub(super) fn write_body(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text().as_bytes());
    }

    pub(super) fn answer(self) -> Response<Body> {
        let status = self.status();
        let mut answer = Response::new(Body::full(Bytes::from(self.text())));
        *answer.status_mut() = status;
        let kind = HeaderValue::from_static(KIND);
        answer.headers_mut().insert(CONTENT_TYPE, kind);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let soon = HeaderValue::from_static("1");
            answer.headers_mut().insert(RETRY_AFTER, soon);
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            let methods = HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(ALLOW, methods);
        }
        answer
    }
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}
