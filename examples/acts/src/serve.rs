//! Connections: accepting them, and ending them without losing a request.

use std::{io, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time,
};

use crate::{app::App, routes};

/// How long a quiet keep-alive connection stays open after the stop, for the request that its
/// client may be sending just now.
const LINGER: Duration = Duration::from_secs(1);
/// When the stop ends, whatever is still in flight: below the ten seconds that engines wait.
const STOP_LIMIT: Duration = Duration::from_secs(8);
/// Pause after a failed `accept`, which mostly means that there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Serves until `stop`, then finishes what is in flight.
pub(crate) async fn until(listener: TcpListener, app: Arc<App>, stop: impl Future<Output = ()>) {
    let router = routes::router(Arc::clone(&app));
    let (stopped, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut serve = |stream: TcpStream| {
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(connection(stream, service, stopping.clone()));
        while connections.try_join_next().is_some() {}
    };
    tokio::pin!(stop);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => serve(stream),
                Err(_) => time::sleep(ACCEPT_PAUSE).await,
            },
            () = &mut stop => break,
        }
    }
    app.stop();
    for stream in close(listener).unwrap_or_default() {
        serve(stream);
    }
    stopped.send_replace(true);
    let all_done = async { while connections.join_next().await.is_some() {} };
    if time::timeout(STOP_LIMIT, all_done).await.is_err() {
        eprintln!("acts: stops with requests in flight after {STOP_LIMIT:?}");
    }
}

/// Closes the listener, and hands over the connections that were waiting in it: the kernel would
/// reset them.
fn close(listener: TcpListener) -> io::Result<Vec<TcpStream>> {
    let listener = listener.into_std()?;
    let mut waiting = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        waiting.push(TcpStream::from_std(stream)?);
    }
    Ok(waiting)
}

async fn connection(
    stream: TcpStream,
    service: TowerToHyperService<axum::Router>,
    mut stopping: watch::Receiver<bool>,
) {
    // Answers are small: none of them waits for the acknowledgement of the one before.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let lingered = async {
        if stopping.wait_for(|stopped| *stopped).await.is_ok() {
            time::sleep(LINGER).await;
        }
    };
    // An error here is a client that went away: there is nobody to tell.
    tokio::select! {
        _ = served.as_mut() => return,
        () = lingered => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}
