//! A client's connection from its first byte to its last. While nothing is on its way it is a bare
//! socket: the library's buffers are there for the time of requests alone.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::IpAddr,
    path::Path,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper::{
    HeaderMap, Method, Request, Response, Version,
    body::Incoming,
    header::{CONNECTION, HOST, HeaderValue},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    time::{Instant, sleep_until, timeout},
};

use crate::config::HttpConfig;

use super::{
    backend::Switched,
    body::Body,
    forward::{self, Outcome, Wanted},
    framing::Framer,
    guard::{Busy, Guarded, Watch},
    headers::{self, Asker},
    page,
    problem::Problem,
    route::Route,
    service::{Flight, Service, Settings, locked},
    stream::{Early, Stream},
    worker::{Shared, Thread},
};

/// A connection without a request gives up its buffers after this time, and then its task.
const PARK: Duration = Duration::from_millis(100);
/// Between two looks at a connection of HTTP/2.
const LOOK: Duration = Duration::from_millis(200);
/// For the last words to a client.
const FAREWELL: Duration = Duration::from_secs(1);
/// Read at once at the beginning.
const FIRST_READ: usize = 4 << 10;
/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Header lines that the library takes without a list of its own.
const USUAL_HEADERS: usize = 100;
/// Streams of one connection of HTTP/2.
const STREAMS: u32 = 200;

/// Whose connection it is, and to what.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) service: Arc<Service>,
    pub(super) thread: Arc<Thread>,
    pub(super) asker: Asker,
}

/// What a request came over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    H1 { may_switch: bool },
    H2,
}

/// How a stretch of requests ended.
enum End<S> {
    /// Nothing is on its way.
    Parked(S, Vec<u8>, Framer),
    /// The client and a copy speak another protocol.
    Tunnel(S, Vec<u8>, Box<(Switched, Flight)>),
    Closed,
}

/// A connection that has been silent for a while, and how long it may go on so.
pub(super) struct Rest<S> {
    pub(super) stream: S,
    pub(super) patience: Duration,
}

/// What has come of waiting for a client.
enum Arrival {
    Bytes,
    /// Nothing yet.
    Nothing,
    /// The client is gone, or has taken too long.
    End,
}

impl Client {
    /// Serves a connection until its end, or until it rests. `early` was read of it already.
    pub(super) async fn serve<S: Stream>(
        self,
        mut stream: S,
        mut early: Vec<u8>,
    ) -> Option<Rest<S>> {
        let mut framer = Framer::new(2 * self.service.settings().http.max_header);
        let mut patience = self.service.settings().http.header_timeout;
        loop {
            if early.is_empty() {
                match self.arrival(&mut stream, &mut early, patience).await {
                    Arrival::Bytes => {}
                    Arrival::Nothing => return Some(Rest { stream, patience }),
                    Arrival::End => return None,
                }
            }
            if PREFACE.starts_with(early.get(..PREFACE.len()).unwrap_or(&early)) {
                match self.boxed_preface(&mut stream, &mut early).await {
                    Some(true) => {
                        self.boxed_h2(stream, early).await;
                        return None;
                    }
                    Some(false) => {}
                    None => return None,
                }
            }
            // Boxed by functions of their own, so that a connection that only waits is small: what an
            // async function makes and boxes itself has a place in its state.
            match self.boxed_h1(stream, early, framer).await {
                End::Closed => return None,
                End::Tunnel(stream, early, other) => {
                    boxed_tunnel(stream, early, *other).await;
                    return None;
                }
                End::Parked(back, rest, framing) => {
                    (stream, early, framer) = (back, rest, framing);
                    patience = self.service.settings().http.idle_timeout;
                    if S::IS_BARE && early.is_empty() {
                        return Some(Rest { stream, patience });
                    }
                }
            }
        }
    }

    /// Waits for the first bytes, and reads them.
    async fn arrival<S: Stream>(
        &self,
        stream: &mut S,
        early: &mut Vec<u8>,
        patience: Duration,
    ) -> Arrival {
        let begun = Instant::now();
        let mut pulse = pin!(self.thread.pulse.notified());
        let arrived = poll_fn(|cx| {
            loop {
                if let Poll::Ready(ready) = stream.poll_arrival(cx, early) {
                    let end = ready.map_or(Arrival::End, |()| Arrival::Bytes);
                    return Poll::Ready(end);
                }
                std::task::ready!(pulse.as_mut().poll(cx));
                if begun.elapsed() >= patience {
                    return Poll::Ready(Arrival::End);
                }
                if S::IS_BARE && begun.elapsed() >= PARK {
                    return Poll::Ready(Arrival::Nothing);
                }
                pulse.set(self.thread.pulse.notified());
            }
        })
        .await;
        let is_read = S::IS_BARE && !early.is_empty();
        if is_read || !matches!(arrived, Arrival::Bytes) {
            return arrived;
        }
        early.reserve(FIRST_READ);
        match poll_fn(|cx| {
            let mut read = pin!(stream.read_buf(early));
            // What made it ready may be gone.
            match read.as_mut().poll(cx) {
                Poll::Pending => Poll::Ready(Ok(usize::MAX)),
                ready @ Poll::Ready(_) => ready,
            }
        })
        .await
        {
            Ok(0) if early.is_empty() => Arrival::End,
            Ok(_) => Arrival::Bytes,
            Err(_) => Arrival::End,
        }
    }

    /// Whether the connection begins as one of HTTP/2; `None` if it ends before that is known.
    fn boxed_preface<'a, S: Stream>(
        &self,
        stream: &'a mut S,
        early: &'a mut Vec<u8>,
    ) -> BoxFuture<'a, Option<bool>> {
        let limit = self.service.settings().http.header_timeout;
        Box::pin(async move {
            let read = timeout(limit, read_preface(stream, early)).await;
            read.ok()?.ok()
        })
    }

    fn boxed_h1<S: Stream>(
        &self,
        stream: S,
        early: Vec<u8>,
        framer: Framer,
    ) -> BoxFuture<'_, End<S>> {
        Box::pin(self.serve_h1(stream, early, framer))
    }

    fn boxed_h2<S: Stream>(self, stream: S, early: Vec<u8>) -> BoxFuture<'static, ()> {
        Box::pin(self.serve_h2(stream, early))
    }

    /// Requests of HTTP/1, until nothing is on its way.
    async fn serve_h1<S: Stream>(&self, stream: S, early: Vec<u8>, framer: Framer) -> End<S> {
        let settings = self.service.settings();
        let http = &settings.http;
        let watch = Watch::new();
        let tunnel: Arc<Mutex<Option<(Switched, Flight)>>> = Arc::default();
        let guarded = Guarded::new(stream, early, framer, Arc::clone(&watch));
        let serve = service_fn(|request: Request<Incoming>| {
            Box::pin(self.answer_h1(request, watch.begin(), Arc::clone(&watch), &tunnel))
        });
        let mut connection = h1(http).serve_connection(TokioIo::new(guarded), serve);
        let mut parked = false;
        let mut pulse = pin!(self.thread.pulse.notified());
        let ended = poll_fn(|cx| {
            loop {
                if let Poll::Ready(ended) = connection.poll_without_shutdown(cx) {
                    return Poll::Ready(ended.is_ok());
                }
                std::task::ready!(pulse.as_mut().poll(cx));
                if is_late(&watch, http) {
                    return Poll::Ready(false);
                }
                if watch.is_idle() && watch.quiet() >= PARK {
                    parked = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                pulse.set(self.thread.pulse.notified());
            }
        })
        .await;
        let parts = connection.into_parts();
        let (stream, mut rest, framer) = parts.io.into_inner().into_parts();
        let mut early = parts.read_buf.to_vec();
        early.append(&mut rest);
        if let Some(switched) = locked(&tunnel).take() {
            return End::Tunnel(stream, early, Box::new(switched));
        }
        if ended && parked {
            return End::Parked(stream, early, framer);
        }
        let late = watch.is_in_head() && is_late(&watch, http);
        if late || S::SAYS_GOODBYE {
            close(stream, late).await;
        }
        End::Closed
    }

    /// One answer. Where it changes the protocol, the copy's side of that goes into `tunnel`.
    async fn answer_h1(
        &self,
        request: Request<Incoming>,
        busy: Busy,
        watch: Arc<Watch>,
        tunnel: &Mutex<Option<(Switched, Flight)>>,
    ) -> Result<Response<Body>, Infallible> {
        let asks = headers::upgrade(request.headers()).is_some();
        let (mut answer, switched) = self.answer(request, Over::H1 { may_switch: asks }).await;
        if let Some(switched) = switched {
            *locked(tunnel) = Some(switched);
        } else {
            watch.resume();
        }
        if self.shared.is_closing() {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(CONNECTION, close);
        }
        answer.body_mut().hold(busy);
        Ok(answer)
    }

    /// A connection of HTTP/2.
    async fn serve_h2<S: Stream>(self, stream: S, early: Vec<u8>) {
        let settings = self.service.settings();
        let http = &settings.http;
        let watch = Watch::new();
        let stream = Early { stream, early };
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(http.max_header as u32)
            .max_send_buf_size(256 << 10)
            .keep_alive_interval(http.idle_timeout)
            .keep_alive_timeout(http.header_timeout);
        let client = self.clone();
        let watched = Arc::clone(&watch);
        let serve = service_fn(move |request: Request<Incoming>| {
            let busy = watched.begin();
            let client = client.clone();
            async move {
                let (mut answer, _) = client.answer(request, Over::H2).await;
                answer.body_mut().hold(busy);
                Ok::<_, Infallible>(answer)
            }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), serve));
        let mut timer = pin!(sleep_until(Instant::now() + LOOK));
        let mut told = false;
        poll_fn(|cx| {
            loop {
                if connection.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let idle = watch.is_idle() && watch.quiet() >= http.idle_timeout;
                if !told && (idle || self.shared.is_closing()) {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                }
                timer.as_mut().reset(Instant::now() + LOOK);
            }
        })
        .await;
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        over: Over,
    ) -> (Response<Body>, Option<(Switched, Flight)>) {
        let settings = self.service.settings();
        // Requests of HTTP/2 are tasks of their own, which the connection's look does not reach.
        let looked_at = over != Over::H2;
        match self.try_answer(&settings, request, looked_at).await {
            Ok(Outcome::Answer(answer)) => (answer, None),
            Ok(Outcome::Switched(answer, switched, flight))
                if over == (Over::H1 { may_switch: true }) =>
            {
                (answer, Some((switched, flight)))
            }
            // It was not asked for.
            Ok(Outcome::Switched(..)) => (Problem::Garbled.answer(), None),
            Err(problem) => {
                let mut answer = problem.answer();
                if matches!(
                    problem,
                    Problem::SlowBody | Problem::Bad(_) | Problem::Tunnel
                ) {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(CONNECTION, close);
                }
                (answer, None)
            }
        }
    }

    async fn try_answer(
        &self,
        settings: &Settings,
        request: Request<Incoming>,
        looked_at: bool,
    ) -> Result<Outcome, Problem> {
        check(&request)?;
        match settings.rules.route(request.uri().path()) {
            Route::Nothing => Err(Problem::NoRoute),
            Route::Page => {
                let control = self.shared.control();
                let answer = boxed_page(&control, &request).await?;
                Ok(Outcome::Answer(answer))
            }
            Route::Forward { counted } => {
                let wanted = Wanted {
                    shared: &self.shared,
                    service: &self.service,
                    settings,
                    asker: &self.asker,
                    thread: self.thread.number,
                    counted,
                    looked_at,
                };
                forward::forward(&wanted, request).await
            }
        }
    }
}

fn boxed_page<'a>(
    control: &'a Path,
    request: &'a Request<Incoming>,
) -> BoxFuture<'a, Result<Response<Body>, Problem>> {
    Box::pin(page::answer(control, request))
}

fn h1(http: &HttpConfig) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(http.max_header).half_close(true);
    if http.max_headers != USUAL_HEADERS {
        builder.max_headers(http.max_headers);
    }
    builder
}

/// Whether the client takes too long for a head, or to end a body that was answered already.
fn is_late(watch: &Watch, http: &HttpConfig) -> bool {
    let quiet = watch.quiet();
    if watch.is_in_head() {
        return quiet >= http.header_timeout;
    }
    !watch.is_busy() && !watch.is_idle() && quiet >= http.body_timeout
}

/// Ends a connection, and tells a client that was too slow. It may be gone.
async fn close<S: Stream>(mut stream: S, late: bool) {
    let end = async {
        if late {
            let told =
                b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(told).await?;
        }
        stream.shutdown().await
    };
    let _ = timeout(FAREWELL, end).await;
}

/// What the library lets through and RFC 9112 does not.
fn check(request: &Request<Incoming>) -> Result<(), Problem> {
    if request.method() == Method::CONNECT {
        return Err(Problem::Tunnel);
    }
    let hosts = host_count(request.headers());
    match request.version() {
        Version::HTTP_11 if hosts == 0 => Err(Problem::Bad("there is no Host")),
        _ if hosts > 1 => Err(Problem::Bad("there is more than one Host")),
        _ => Ok(()),
    }
}

fn host_count(headers: &HeaderMap) -> usize {
    headers.get_all(HOST).iter().count()
}

/// Reads on while what has come may still be the preface of HTTP/2; whether it is.
async fn read_preface<S: Stream>(stream: &mut S, early: &mut Vec<u8>) -> io::Result<bool> {
    while early.len() < PREFACE.len() && PREFACE.starts_with(early) {
        if stream.read_buf(early).await? == 0 {
            return Ok(false);
        }
    }
    Ok(early.starts_with(PREFACE))
}

fn boxed_tunnel<S: Stream>(
    client: S,
    early: Vec<u8>,
    other: (Switched, Flight),
) -> BoxFuture<'static, ()> {
    Box::pin(tunnel(client, early, other))
}

/// Carries bytes both ways until both are through.
async fn tunnel<S: Stream>(mut client: S, early: Vec<u8>, (switched, flight): (Switched, Flight)) {
    let Switched {
        mut stream,
        early: answered,
    } = switched;
    let done = async {
        stream.write_all(&early).await?;
        client.write_all(&answered).await?;
        copy_bidirectional(&mut client, &mut stream).await
    };
    // Either side may break off.
    let _ = done.await;
    drop(flight);
}

/// Whose address a connection is told to come from.
pub(super) fn asker(address: IpAddr, secure: bool) -> Asker {
    Asker::new(address, secure)
}
