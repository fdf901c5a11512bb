//! How is a connection of HTTP/2 served?

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper::{Request, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, sleep_until};

use super::{
    super::{
        guard::Watch,
        lent::Loans,
        stream::{Early, Stream},
    },
    Client,
    answer::Over,
};

/// Between two looks at a connection of HTTP/2.
const LOOK: Duration = Duration::from_millis(200);
/// Streams of one connection of HTTP/2.
const STREAMS: u32 = 200;

impl Client {
    pub(super) fn boxed_h2<S: Stream>(self, stream: S, early: Vec<u8>) -> BoxFuture<'static, ()> {
        Box::pin(self.serve_h2(stream, early))
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
        let loans = Arc::new(Loans::default());
        let lending = Arc::clone(&loans);
        let serve = service_fn(move |request: Request<Incoming>| {
            let busy = watched.begin();
            let client = client.clone();
            let loans = Arc::clone(&lending);
            async move {
                let (mut answer, _) = client.answer(request, Over::H2).await;
                loans.note(answer.body_mut());
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
                loans.end_unwanted(http.body_timeout);
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
}
