//! A request as the library reads and writes it: any that HTTP knows, with or without a body.

use std::{future::poll_fn, task::Poll, time::Duration};

use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri, Version,
    body::{Body as _, Incoming},
    header::{HOST, HeaderValue, UPGRADE},
    http::uri::{Authority, PathAndQuery},
};
use tokio::time::{Instant, sleep};

use super::{
    backend::{Link, Switched},
    body::{Body, Upload},
    forward::{self, Answered, Question, Wanted},
    headers::{self, Asker},
    problem::Problem,
    service::Flight,
    tap::{Failure, Way},
};

/// What a request came to.
pub(super) enum Outcome {
    Answer(Response<Body>),
    /// Both sides speak another protocol from now on.
    Switched(Response<Body>, Switched, Flight),
}

/// The parts of a request that every attempt is made from.
struct Parts {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    via: &'static str,
    /// For requests that name their host elsewhere.
    host: Option<HeaderValue>,
    /// It ends with its head, and speaks no other protocol afterwards.
    is_bare: bool,
    upload: Upload,
}

impl Parts {
    fn new(request: Request<Incoming>, limit: Duration) -> Self {
        let (head, body) = request.into_parts();
        let via = match head.version {
            Version::HTTP_10 => "1.0 orch",
            Version::HTTP_2 => "2 orch",
            _ => "1.1 orch",
        };
        let authority = head.uri.authority().map(Authority::as_str);
        let host = authority.and_then(|text| {
            let bare = text.rsplit_once('@').map_or(text, |(_, host)| host);
            HeaderValue::from_str(bare).ok()
        });
        let switches = head.headers.contains_key(UPGRADE) || head.method == Method::CONNECT;
        let mut headers = head.headers;
        if head.version == Version::HTTP_2 {
            headers::join_cookies(&mut headers);
        }
        let path = head.uri.into_parts().path_and_query;
        Self {
            method: head.method,
            uri: path
                .unwrap_or_else(|| PathAndQuery::from_static("/"))
                .into(),
            headers,
            via,
            host,
            is_bare: body.is_end_stream() && !switches,
            upload: Upload::new(body, limit),
        }
    }

    fn request(&self, asker: &Asker) -> Request<Upload> {
        let mut request = Request::new(self.upload.clone());
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        let mut headers = headers::outgoing(&self.headers, asker, self.via, self.host.clone());
        if !headers.contains_key(HOST) {
            // HTTP/1.0 has none, and HTTP/1.1 must have one.
            headers.insert(HOST, HeaderValue::from_static(""));
        }
        *request.headers_mut() = headers;
        request
    }
}

impl Question for Parts {
    type Link = Link;
    type Answer = Response<Incoming>;

    fn is_bare(&self) -> bool {
        self.is_bare
    }

    fn may_repeat(&self, failure: Failure) -> bool {
        let whole = self.upload.pieces() == 0;
        match failure {
            Failure::Refused => true,
            Failure::Unanswered => whole && self.method.is_idempotent(),
            Failure::Cut | Failure::Garbled | Failure::Silent => false,
        }
    }

    fn fault(&self) -> Option<Problem> {
        self.upload.fault()
    }

    fn is_hasty(&self) -> bool {
        // The library has the connection, and cannot be asked what it has read.
        false
    }

    async fn ask(&mut self, wanted: &Wanted<'_>, link: &mut Link) -> Result<Self::Answer, Failure> {
        ask(wanted, self, link).await
    }

    fn status(answer: &Self::Answer) -> u16 {
        answer.status().as_u16()
    }
}

/// Has a copy answer a request.
pub(super) async fn forward(
    wanted: &Wanted<'_>,
    request: Request<Incoming>,
) -> Result<Outcome, Problem> {
    let mut parts = Parts::new(request, wanted.settings.http.body_timeout);
    let answered = forward::forward(wanted, &mut parts).await?;
    Ok(finish(wanted, answered))
}

/// Sends the request and waits for the head of its answer. The time for that runs once the body of
/// the request is through, or stands still.
async fn ask(
    wanted: &Wanted<'_>,
    parts: &Parts,
    link: &mut Link,
) -> Result<Response<Incoming>, Failure> {
    let limit = wanted.settings.http.answer_timeout;
    let mut answer = std::pin::pin!(link.ask(parts.request(wanted.asker)));
    let mut timer = (!wanted.looked_at).then(|| Box::pin(sleep(limit)));
    let mut deadline = Instant::now() + limit;
    let mut pieces = 0;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            match &mut timer {
                Some(timer) => std::task::ready!(timer.as_mut().poll(cx)),
                None if Instant::now() < deadline => return Poll::Pending,
                None => {}
            }
            let now = parts.upload.pieces();
            if !parts.upload.is_open() && now == pieces {
                return Poll::Ready(Err(Failure::Silent));
            }
            pieces = now;
            deadline = Instant::now() + limit;
            if let Some(timer) = &mut timer {
                timer.as_mut().reset(deadline);
            }
        }
    })
    .await
}

fn finish(wanted: &Wanted<'_>, answered: Answered<Parts>) -> Outcome {
    let Answered {
        answer,
        link,
        flight,
    } = answered;
    let limit = wanted.settings.http.body_timeout;
    let (mut head, body) = answer.into_parts();
    let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
    headers::clean_answer(&mut head.headers, switching);
    // The client's connection has its own version.
    head.version = Version::HTTP_11;
    head.extensions.clear();
    if switching && link.way == Way::Relay {
        // Nobody has asked for that, and such a connection is for nothing else than requests.
        return Outcome::Answer(Problem::Garbled.answer());
    }
    if switching {
        let answer = Response::from_parts(head, Body::full(hyper::body::Bytes::new()));
        return match link.into_switched() {
            Some(switched) => Outcome::Switched(answer, switched, flight),
            None => Outcome::Answer(Problem::Garbled.answer()),
        };
    }
    let body = Body::copy(body, link, flight, wanted.thread, limit);
    Outcome::Answer(Response::from_parts(head, body))
}
