//! Bodies on their way through: nothing is kept of them but the piece that is there.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    backend::Link,
    guard::Busy,
    headers,
    lent::Lent,
    problem::Problem,
    service::{Flight, locked},
};

/// A piece as it is handed on: of a trailer section, what may be.
fn handed_on(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            let names: Vec<_> = trailers.keys().cloned().collect();
            for name in names.iter().filter(|name| !headers::may_trail(name)) {
                trailers.remove(name);
            }
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// Bytes of a request's body that a client has to send within each `body_timeout`: what drips more
/// slowly holds a copy for nothing.
const LEAST: usize = 256;

/// A timer that is made when something first has to wait, and begins anew with every piece.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    const fn new(limit: Duration) -> Self {
        Self { limit, timer: None }
    }

    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        timer.as_mut().poll(cx).is_ready()
    }

    fn begin_anew(&mut self) {
        if let Some(timer) = &mut self.timer {
            timer.as_mut().reset(Instant::now() + self.limit);
        }
    }
}

/// What a client is sent.
#[derive(Debug)]
pub(super) struct Body {
    kind: Kind,
    busy: Option<Busy>,
    guest: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Kind {
    Full(Bytes),
    Copy(Box<Answer>),
    Page(Incoming),
    Lent(Arc<Lent>),
}

/// The body of a copy's answer, with the connection that it comes by.
#[derive(Debug)]
struct Answer {
    inner: Incoming,
    /// The connection; gone once it is kept for another request.
    link: Option<Box<Link>>,
    flight: Flight,
    thread: usize,
    patience: Patience,
}

impl Body {
    pub(super) fn full(bytes: Bytes) -> Self {
        Kind::Full(bytes).into()
    }

    pub(super) fn page(inner: Incoming) -> Self {
        Kind::Page(inner).into()
    }

    /// The body that comes by this connection, which is kept for the next request behind its end.
    pub(super) fn copy(
        inner: Incoming,
        link: Box<Link>,
        flight: Flight,
        thread: usize,
        limit: Duration,
    ) -> Self {
        let mut answer = Answer {
            inner,
            link: Some(link),
            flight,
            thread,
            patience: Patience::new(limit),
        };
        if answer.inner.is_end_stream() {
            answer.finish(&mut Context::from_waker(Waker::noop()));
            return Self::full(Bytes::new());
        }
        Kind::Copy(Box::new(answer)).into()
    }

    /// From now on it can be taken away; `None` if it is all there.
    pub(super) fn lend(&mut self) -> Option<Arc<Lent>> {
        if matches!(self.kind, Kind::Full(_)) {
            return None;
        }
        let empty = Kind::Full(Bytes::new());
        let lent = Lent::new(std::mem::replace(&mut self.kind, empty).into());
        self.kind = Kind::Lent(Arc::clone(&lent));
        Some(lent)
    }

    /// Keeps its place among the guests until this body is gone.
    pub(super) fn admit(&mut self, guest: OwnedSemaphorePermit) {
        self.guest = Some(guest);
    }

    /// Says that the request is being answered until this body is gone.
    pub(super) fn hold(&mut self, busy: Busy) {
        self.busy = Some(busy);
    }
}

impl From<Kind> for Body {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            busy: None,
            guest: None,
        }
    }
}

impl Answer {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut polled = Pin::new(&mut self.inner).poll_frame(cx);
        if polled.is_pending() {
            // The body is fed by its connection, which nobody else drives.
            if let Some(link) = &mut self.link {
                link.drive(cx);
            }
            polled = Pin::new(&mut self.inner).poll_frame(cx);
        }
        match polled {
            Poll::Pending if self.patience.is_over(cx) => {
                self.link = None;
                Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                self.patience.begin_anew();
                if self.inner.is_end_stream() {
                    self.finish(cx);
                }
                Poll::Ready(Some(Ok(handed_on(frame))))
            }
            Poll::Ready(Some(Err(error))) => {
                self.link = None;
                Poll::Ready(Some(Err(io::Error::other(error))))
            }
            Poll::Ready(None) => {
                self.finish(cx);
                Poll::Ready(None)
            }
        }
    }

    /// The body has ended: its connection may serve again.
    fn finish(&mut self, cx: &mut Context<'_>) {
        let Some(mut link) = self.link.take() else {
            return;
        };
        if link.is_ready(cx) {
            self.flight.0.keep_link(self.thread, link);
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.kind {
            Kind::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Copy(answer) => answer.poll(cx),
            Kind::Page(inner) => Pin::new(inner).poll_frame(cx).map_err(io::Error::other),
            Kind::Lent(lent) => lent.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Copy(answer) => answer.inner.is_end_stream(),
            Kind::Page(inner) => inner.is_end_stream(),
            Kind::Lent(lent) => lent.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Copy(answer) => answer.inner.size_hint(),
            Kind::Page(inner) => inner.size_hint(),
            Kind::Lent(lent) => lent.size_hint(),
        }
    }
}

/// The body of a client's request. It can be tried with several copies, until its first piece is
/// taken.
#[derive(Clone, Debug)]
pub(super) struct Upload(Option<Arc<Mutex<Source>>>);

#[derive(Debug)]
struct Source {
    inner: Incoming,
    pieces: u64,
    /// Bytes since the timer was last set.
    lately: usize,
    ended: bool,
    slow: bool,
    broken: bool,
    patience: Patience,
}

impl Upload {
    pub(super) fn new(inner: Incoming, limit: Duration) -> Self {
        if inner.is_end_stream() {
            return Self(None);
        }
        Self(Some(Arc::new(Mutex::new(Source {
            inner,
            pieces: 0,
            lately: 0,
            ended: false,
            slow: false,
            broken: false,
            patience: Patience::new(limit),
        }))))
    }

    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Pieces that were taken.
    pub(super) fn pieces(&self) -> u64 {
        self.0.as_ref().map_or(0, |source| locked(source).pieces)
    }

    /// Whether there is more to come.
    pub(super) fn is_open(&self) -> bool {
        self.0.as_ref().is_some_and(|source| !locked(source).ended)
    }

    /// What its client has done wrong.
    pub(super) fn fault(&self) -> Option<Problem> {
        let source = locked(self.0.as_ref()?);
        match (source.slow, source.broken) {
            (true, _) => Some(Problem::SlowBody),
            (_, true) => Some(Problem::Bad("the body of the request is broken")),
            _ => None,
        }
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(source) = &self.0 else {
            return Poll::Ready(None);
        };
        let mut source = locked(source);
        match Pin::new(&mut source.inner).poll_frame(cx) {
            Poll::Pending if source.patience.is_over(cx) => {
                source.slow = true;
                Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                source.ended = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(frame)) => {
                source.pieces += 1;
                source.broken |= frame.is_err();
                let data = frame.as_ref().ok().and_then(Frame::data_ref);
                source.lately += data.map_or(0, Bytes::len);
                if source.lately >= LEAST {
                    source.lately = 0;
                    source.patience.begin_anew();
                }
                source.ended = source.inner.is_end_stream();
                Poll::Ready(Some(frame.map(handed_on).map_err(io::Error::other)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let Some(source) = &self.0 else {
            return true;
        };
        locked(source).inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let Some(source) = &self.0 else {
            return SizeHint::with_exact(0);
        };
        locked(source).inner.size_hint()
    }
}
