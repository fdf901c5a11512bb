//! The status page, and what it reads: asked of the controller, on its control socket. Reading
//! alone: whatever changes state needs the socket itself.

use std::{path::Path, time::Duration};

use hyper::{
    Method, Request, Response,
    body::Incoming,
    client::conn::http1,
    header::{ACCEPT, ACCEPT_ENCODING, HOST, HeaderName, HeaderValue, IF_NONE_MATCH, VIA},
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

use super::{
    body::{Body, Upload},
    headers,
    problem::Problem,
};

/// For the head of the controller's answer.
const LIMIT: Duration = Duration::from_secs(2);
/// What of a request's head the controller is told.
const PASSED: [HeaderName; 4] = [
    ACCEPT,
    ACCEPT_ENCODING,
    IF_NONE_MATCH,
    HeaderName::from_static("last-event-id"),
];

/// Asks the controller.
pub(super) async fn answer(
    control: &Path,
    request: &Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Err(Problem::ReadOnly);
    }
    let mut asked = Request::new(Upload::none());
    request.method().clone_into(asked.method_mut());
    let path = request.uri().path_and_query();
    if let Some(path) = path {
        *asked.uri_mut() = path.clone().into();
    }
    let host = HeaderValue::from_static("orch");
    asked.headers_mut().insert(HOST, host);
    // Whoever asks here is anybody: what is guarded is not for them.
    let via = HeaderValue::from_static("1.1 orch");
    asked.headers_mut().insert(VIA, via);
    for name in PASSED {
        if let Some(value) = request.headers().get(&name) {
            asked.headers_mut().insert(name, value.clone());
        }
    }
    let answered = timeout(LIMIT, ask(control, asked)).await;
    let answer = answered.ok().flatten().ok_or(Problem::NoController)?;
    let (mut head, body) = answer.into_parts();
    headers::clean_answer(&mut head.headers, false);
    Ok(Response::from_parts(head, Body::page(body)))
}

async fn ask(control: &Path, request: Request<Upload>) -> Option<Response<Incoming>> {
    let stream = UnixStream::connect(control).await.ok()?;
    let connected = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.ok()?;
    // Its errors reach the request's side, too.
    tokio::spawn(connection);
    sender.send_request(request).await.ok()
}
