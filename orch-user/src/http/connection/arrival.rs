//! What has come of waiting for a client's first bytes?

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    task::Poll,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout},
};

use super::{super::stream::Stream, Client, PARK};

/// Read at once at the beginning.
const FIRST_READ: usize = 4 << 10;
/// What a connection of HTTP/2 begins with.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What has come of waiting for a client.
pub(in super::super) enum Arrival {
    Bytes,
    /// Nothing yet.
    Nothing,
    /// The client is gone, or has taken too long.
    End,
}

impl Client {
    /// Waits for the first bytes, and reads them; not for long, if the connection may rest elsewhere.
    pub(in super::super) async fn arrival<S: Stream>(
        &self,
        stream: &mut S,
        early: &mut Vec<u8>,
        patience: Duration,
        may_rest: bool,
    ) -> Arrival {
        let begun = Instant::now();
        let mut pulse = pin!(self.thread.pulse.notified());
        let arrived = poll_fn(|cx| {
            loop {
                if let Poll::Ready(ready) = stream.poll_arrival(cx, early) {
                    let end = ready.map_or(Arrival::End, |()| Arrival::Bytes);
                    return Poll::Ready(end);
                }
                std::task::ready!(pulse.as_mut().poll(cx));
                if begun.elapsed() >= patience {
                    return Poll::Ready(Arrival::End);
                }
                if may_rest && begun.elapsed() >= PARK {
                    return Poll::Ready(Arrival::Nothing);
                }
                pulse.set(self.thread.pulse.notified());
            }
        })
        .await;
        let is_read = S::IS_BARE && !early.is_empty();
        if is_read || !matches!(arrived, Arrival::Bytes) {
            return arrived;
        }
        early.reserve(FIRST_READ);
        match poll_fn(|cx| {
            let mut read = pin!(stream.read_buf(early));
            // What made it ready may be gone.
            match read.as_mut().poll(cx) {
                Poll::Pending => Poll::Ready(Ok(usize::MAX)),
                ready @ Poll::Ready(_) => ready,
            }
        })
        .await
        {
            Ok(0) if early.is_empty() => Arrival::End,
            Ok(_) => Arrival::Bytes,
            Err(_) => Arrival::End,
        }
    }

    /// Whether the connection begins as one of HTTP/2; `None` if it ends before that is known.
    pub(super) fn boxed_preface<'a, S: Stream>(
        &self,
        stream: &'a mut S,
        early: &'a mut Vec<u8>,
    ) -> BoxFuture<'a, Option<bool>> {
        let limit = self.service.settings().http.header_timeout;
        Box::pin(async move {
            let read = timeout(limit, read_preface(stream, early)).await;
            read.ok()?.ok()
        })
    }
}

/// Reads on while what has come may still be the preface of HTTP/2; whether it is.
async fn read_preface<S: Stream>(stream: &mut S, early: &mut Vec<u8>) -> io::Result<bool> {
    while early.len() < PREFACE.len() && PREFACE.starts_with(early) {
        if stream.read_buf(early).await? == 0 {
            return Ok(false);
        }
    }
    Ok(early.starts_with(PREFACE))
}
