//! Connections to copies on which the library speaks. Each is driven by whoever has it in use, inside
//! the client's own task: no request changes tasks on its way.

use std::{
    error::Error as _,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use orch_common::counter;
use tokio::time::Instant;

use super::{
    body::Upload,
    forward,
    pool::{Kept, Pool},
    service::Slot,
    tally::Tally,
    tap::{Asked, Failure, Line, Tap, Way},
};

/// So long after an answer a connection is good, unless a copy closes it at once.
pub(super) const MOMENT: Duration = Duration::from_millis(50);

/// A connection to a copy, with one request at a time.
#[derive(Debug)]
pub(super) struct Link {
    sender: SendRequest<Upload>,
    /// `None` once it has ended.
    connection: Option<Connection<TokioIo<Tap>, Upload>>,
    line: Arc<Line>,
    tally: Arc<Tally>,
    pub(super) way: Way,
    pub(super) used_at: Instant,
}

/// What a copy has become that changed to another protocol.
#[derive(Debug)]
pub(super) struct Switched {
    pub(super) stream: Tap,
    /// What it has said already in that protocol.
    pub(super) early: Bytes,
}

impl Link {
    async fn open(
        to: SocketAddr,
        tally: Arc<Tally>,
        way: Way,
        limit: Duration,
    ) -> Result<Box<Self>, Failure> {
        let mut tap = Tap::connect(to, way, limit, Arc::clone(&tally)).await?;
        tap.insist(true);
        let line = Arc::clone(tap.line());
        let connected = http1::Builder::new().handshake(TokioIo::new(tap)).await;
        let (sender, connection) = connected.map_err(|_| Failure::Refused)?;
        Ok(Box::new(Self {
            sender,
            connection: Some(connection),
            line,
            tally,
            way,
            used_at: Instant::now(),
        }))
    }

    /// Lets the connection do what it can do now.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && connection.poll_without_shutdown(cx).is_ready()
        {
            self.connection = None;
        }
    }

    /// Whether another request may follow, now that its answer is whole.
    pub(super) fn is_ready(&mut self, cx: &mut Context<'_>) -> bool {
        // There is nothing more to hear.
        self.line.begin();
        self.drive(cx);
        self.used_at = Instant::now();
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Sends a request and gives the head of its answer. Where this is dropped before, its client has
    /// gone.
    pub(super) async fn ask(
        &mut self,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, Failure> {
        self.line.begin();
        let asked = Asked(&self.tally);
        let mut answer = pin!(self.sender.try_send_request(request));
        let connection = &mut self.connection;
        let result = poll_fn(|cx| {
            if let Some(running) = connection {
                // A change of protocol ends it as well, and is to be told from a broken one.
                if running.poll_without_shutdown(cx).is_ready() {
                    let answered = answer.as_mut().poll(cx);
                    if !matches!(&answered, Poll::Ready(Ok(answer)) if switches(answer)) {
                        *connection = None;
                    }
                    if answered.is_ready() {
                        return answered;
                    }
                }
            }
            answer.as_mut().poll(cx)
        })
        .await;
        asked.ended();
        result.map_err(|mut error| {
            let sent = error.take_message().is_none();
            let error = error.into_error();
            log::debug!("no answer: {error}");
            if sent && !error.is_parse() {
                self.tally.failed(how_ended(&error));
            }
            match (sent && self.line.heard() > 0, error.is_parse()) {
                (false, _) => Failure::Unanswered,
                (true, true) => Failure::Garbled,
                (true, false) => Failure::Cut,
            }
        })
    }

    /// The connection itself, once the copy has changed to another protocol.
    pub(super) fn into_switched(self) -> Option<Switched> {
        let parts = self.connection?.into_parts();
        let mut stream = parts.io.into_inner();
        // In another protocol whoever writes has to know.
        stream.insist(false);
        Some(Switched {
            stream,
            early: parts.read_buf,
        })
    }
}

impl Kept for Link {
    fn way(&self) -> Way {
        self.way
    }

    fn used_at(&self) -> Instant {
        self.used_at
    }
}

impl forward::Connection for Link {
    fn pool(slot: &Slot) -> &Pool<Self> {
        &slot.links
    }

    fn connect(
        to: &Slot,
        way: Way,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Box<Self>, Failure>> {
        Box::pin(Self::open(to.address, Arc::clone(&to.tally), way, limit))
    }

    fn is_alive(&mut self, sure: bool, now: Instant) -> bool {
        if !sure && now.saturating_duration_since(self.used_at) < MOMENT {
            return true;
        }
        self.line.look(sure);
        self.drive(&mut Context::from_waker(std::task::Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }
}

fn switches(answer: &Response<Incoming>) -> bool {
    answer.status() == StatusCode::SWITCHING_PROTOCOLS
}

/// How a connection has ended instead of an answer: by the copy, unless the client's body broke off.
fn how_ended(error: &hyper::Error) -> counter::Failure {
    if error.is_user() {
        return counter::Failure::Aborted;
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            let closed = error.kind() == io::ErrorKind::UnexpectedEof;
            return if closed {
                counter::Failure::Closed
            } else {
                counter::Failure::Reset
            };
        }
        source = cause.source();
    }
    counter::Failure::Closed
}
