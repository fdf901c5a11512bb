//! Streams of bytes that a client's connection may be: bare, over TLS, or partly read already.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that can say that something has come, without a buffer for it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether its end has to be said before it is closed.
    const SAYS_GOODBYE: bool;
    /// Whether it is nothing but its descriptor while nothing is on its way.
    const IS_BARE: bool;

    /// Ready when there is something to read; what had to be read for that is added to `early`.
    fn poll_arrival(&mut self, cx: &mut Context<'_>, early: &mut Vec<u8>) -> Poll<io::Result<()>>;
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
}

/// Has what is written go to a field as it is.
macro_rules! write_through {
    (impl$(<$generic:ident>)? for $type:ty, $field:ident) => {
        impl$(<$generic: tokio::io::AsyncWrite + Unpin>)? tokio::io::AsyncWrite for $type {
            fn poll_write(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bytes: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                std::pin::Pin::new(&mut self.$field).poll_write(cx, bytes)
            }

            fn poll_write_vectored(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                slices: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                std::pin::Pin::new(&mut self.$field).poll_write_vectored(cx, slices)
            }

            fn is_write_vectored(&self) -> bool {
                self.$field.is_write_vectored()
            }

            fn poll_flush(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.$field).poll_flush(cx)
            }

            fn poll_shutdown(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.$field).poll_shutdown(cx)
            }
        }
    };
}
pub(super) use write_through;

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

write_through!(impl<S> for Early<S>, stream);
