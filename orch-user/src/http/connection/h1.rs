//! How is a connection of HTTP/1 served, until nothing is on its way?

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::Poll,
};

use futures_util::future::BoxFuture;
use hyper::{
    Request, Response, Version,
    body::Incoming,
    header::{CONNECTION, HeaderValue, UPGRADE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;

use super::{
    super::{
        backend::Switched,
        body::Body,
        framing::Framer,
        guard::{Busy, Guarded, Watch},
        headers,
        service::{Flight, locked},
        stream::Stream,
    },
    Client, End, PARK,
    answer::Over,
    close,
};
use crate::config::HttpConfig;

/// Header lines that the library takes without a list of its own.
const USUAL_HEADERS: usize = 100;

impl Client {
    pub(super) fn boxed_h1<S: Stream>(
        &self,
        stream: S,
        early: Vec<u8>,
        framer: Framer,
    ) -> BoxFuture<'_, End<S>> {
        Box::pin(self.serve_h1(stream, early, framer))
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
                if watch.is_busy() {
                    watch.ask_for_client();
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
        let (mut stream, mut rest, framer) = parts.io.into_inner().into_parts();
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
            close(&mut stream, late).await;
        }
        End::Closed
    }

    /// One answer. Where it changes the protocol, the copy's side of that goes into `tunnel`.
    async fn answer_h1(
        &self,
        mut request: Request<Incoming>,
        busy: Busy,
        watch: Arc<Watch>,
        tunnel: &Mutex<Option<(Switched, Flight)>>,
    ) -> Result<Response<Body>, Infallible> {
        if request.version() == Version::HTTP_10 {
            // RFC 9110, 7.8.
            request.headers_mut().remove(UPGRADE);
        }
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
