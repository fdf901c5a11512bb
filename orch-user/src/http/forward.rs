//! One request: whose turn it is, and what is done where a copy does not answer.

use std::{
    future::{Future, poll_fn},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri, Version,
    body::{Body as _, Incoming},
    header::{HOST, HeaderValue, UPGRADE},
    http::uri::{Authority, PathAndQuery},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    backend::{Failure, Link, Switched, Way},
    body::{Body, Upload},
    headers::{self, Asker},
    problem::Problem,
    service::{Flight, Heard, Service, Settings, Slot},
    worker::Shared,
};

/// Where every copy refuses, they are tried again so often.
const AGAIN: Duration = Duration::from_millis(50);

/// A request as it came.
pub(super) struct Wanted<'a> {
    pub(super) shared: &'a Shared,
    pub(super) service: &'a Arc<Service>,
    pub(super) settings: &'a Settings,
    pub(super) asker: &'a Asker,
    pub(super) thread: usize,
    /// The number of the client's connection.
    pub(super) connection: u32,
    pub(super) counted: bool,
    /// Somebody looks at the request every `PULSE`, so that it needs no timer.
    pub(super) looked_at: bool,
}

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
        let path = head.uri.into_parts().path_and_query;
        Self {
            method: head.method,
            uri: path
                .unwrap_or_else(|| PathAndQuery::from_static("/"))
                .into(),
            headers: head.headers,
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

    /// Whether it may be sent a second time: nothing of its body is gone, and either the copy cannot
    /// have begun with it, or to do it twice is the same as once.
    fn may_repeat(&self, failure: Failure) -> bool {
        let whole = self.upload.pieces() == 0;
        match failure {
            Failure::Refused => true,
            Failure::Unanswered => whole && self.method.is_idempotent(),
            Failure::Cut | Failure::Garbled | Failure::Silent => false,
        }
    }
}

/// Gives a request to the slot whose turn it is, or to another where that one fails it.
pub(super) async fn forward(
    wanted: &Wanted<'_>,
    request: Request<Incoming>,
) -> Result<Outcome, Problem> {
    let http = &wanted.settings.http;
    let begun = Instant::now();
    let parts = Parts::new(request, http.body_timeout);
    let mut tried: Vec<Arc<Slot>> = Vec::new();
    let mut counted = false;
    // When this attempt began.
    let mut at = begun;
    loop {
        let Some(flight) = wanted.service.pick(&tried) else {
            boxed_wait(wanted, begun, !tried.is_empty()).await?;
            tried.clear();
            at = Instant::now();
            continue;
        };
        if wanted.service.asks(&flight.0, at) {
            wanted.shared.bell.ring();
        }
        let failure = match attempt(wanted, &parts, &flight, at, &mut counted).await {
            Ok((answer, link)) => {
                let heard = Heard {
                    taken: at.elapsed(),
                    error: answer.status().is_server_error(),
                    connection: wanted.connection,
                };
                if wanted.counted {
                    let tally = &flight.0.tally;
                    tally.answer(answer.status().as_u16(), at - begun + heard.taken);
                }
                if wanted.service.hears(&flight.0, at, &heard) {
                    wanted.shared.bell.ring();
                }
                return Ok(finish(wanted, answer, link, flight));
            }
            Err(failure) => failure,
        };
        if parts.upload.is_slow() {
            return Err(Problem::SlowBody);
        }
        if failure == Failure::Refused && flight.0.refuses() {
            wanted.shared.bell.ring();
        }
        if !parts.may_repeat(failure) {
            return Err(match failure {
                Failure::Refused => Problem::Refused,
                Failure::Unanswered | Failure::Cut => Problem::Closed,
                Failure::Garbled => Problem::Garbled,
                Failure::Silent => Problem::Silent,
            });
        }
        tried.push(Arc::clone(&flight.0));
        at = Instant::now();
    }
}

/// Boxed, since most requests need no place for it.
fn boxed_wait<'a>(
    wanted: &'a Wanted<'_>,
    begun: Instant,
    refused: bool,
) -> BoxFuture<'a, Result<(), Problem>> {
    Box::pin(wait(wanted, begun, refused))
}

/// Waits for another slot, or for those that refused to be there again.
async fn wait(wanted: &Wanted<'_>, begun: Instant, refused: bool) -> Result<(), Problem> {
    let (service, http) = (wanted.service, &wanted.settings.http);
    let before = service.waiting.fetch_add(1, Relaxed);
    let waiting = Waiting(service);
    if before == 0 && !refused {
        wanted.shared.bell.ring();
    }
    if before >= http.waiting {
        return Err(Problem::Crowded);
    }
    let mut ring = service.ring.subscribe();
    let deadline = begun + http.wait;
    if Instant::now() >= deadline {
        return Err(if refused {
            Problem::Refused
        } else {
            Problem::NoCopy
        });
    }
    if refused {
        // A change of the ring, or the next try.
        let _ = timeout(AGAIN, ring.changed()).await;
        return Ok(());
    }
    let some = ring.wait_for(|ring| !ring.ready.is_empty() || service.is_over());
    let found = timeout_at(deadline, some).await;
    drop(waiting);
    match found {
        Ok(_) if !service.is_over() => Ok(()),
        _ => Err(Problem::NoCopy),
    }
}

struct Waiting<'a>(&'a Service);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// Asks one copy, now: by connections that wait, then by a new one.
async fn attempt(
    wanted: &Wanted<'_>,
    parts: &Parts,
    flight: &Flight,
    at: Instant,
    counted: &mut bool,
) -> Result<(Response<Incoming>, Box<Link>), Failure> {
    let slot = &flight.0;
    let again = parts.may_repeat(Failure::Unanswered);
    let way = if slot.direct && parts.is_bare && wanted.shared.relays() {
        Way::Relay
    } else {
        Way::Tcp
    };
    while let Some(mut link) = slot.take_link(wanted.thread, way) {
        // What may be sent only once goes by no connection that has ended in this moment.
        if !link.is_alive(!again, at) {
            continue;
        }
        count(wanted, slot, counted);
        match ask(wanted, parts, &mut link).await {
            Ok(answer) => return Ok((answer, link)),
            // The copy may have closed it for lying idle, before it saw the request.
            Err(Failure::Unanswered) if parts.may_repeat(Failure::Unanswered) => {}
            Err(failure) => return Err(failure),
        }
    }
    let limit = wanted.settings.http.connect_timeout;
    let mut link = Link::connect(slot, way, limit).await?;
    count(wanted, slot, counted);
    let answer = ask(wanted, parts, &mut link).await?;
    Ok((answer, link))
}

/// Counts the request once, for the first copy that it is sent to.
fn count(wanted: &Wanted<'_>, slot: &Slot, counted: &mut bool) {
    if !std::mem::replace(counted, true) {
        slot.tally.request(wanted.counted);
    }
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

fn finish(
    wanted: &Wanted<'_>,
    answer: Response<Incoming>,
    link: Box<Link>,
    flight: Flight,
) -> Outcome {
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
