//! A connection to a copy by which plain requests go.

use std::{
    future::poll_fn,
    io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::future::BoxFuture;
use orch_common::counter;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::{
    super::{
        backend::MOMENT,
        forward::Connection,
        pool::{Kept, Pool},
        service::Slot,
        tally::Tally,
        tap::{self, Failure, Tap, Way},
    },
    answer::{self, Asked, Head},
};

/// Read at once of a head.
const PIECE: usize = 8 << 10;
/// Bytes of an answer's head at the most.
const HEAD: usize = 256 << 10;
/// A buffer that is larger is not kept between requests.
const KEPT: usize = 16 << 10;

/// One request at a time.
#[derive(Debug)]
pub(in super::super) struct Link {
    tap: Tap,
    tally: Arc<Tally>,
    /// What has come of an answer and was not taken yet.
    read: Vec<u8>,
    used_at: Instant,
}

impl Link {
    /// Sends a request and reads on until the head of its answer is there, whose translation is
    /// appended to `out`. Where this is dropped before, its client has gone.
    pub(super) async fn ask(
        &mut self,
        request: &[u8],
        asked: Asked,
        out: &mut Vec<u8>,
    ) -> Result<Head, Failure> {
        self.tap.line().begin();
        self.read.clear();
        let tally = Arc::clone(&self.tally);
        let guard = tap::Asked(&tally);
        let answered = self.exchange(request, asked, out).await;
        guard.ended();
        answered
    }

    async fn exchange(
        &mut self,
        request: &[u8],
        asked: Asked,
        out: &mut Vec<u8>,
    ) -> Result<Head, Failure> {
        let mut rest = request;
        while !rest.is_empty() {
            match self.tap.write(rest).await {
                Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
                // Of what nothing was sent, nothing has failed.
                _ if rest.len() == request.len() => return Err(Failure::Unanswered),
                _ => return Err(self.ended(counter::Failure::Reset)),
            }
        }
        loop {
            self.read.reserve(PIECE);
            match self.tap.read_buf(&mut self.read).await {
                Ok(0) => return Err(self.ended(counter::Failure::Closed)),
                Ok(_) => {}
                Err(_) => return Err(self.ended(counter::Failure::Reset)),
            }
            while let Some(head) =
                answer::translate(&self.read, asked, out).map_err(|_| Failure::Garbled)?
            {
                self.read.drain(..head.size);
                if head.status >= 200 {
                    return Ok(head);
                }
            }
            if self.read.len() > HEAD {
                return Err(Failure::Garbled);
            }
        }
    }

    /// The connection has ended instead of an answer.
    fn ended(&self, how: counter::Failure) -> Failure {
        self.tally.failed(how);
        if self.tap.line().has_heard() {
            Failure::Cut
        } else {
            Failure::Unanswered
        }
    }

    /// What has come of the body.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.read)
    }

    /// Reads more of the body, into this buffer and about so much. 0 at the connection's end.
    pub(super) async fn more(&mut self, mut buffer: Vec<u8>, about: usize) -> io::Result<usize> {
        buffer.clear();
        buffer.reserve(about);
        let read = self.tap.read_buf(&mut buffer).await;
        self.read = buffer;
        read
    }

    /// The answer has ended; the buffer serves the next one.
    pub(super) fn rest(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= KEPT {
            buffer.clear();
            self.read = buffer;
        }
        self.tap.line().begin();
        self.used_at = Instant::now();
    }

    async fn open(
        to: std::net::SocketAddr,
        tally: Arc<Tally>,
        way: Way,
        limit: Duration,
    ) -> Result<Box<Self>, Failure> {
        let tap = Tap::connect(to, way, limit, Arc::clone(&tally)).await?;
        Ok(Box::new(Self {
            tap,
            tally,
            read: Vec::new(),
            used_at: Instant::now(),
        }))
    }
}

impl Kept for Link {
    fn way(&self) -> Way {
        self.tap.way()
    }

    fn used_at(&self) -> Instant {
        self.used_at
    }
}

impl Connection for Link {
    fn pool(slot: &Slot) -> &Pool<Self> {
        &slot.plain
    }

    fn connect(
        to: &Slot,
        way: Way,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Box<Self>, Failure>> {
        Box::pin(Self::open(to.address, Arc::clone(&to.tally), way, limit))
    }

    fn is_alive(&mut self, sure: bool, now: Instant) -> bool {
        if sure || now.saturating_duration_since(self.used_at) >= MOMENT {
            return self.tap.is_silent();
        }
        // What the runtime has heard costs nothing: a copy speaks when it is asked, and not before.
        self.tap.is_quiet(&mut Context::from_waker(Waker::noop()))
    }
}

/// Gives up at the deadline, for who is polled at every pulse.
pub(super) async fn by<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if Instant::now() >= deadline => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}
