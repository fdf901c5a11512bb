//! A client's connection from its first byte to its last. While nothing is on its way it is a bare
//! socket: the library's buffers are there for the time of requests alone.

mod answer;
mod arrival;
mod h1;
mod h2;
mod tunnel;

use std::{net::IpAddr, sync::Arc, time::Duration};

pub(super) use self::arrival::Arrival;
use tokio::{io::AsyncWriteExt, time::timeout};

use self::{arrival::PREFACE, tunnel::boxed_tunnel};
use super::{
    backend::Switched,
    framing::Framer,
    headers::Asker,
    plain::Stretch,
    service::{Flight, Service},
    stream::Stream,
    worker::{Shared, Thread},
};

/// A connection without a request gives up its buffers after this time, and then its task.
const PARK: Duration = Duration::from_millis(100);

/// For the last words to a client.
const FAREWELL: Duration = Duration::from_secs(1);

/// Whose connection it is, and to what.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) service: Arc<Service>,
    pub(super) thread: Arc<Thread>,
    pub(super) asker: Asker,
    /// Tells it from others, never 0.
    pub(super) number: u32,
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
                let arrival = self.arrival(&mut stream, &mut early, patience, S::IS_BARE);
                match arrival.await {
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
            match self.boxed_plain(&mut stream, &mut early).await {
                Stretch::Other => {}
                Stretch::Closed => return None,
                Stretch::Parked => {
                    patience = self.service.settings().http.idle_timeout;
                    if S::IS_BARE {
                        return Some(Rest { stream, patience });
                    }
                    continue;
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
}

/// Whose address a connection is told to come from.
pub(super) fn asker(address: IpAddr, secure: bool) -> Asker {
    Asker::new(address, secure)
}

/// Ends a connection, and tells a client that was too slow. It may be gone.
pub(super) async fn close<S: Stream>(stream: &mut S, late: bool) {
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
