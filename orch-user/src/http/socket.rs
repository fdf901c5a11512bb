//! A TCP connection that the runtime hears of only when somebody has to wait for it: most one-request
//! connections have sent their request by the time they are accepted, and take its answer at once.
//! That saves two system calls and a turn of the loop for each.

use std::{
    io::{self, IoSlice, Read, Write},
    mem, net,
    pin::Pin,
    task::{Context, Poll},
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt::socket_error},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::stream::Stream;

/// Read at once of a connection that is not watched.
const PIECE: usize = 4 << 10;
/// Pieces that are together no longer than this are copied into one: to send one is cheaper than to
/// have the kernel gather several.
const SMALL: usize = 1 << 10;

/// A connection, nonblocking.
#[derive(Debug)]
pub(super) enum Socket {
    /// Nobody has waited for it yet.
    Bare(net::TcpStream),
    /// The runtime knows it.
    Watched(TcpStream),
    /// The runtime could not take it.
    Lost,
}

impl Socket {
    fn watched(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if let Self::Bare(_) = self {
            *self = match mem::replace(self, Self::Lost) {
                Self::Bare(stream) => Self::Watched(TcpStream::from_std(stream)?),
                other => other,
            };
        }
        match self {
            Self::Watched(stream) => Ok(Pin::new(stream)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Whether the other side has ended it, as the kernel knows by now: the runtime hears of that at
    /// its next turn.
    pub(super) fn has_ended(&self) -> bool {
        !matches!(self.peek(), Ok(1..) | Err(Errno::AGAIN | Errno::INTR))
    }

    /// Whether the other side has neither ended it nor said anything that was not read.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self.peek(), Err(Errno::AGAIN | Errno::INTR))
    }

    /// The same, as far as the runtime has heard.
    pub(super) fn is_quiet(&self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Bare(_) => true,
            Self::Watched(stream) => stream.poll_read_ready(cx).is_pending() || self.is_silent(),
            Self::Lost => false,
        }
    }

    fn peek(&self) -> Result<usize, Errno> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = match self {
            Self::Bare(stream) => recv(stream, &mut [0], flags),
            Self::Watched(stream) => recv(stream, &mut [0], flags),
            Self::Lost => Err(Errno::NOTCONN),
        };
        peeked.map(|(_, read)| read)
    }

    /// Whether the other side has reset it. A first call only: the kernel tells an error once.
    pub(super) fn was_reset(&self) -> bool {
        let error = match self {
            Self::Bare(stream) => socket_error(stream),
            Self::Watched(stream) => socket_error(stream),
            Self::Lost => return true,
        };
        !matches!(error, Ok(Ok(())))
    }

    /// Reads what is there, whatever the runtime knows.
    pub(super) fn read_now(&self, room: &mut [u8]) -> Result<usize, Errno> {
        let read = match self {
            Self::Bare(stream) => recv(stream, room, RecvFlags::DONTWAIT),
            Self::Watched(stream) => recv(stream, room, RecvFlags::DONTWAIT),
            Self::Lost => Err(Errno::NOTCONN),
        };
        read.map(|(_, read)| read)
    }

    /// What the other side gets once more follows, or the end. It is done at once, or not at all.
    fn hold(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let flags = SendFlags::MORE | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match self {
            Self::Bare(stream) => send(stream, bytes, flags),
            Self::Watched(stream) => send(stream, bytes, flags),
            Self::Lost => Err(Errno::NOTCONN),
        }
    }

    fn end(&self) -> Result<(), Errno> {
        match self {
            Self::Bare(stream) => shutdown(stream, Shutdown::Write),
            Self::Watched(stream) => shutdown(stream, Shutdown::Write),
            Self::Lost => Err(Errno::NOTCONN),
        }
    }

    /// The connection without the runtime.
    pub(super) fn into_std(self) -> io::Result<net::TcpStream> {
        match self {
            Self::Bare(stream) => Ok(stream),
            Self::Watched(stream) => stream.into_std(),
            Self::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// What a call on a bare connection came to; `None` where it has to be waited for.
fn done<T>(result: io::Result<T>) -> Option<io::Result<T>> {
    match result {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            None
        }
        result => Some(result),
    }
}

impl Stream for Socket {
    const SAYS_GOODBYE: bool = false;
    const IS_BARE: bool = true;

    fn poll_arrival(&mut self, cx: &mut Context<'_>, early: &mut Vec<u8>) -> Poll<io::Result<()>> {
        if let Self::Bare(stream) = self {
            let mut piece = [0; PIECE];
            if let Some(read) = done(stream.read(&mut piece)) {
                let read = piece.get(..read?).unwrap_or_default();
                if read.is_empty() {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                early.extend_from_slice(read);
                return Poll::Ready(Ok(()));
            }
        }
        self.watched()?.poll_read_ready(cx)
    }

    fn was_reset(&self) -> bool {
        Self::was_reset(self)
    }

    fn end_with(&self, last: &[u8]) -> usize {
        let Ok(held) = self.hold(last) else {
            return 0;
        };
        if held == last.len() {
            // Where it fails, closing the connection does the same.
            let _ = self.end();
        }
        held
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Self::Bare(stream) = &mut *self {
            let room = buf.remaining().min(PIECE);
            if let Some(read) = done(stream.read(buf.initialize_unfilled_to(room))) {
                buf.advance(read?);
                return Poll::Ready(Ok(()));
            }
        }
        self.watched()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Self::Bare(stream) = &mut *self
            && let Some(written) = done(stream.write(bytes))
        {
            return Poll::Ready(written);
        }
        self.watched()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if length <= SMALL {
            let mut small = [0; SMALL];
            let whole = gather(slices, &mut small);
            return self.poll_write(cx, whole);
        }
        if let Self::Bare(stream) = &mut *self
            && let Some(written) = done(stream.write_vectored(slices))
        {
            return Poll::Ready(written);
        }
        self.watched()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Bare(stream) => Poll::Ready(stream.shutdown(net::Shutdown::Write)),
            Self::Watched(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Lost => Poll::Ready(Ok(())),
        }
    }
}

/// Copies pieces into a room that is large enough, and gives what they are together.
fn gather<'a>(slices: &[IoSlice<'_>], room: &'a mut [u8]) -> &'a [u8] {
    let mut length = 0;
    for slice in slices {
        if let Some(place) = room.get_mut(length..length + slice.len()) {
            place.copy_from_slice(slice);
            length += slice.len();
        }
    }
    room.get(..length).unwrap_or_default()
}
