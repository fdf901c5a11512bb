//! A client's connection under watch: every byte that comes in passes the framing rules before the
//! library sees it, and it is known how long a head has been on its way.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    framing::{Framer, Phase},
    service::locked,
    stream::Stream,
};

/// What a connection is doing, for its watchdog.
#[derive(Debug)]
pub(super) struct Watch {
    begun: Instant,
    phase: AtomicU8,
    /// Milliseconds from `begun` to the last change of the phase or the end of the last answer.
    since: AtomicU64,
    /// Requests that are being answered.
    busy: AtomicUsize,
    /// Reading waits for the answer to a request for another protocol.
    paused: AtomicBool,
    /// Somebody wants to know whether the client is still there.
    asked: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Watch {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            phase: AtomicU8::new(Phase::Idle as u8),
            since: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            waker: Mutex::default(),
        })
    }

    fn enter(&self, phase: Phase) {
        if self.phase.swap(phase as u8, Relaxed) != phase as u8 {
            self.touch();
        }
    }

    fn touch(&self) {
        let ms = self.begun.elapsed().as_millis() as u64;
        self.since.store(ms, Relaxed);
    }

    /// For how long nothing has changed.
    pub(super) fn quiet(&self) -> Duration {
        let since = Duration::from_millis(self.since.load(Relaxed));
        self.begun.elapsed().saturating_sub(since)
    }

    pub(super) fn is_in_head(&self) -> bool {
        self.phase.load(Relaxed) == Phase::Head as u8
    }

    pub(super) fn is_idle(&self) -> bool {
        self.phase.load(Relaxed) == Phase::Idle as u8 && !self.is_busy()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Relaxed) > 0
    }

    /// Has the connection ended with its next flush if its client has reset it. Nothing is read while a
    /// request is being answered, so nobody would notice.
    pub(super) fn ask_for_client(&self) {
        self.asked.store(true, Relaxed);
    }

    /// A request is being answered until this is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Relaxed);
        Busy(Arc::clone(self))
    }

    /// The answer to a request for another protocol is known.
    pub(super) fn resume(&self) {
        if self.paused.swap(false, Release)
            && let Some(waker) = locked(&self.waker).take()
        {
            waker.wake();
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Busy(Arc<Watch>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.touch();
        self.0.busy.fetch_sub(1, Relaxed);
    }
}

/// A connection whose incoming bytes are followed.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    inner: S,
    /// Bytes that were read before this was made, from `given` on.
    early: Vec<u8>,
    given: usize,
    framer: Framer,
    watch: Arc<Watch>,
    broken: bool,
}

impl<S> Guarded<S> {
    pub(super) fn new(inner: S, early: Vec<u8>, framer: Framer, watch: Arc<Watch>) -> Self {
        Self {
            inner,
            early,
            given: 0,
            framer,
            watch,
            broken: false,
        }
    }

    /// The connection itself, what was read of it and not given on, and its framer.
    pub(super) fn into_parts(mut self) -> (S, Vec<u8>, Framer) {
        self.early.drain(..self.given);
        (self.inner, self.early, self.framer)
    }

    /// Follows bytes on their way in. What breaks the rules becomes zeros, which no parser takes for
    /// anything, so that the library refuses it behind the answers to what came before.
    fn follow(&mut self, bytes: &mut [u8]) {
        if self.broken {
            bytes.fill(0);
            return;
        }
        if let Err((from, why)) = self.framer.feed(bytes) {
            log::debug!("a client's bytes are refused: {why:?}");
            self.broken = true;
            if let Some(rest) = bytes.get_mut(from..) {
                rest.fill(0);
            }
        }
        let phase = self.framer.phase();
        self.watch.enter(phase);
        if phase == Phase::Idle && self.framer.asks_for_upgrade() {
            self.watch.paused.store(true, Release);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.watch.paused.load(Acquire) {
            *locked(&this.watch.waker) = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let early = this.early.get(this.given..).unwrap_or_default();
        if early.is_empty() {
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        } else {
            let count = early.len().min(buf.remaining());
            buf.put_slice(early.get(..count).unwrap_or_default());
            this.given += count;
            if this.given == this.early.len() {
                this.early = Vec::new();
                this.given = 0;
            }
        }
        if let Some(new) = buf.filled_mut().get_mut(before..) {
            this.follow(new);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// The library calls it whenever it has looked at the connection.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.watch.asked.load(Relaxed) {
            self.watch.asked.store(false, Relaxed);
            if self.inner.was_reset() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
