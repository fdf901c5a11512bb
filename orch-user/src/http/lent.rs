//! Bodies of which somebody else sees that their client takes nothing any more. On a connection of
//! HTTP/2 nobody asks a body for more until its client has made room, so that no timer of its own
//! would run; and the connection's other streams may be well.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::time::Instant;

use super::{body::Body, service::locked};

/// Bytes handed out at once: how soon more are asked for tells a client that is slow from one that takes
/// nothing, and a copy may have said much at once.
const PIECE: usize = 16 << 10;

/// A body that can be taken away.
#[derive(Debug)]
pub(super) struct Lent(Mutex<State>);

#[derive(Debug)]
struct State {
    /// `None` once it was taken away, and its copy's connection with it.
    body: Option<Box<Body>>,
    /// What is left of its last piece.
    rest: Bytes,
    /// When a piece was handed out behind which nobody has asked for the next one.
    handed_at: Option<Instant>,
}

impl Lent {
    pub(super) fn new(body: Body) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            body: Some(Box::new(body)),
            rest: Bytes::new(),
            handed_at: Some(Instant::now()),
        })))
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut state = locked(&self.0);
        let polled = state.poll(cx);
        // While a copy has nothing more to say, that is no fault of the client's.
        state.handed_at = polled.is_ready().then(Instant::now);
        polled
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let state = locked(&self.0);
        state.rest.is_empty() && state.body.as_ref().is_some_and(HttpBody::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let state = locked(&self.0);
        let hint = state.body.as_ref().map(HttpBody::size_hint);
        hint.unwrap_or_default()
    }

    fn end_if_unwanted(&self, limit: Duration) {
        let mut state = locked(&self.0);
        if state.handed_at.is_some_and(|at| at.elapsed() >= limit) {
            state.body = None;
            state.rest = Bytes::new();
        }
    }
}

impl State {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        };
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data(),
                other => return Poll::Ready(other),
            };
            match frame {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let size = PIECE.min(self.rest.len());
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(size)))))
    }
}

/// Those of a connection.
#[derive(Debug, Default)]
pub(super) struct Loans(Mutex<Vec<Weak<Lent>>>);

impl Loans {
    /// Takes note of what a client is to be sent, if that is not all there.
    pub(super) fn note(&self, body: &mut Body) {
        if let Some(lent) = body.lend() {
            locked(&self.0).push(Arc::downgrade(&lent));
        }
    }

    /// Takes away what nobody has asked more of for so long.
    pub(super) fn end_unwanted(&self, limit: Duration) {
        locked(&self.0).retain(|lent| {
            let lent = lent.upgrade();
            lent.is_some_and(|lent| {
                lent.end_if_unwanted(limit);
                true
            })
        });
    }
}
