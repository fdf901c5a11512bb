//! Accepts connections within limits: many or slow clients must not exhaust the controller.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

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
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
    time,
};

use super::access::known_host;

/// Most connections at a time, per listener. One more ends the oldest of the status address, which anybody on the host
/// can fill with silent ones, and waits at the control socket, which only root can.
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
    let mut crowd = Crowd::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let limited = SockRef::from(&stream).set_tcp_user_timeout(Some(SEND_LIMIT));
                if let Err(error) = limited {
                    log::debug!("cannot limit a connection of the status address: {error}");
                }
                let inside = stream.local_addr().is_ok_and(|to| to.ip().is_loopback());
                let router = if inside { &local } else { &router };
                crowd.admit(connection(stream, router.clone(), head_limit));
            }
            Err(error) => pause("the status address", &error).await,
        }
    }
}

/// Serves the control socket until the task is dropped.
pub async fn serve_control(listener: UnixListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Fails only if the semaphore was closed, which nobody does.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let served = connection(stream, router.clone(), HEAD_LIMIT);
                tokio::spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => pause("the control socket", &error).await,
        }
    }
}

/// Connections, of which the oldest makes room; all end with it.
#[derive(Default)]
struct Crowd {
    tasks: JoinSet<()>,
    by_age: VecDeque<AbortHandle>,
}

impl Crowd {
    fn admit(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        if self.by_age.len() >= CONNECTIONS {
            self.by_age.retain(|task| !task.is_finished());
        }
        if self.by_age.len() >= CONNECTIONS
            && let Some(oldest) = self.by_age.pop_front()
        {
            oldest.abort();
        }
        self.by_age.push_back(self.tasks.spawn(connection));
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    head_limit: Duration,
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
