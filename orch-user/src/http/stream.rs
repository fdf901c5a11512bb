//! Streams of bytes that a client's connection may be: bare, over TLS, or partly read already.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that can say that something has come, without a buffer for it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {
    /// Whether its end has to be said before it is closed.
    const SAYS_GOODBYE: bool;
    /// Whether it is nothing but its descriptor while nothing is on its way.
    const IS_BARE: bool;

    /// Ready when there is something to read; what had to be read for that is added to `early`.
    fn poll_arrival(&mut self, cx: &mut Context<'_>, early: &mut Vec<u8>) -> Poll<io::Result<()>>;

    /// Whether the other side has reset the connection; told once.
    fn was_reset(&self) -> bool;

    /// Sends the last bytes of the connection and its end in one packet, where it can do so at once;
    /// how many of them. The end goes with all of them only.
    fn end_with(&self, _last: &[u8]) -> usize {
        0
    }
}

impl<S: Stream> Stream for tokio_rustls::server::TlsStream<S> {
    const SAYS_GOODBYE: bool = true;
    const IS_BARE: bool = false;

    fn poll_arrival(&mut self, cx: &mut Context<'_>, early: &mut Vec<u8>) -> Poll<io::Result<()>> {
        let mut one = [0];
        let mut buf = ReadBuf::new(&mut one);
        std::task::ready!(Pin::new(self).poll_read(cx, &mut buf))?;
        if buf.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        early.extend_from_slice(buf.filled());
        Poll::Ready(Ok(()))
    }

    fn was_reset(&self) -> bool {
        self.get_ref().0.was_reset()
    }
}

/// A stream, and before it what was read of it already.
pub(super) struct Early<S> {
    pub(super) stream: S,
    pub(super) early: Vec<u8>,
}

impl<S: Stream> Stream for Early<S> {
    const SAYS_GOODBYE: bool = S::SAYS_GOODBYE;
    // What is early would be lost.
    const IS_BARE: bool = false;

    fn poll_arrival(&mut self, cx: &mut Context<'_>, early: &mut Vec<u8>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return self.stream.poll_arrival(cx, early);
        }
        Poll::Ready(Ok(()))
    }

    fn was_reset(&self) -> bool {
        self.stream.was_reset()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Early<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.early.len().min(buf.remaining());
        let rest = self.early.split_off(count);
        buf.put_slice(&self.early);
        self.early = rest;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Early<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
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
