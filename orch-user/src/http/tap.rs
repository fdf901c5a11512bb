//! What every connection to a copy is made of: its bytes are counted, and it is known whether any have
//! come since a request.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use orch_common::counter;
use rustix::io::Errno;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
    task::coop,
    time::timeout,
};

use super::{socket::Socket, tally::Tally};
use crate::dataplane;

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

async fn reach(to: SocketAddr, way: Way) -> io::Result<TcpStream> {
    match way {
        Way::Tcp => TcpStream::connect(to).await,
        Way::Relay => {
            let socket = TcpSocket::from_std_stream(dataplane::relayed(to)?.into());
            socket.connect(to).await
        }
    }
}

/// A request that waits for its answer.
pub(super) struct Asked<'a>(pub(super) &'a Tally);

impl Asked<'_> {
    /// It waits no more.
    pub(super) fn ended(self) {
        std::mem::forget(self);
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.failed(counter::Failure::Aborted);
    }
}

/// What a connection and whoever uses it say to each other: the library has it in between.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// How many bytes have come since a request was given to it.
    heard: AtomicUsize,
    /// The next read is to ask the kernel whether this is the end.
    look: AtomicBool,
}

impl Line {
    /// A request begins, or has ended.
    pub(super) fn begin(&self) {
        self.heard.store(0, Relaxed);
    }

    /// Bytes that have come since.
    pub(super) fn heard(&self) -> usize {
        self.heard.load(Relaxed)
    }

    pub(super) fn look(&self, look: bool) {
        self.look.store(look, Relaxed);
    }
}

/// A connection that notes when something comes, and counts.
#[derive(Debug)]
pub(super) struct Tap {
    stream: Socket,
    way: Way,
    line: Arc<Line>,
    tally: Arc<Tally>,
    /// Whether what cannot be written is taken all the same; see [`Self::insist`].
    insists: bool,
}

impl Tap {
    /// Connects, within this time.
    pub(super) async fn connect(
        to: SocketAddr,
        way: Way,
        limit: Duration,
        tally: Arc<Tally>,
    ) -> Result<Self, Failure> {
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
        Ok(Self {
            stream: Socket::Watched(stream),
            way,
            line: Arc::default(),
            tally,
            insists: false,
        })
    }

    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// Whether nothing has come unasked, nor the end, as the kernel knows.
    pub(super) fn is_silent(&self) -> bool {
        self.stream.is_silent()
    }

    /// The same as the runtime knows.
    pub(super) fn is_quiet(&self, cx: &mut Context<'_>) -> bool {
        self.stream.is_quiet(cx)
    }

    /// For whoever writes before it reads: a copy that answers before a body has ended, and closes, is
    /// to be heard. What it does not take any more is dropped, and reading tells how it has ended.
    pub(super) fn insist(&mut self, insists: bool) {
        self.insists = insists;
    }

    /// Counts what was written of so many bytes.
    fn note(&self, written: Poll<io::Result<usize>>, size: usize) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => self.tally.received(bytes),
            Poll::Ready(Err(error)) if self.insists && is_over(&error) => {
                return Poll::Ready(Ok(size));
            }
            _ => {}
        }
        written
    }

    /// Reads what the runtime does not know to be there: a reading that fills less than its room looks
    /// to it like the last, and here it is not where something came by TCP behind what did not.
    fn read_on(&self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !coop::has_budget_remaining() {
            // It was this task's turn for long enough, and it is woken again.
            return Poll::Pending;
        }
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

/// Whether the other side takes nothing more.
fn is_over(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
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
        self.note(written, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(written, slices.iter().map(|slice| slice.len()).sum())
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
