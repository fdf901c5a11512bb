//! Connections to copies. Each is driven by whoever has it in use, inside the client's own task: no
//! request changes tasks on its way.

use std::{
    error::Error as _,
    future::poll_fn,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
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
use rustix::io::Errno;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};

use super::{body::Upload, service::Slot, socket::Socket, tally::Tally};
use crate::dataplane;

/// So long after an answer a connection is good, unless a copy closes it at once.
const MOMENT: Duration = Duration::from_millis(50);

/// Why a copy gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody listens there, or nobody accepts.
    Refused,
    /// The connection ended before the first byte of the answer.
    Unanswered,
    /// The connection ended within the head of the answer.
    Cut,
    /// What came is not HTTP.
    Garbled,
    /// Nothing came in time.
    Silent,
}

/// How requests go to a copy by a connection, from its first to its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By TCP.
    Tcp,
    /// From socket to socket, where the kernel can: only requests without a body, each of which is
    /// one piece, and none before all of the answer before is read (`orch_common::relay`).
    Relay,
}

impl Way {
    pub(super) const COUNT: usize = 2;
}

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
    /// A new one. Boxed, since it is handed on many times.
    pub(super) fn connect(
        to: &Slot,
        way: Way,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Box<Self>, Failure>> {
        Box::pin(Self::open(to.address, Arc::clone(&to.tally), way, limit))
    }

    async fn open(
        to: SocketAddr,
        tally: Arc<Tally>,
        way: Way,
        limit: Duration,
    ) -> Result<Box<Self>, Failure> {
        let stream = match timeout(limit, reach(to, way)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                log::debug!("no connection to {to}: {error}");
                tally.failed(counter::Failure::Refused);
                return Err(Failure::Refused);
            }
            Err(_) => {
                tally.failed(counter::Failure::Timeout);
                return Err(Failure::Refused);
            }
        };
        // Without it, a small request waits for the answer to the one before; it is not needed.
        let _ = stream.set_nodelay(true);
        let line: Arc<Line> = Arc::default();
        let tap = Tap {
            stream: Socket::Watched(stream),
            way,
            line: Arc::clone(&line),
            tally: Arc::clone(&tally),
        };
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
        self.line.heard.store(0, Relaxed);
        self.drive(cx);
        self.used_at = Instant::now();
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Whether a connection that has waited is still good: its end may have come meanwhile. To be
    /// `sure` costs a call; otherwise one that has served a moment ago is taken to be.
    pub(super) fn is_alive(&mut self, sure: bool, now: Instant) -> bool {
        if !sure && now.saturating_duration_since(self.used_at) < MOMENT {
            return true;
        }
        self.line.look.store(sure, Relaxed);
        self.drive(&mut Context::from_waker(std::task::Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Sends a request and gives the head of its answer. Where this is dropped before, its client has
    /// gone.
    pub(super) async fn ask(
        &mut self,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, Failure> {
        self.line.heard.store(0, Relaxed);
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
            match (sent && self.line.heard.load(Relaxed) > 0, error.is_parse()) {
                (false, _) => Failure::Unanswered,
                (true, true) => Failure::Garbled,
                (true, false) => Failure::Cut,
            }
        })
    }

    /// The connection itself, once the copy has changed to another protocol.
    pub(super) fn into_switched(self) -> Option<Switched> {
        let parts = self.connection?.into_parts();
        Some(Switched {
            stream: parts.io.into_inner(),
            early: parts.read_buf,
        })
    }
}

async fn reach(to: SocketAddr, way: Way) -> io::Result<TcpStream> {
    match way {
        Way::Tcp => TcpStream::connect(to).await,
        Way::Relay => {
            let socket = TcpSocket::from_std_stream(dataplane::relayed(to)?.into());
            socket.connect(to).await
        }
    }
}

fn switches(answer: &Response<Incoming>) -> bool {
    answer.status() == StatusCode::SWITCHING_PROTOCOLS
}

/// A request that waits for its answer.
struct Asked<'a>(&'a Tally);

impl Asked<'_> {
    /// It waits no more.
    fn ended(self) {
        std::mem::forget(self);
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.failed(counter::Failure::Aborted);
    }
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

/// What a link and its connection, which the library holds, say to each other.
#[derive(Debug, Default)]
struct Line {
    /// How many bytes have come since a request was given to it.
    heard: AtomicUsize,
    /// The next read is to ask the kernel whether this is the end.
    look: AtomicBool,
}

/// A connection that notes when something comes, and counts.
#[derive(Debug)]
pub(super) struct Tap {
    stream: Socket,
    way: Way,
    line: Arc<Line>,
    tally: Arc<Tally>,
}

impl Tap {
    /// Counts what was written.
    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.tally.received(*bytes);
        }
        written
    }

    /// Reads what the runtime does not know to be there: a reading that fills less than its room looks
    /// to it like the last, and here it is not where something came by TCP behind what did not.
    fn read_on(&self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.stream.read_now(buf.initialize_unfilled()) {
            Ok(read) => {
                buf.advance(read);
                Poll::Ready(Ok(()))
            }
            Err(Errno::AGAIN | Errno::INTR) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.line.look.load(Relaxed) {
            self.line.look.store(false, Relaxed);
            if self.stream.has_ended() {
                return Poll::Ready(Ok(()));
            }
        }
        let before = buf.filled().len();
        let mut polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let heard = self.line.heard.load(Relaxed);
        if polled.is_pending() && self.way == Way::Relay && heard > 0 {
            polled = self.read_on(buf);
        }
        let read = buf.filled().len() - before;
        if read > 0 {
            self.line.heard.store(heard.saturating_add(read), Relaxed);
            self.tally.sent(read);
        }
        polled
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
