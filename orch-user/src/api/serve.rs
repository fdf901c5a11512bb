//! Accepts connections within limits: many or slow clients must not exhaust the controller.

use std::{io, sync::Arc, time::Duration};

use axum::{Router, middleware::from_fn};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};

use super::access::known_host;

/// Most connections at a time, per listener; more wait in the listener's queue.
const CONNECTIONS: usize = 128;
/// Longest time for a request's head, and for the pause between two requests.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// A client that acknowledges nothing for so long is gone.
const SEND_LIMIT: Duration = Duration::from_secs(30);
/// Pause after a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves the status address until the task is dropped.
pub async fn serve_status(listener: TcpListener, router: Router) {
    serve_tcp(listener, router, HEAD_LIMIT).await;
}

pub(super) async fn serve_tcp(listener: TcpListener, router: Router, head_limit: Duration) {
    let local = router.clone().layer(from_fn(known_host));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Some(place) = place(&places).await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let limited = SockRef::from(&stream).set_tcp_user_timeout(Some(SEND_LIMIT));
                if let Err(error) = limited {
                    log::debug!("cannot limit a connection of the status address: {error}");
                }
                let inside = stream.local_addr().is_ok_and(|to| to.ip().is_loopback());
                let router = if inside { &local } else { &router };
                tokio::spawn(connection(stream, router.clone(), head_limit, place));
            }
            Err(error) => pause("the status address", &error).await,
        }
    }
}

/// Serves the control socket until the task is dropped.
pub async fn serve_control(listener: UnixListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Some(place) = place(&places).await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, router.clone(), HEAD_LIMIT, place));
            }
            Err(error) => pause("the control socket", &error).await,
        }
    }
}

/// `None` only if the semaphore was closed, which nobody does.
async fn place(places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    places.clone().acquire_owned().await.ok()
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    head_limit: Duration,
    _place: OwnedSemaphorePermit,
) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_limit)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        log::debug!("a connection of the API ended: {error}");
    }
}

async fn pause(place: &str, error: &io::Error) {
    log::warn!("{place} could not accept a connection: {error}");
    time::sleep(ACCEPT_PAUSE).await;
}
