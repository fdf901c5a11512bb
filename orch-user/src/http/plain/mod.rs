//! Plain requests: all head, which has come whole, and nothing in it that a proxy has to understand.
//! They are most, and are handed on as lines of bytes; so are their answers. Whatever else comes on a
//! connection is the library's (`connection`), from its first byte on.

mod answer;
mod chunks;
mod field;
mod link;
mod request;

use std::{
    future::poll_fn,
    io::{self, IoSlice, Write},
    pin::{Pin, pin},
    task::{Poll, ready},
};

use futures_util::future::BoxFuture;
use tokio::{io::AsyncWriteExt, sync::futures::Notified, time::Instant};

pub(super) use self::link::Link;
use self::{
    answer::{Asked, Head, Rest},
    link::by,
    request::Request,
};
use super::{
    connection::{Arrival, Client, close},
    forward::{self, Answered, Question, Wanted},
    service::{Settings, Slot},
    stream::Stream,
    tap::Failure,
};

/// A body is copied behind its head up to this length: to send one piece is cheaper than two.
const SMALL: usize = 2 << 10;
/// Read at once of a body: twice as much whenever there was so much, up to the second.
const PIECE: usize = 16 << 10;
const LONG: usize = 512 << 10;

/// How a stretch of plain requests ended.
pub(super) enum Stretch {
    /// What comes next is the library's.
    Other,
    /// Nothing is on its way.
    Parked,
    Closed,
}

impl Client {
    /// Serves plain requests until something else comes, beginning with what was read already. Boxed,
    /// so that a connection that only waits is small.
    pub(super) fn boxed_plain<'a, S: Stream>(
        &'a self,
        stream: &'a mut S,
        early: &'a mut Vec<u8>,
    ) -> BoxFuture<'a, Stretch> {
        Box::pin(self.serve_plain(stream, early))
    }

    async fn serve_plain<S: Stream>(&self, stream: &mut S, early: &mut Vec<u8>) -> Stretch {
        let mut pulse = pin!(self.thread.pulse.notified());
        let mut ask = Ask::default();
        let mut served = 0;
        loop {
            let settings = self.service.settings();
            let bytes = early.get(served..).unwrap_or_default();
            if bytes.is_empty() {
                early.clear();
                served = 0;
                let patience = settings.http.idle_timeout;
                let mut arrival = pin!(self.arrival(stream, early, patience));
                let arrived = poll_fn(|cx| {
                    let arrived = arrival.as_mut().poll(cx);
                    ask.is_hasty &= arrived.is_ready();
                    arrived
                });
                match arrived.await {
                    Arrival::Bytes => continue,
                    Arrival::Nothing => return Stretch::Parked,
                    Arrival::End => return Stretch::Closed,
                }
            }
            let read = request::translate(bytes, &settings, &self.asker, &mut ask.request);
            let Some(request) = read else {
                early.drain(..served);
                return Stretch::Other;
            };
            served += request.size;
            let goes_on = self.answer_plain(stream, pulse.as_mut(), &settings, request, &mut ask);
            let goes_on = goes_on.await;
            ask.is_hasty = true;
            if !goes_on {
                if S::SAYS_GOODBYE {
                    close(stream, false).await;
                }
                return Stretch::Closed;
            }
        }
    }

    /// Has one request answered; whether another may follow.
    async fn answer_plain<'a, S: Stream>(
        &'a self,
        stream: &mut S,
        mut pulse: Pin<&mut Notified<'a>>,
        settings: &Settings,
        request: Request,
        ask: &mut Ask,
    ) -> bool {
        let wanted = Wanted {
            shared: &self.shared,
            service: &self.service,
            settings,
            asker: &self.asker,
            thread: self.thread.number,
            connection: self.number,
            counted: request.counted,
            looked_at: true,
        };
        ask.answer.clear();
        ask.is_idempotent = request.is_idempotent;
        ask.asked = request.asked;
        ask.asked.closes |= self.shared.is_closing();
        let goes_on = !ask.asked.closes;
        let answered = forward::forward(&wanted, ask);
        let Some(answered) = self.while_there(stream, pulse.as_mut(), answered).await else {
            return false;
        };
        match answered {
            Ok(answered) => {
                let sent = self.deliver(stream, pulse, settings, answered, &mut ask.answer);
                sent.await.is_ok() && goes_on
            }
            Err(problem) => {
                ask.answer.clear();
                problem.write(ask.asked.is_head, !goes_on, &mut ask.answer);
                send(stream, [&ask.answer]).await.is_ok() && goes_on
            }
        }
    }

    /// Hands an answer on, piece by piece. An error ends the client's connection: it would take the
    /// next answer for more of this one.
    async fn deliver<'a, S: Stream>(
        &'a self,
        stream: &mut S,
        mut pulse: Pin<&mut Notified<'a>>,
        settings: &Settings,
        answered: Answered<Ask>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let Answered {
            answer: mut head,
            mut link,
            flight,
        } = answered;
        let chunks = matches!(head.body, Rest::UntilEnd);
        let mut piece = link.take();
        let mut about = PIECE;
        loop {
            let taken = head.body.take(&piece);
            let (used, ended) = taken.map_err(|_| io::ErrorKind::InvalidData)?;
            if ended {
                let clean = used == piece.len();
                piece.truncate(used);
                if clean && head.keeps {
                    piece = self.keep(&flight.0, link, piece, out);
                }
                return send(stream, [out, &piece]).await;
            }
            if chunks && used > 0 {
                write!(out, "{used:x}\r\n")?;
                piece.extend_from_slice(b"\r\n");
            }
            if out.len() + piece.len() <= SMALL {
                out.extend_from_slice(&piece);
                send(stream, [out]).await?;
            } else {
                send(stream, [out, &piece]).await?;
            }
            out.clear();
            let deadline = Instant::now() + settings.http.body_timeout;
            let more = by(deadline, link.more(piece, about));
            let more = self.while_there(stream, pulse.as_mut(), more).await;
            let more = more.ok_or(io::ErrorKind::ConnectionReset)?;
            let more = more.ok_or(io::ErrorKind::TimedOut)??;
            if more == 0 && chunks {
                return send(stream, [b"0\r\n\r\n"]).await;
            }
            if more == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            piece = link.take();
            if more >= about {
                about = (2 * about).min(LONG);
            }
        }
    }

    /// Keeps a connection whose answer is whole, before its client has all of it. What is small goes
    /// behind the head, so that the connection keeps its buffer; gives back what is not.
    fn keep(&self, slot: &Slot, mut link: Box<Link>, piece: Vec<u8>, out: &mut Vec<u8>) -> Vec<u8> {
        let piece = if piece.len() <= SMALL {
            out.extend_from_slice(&piece);
            link.rest(piece);
            Vec::new()
        } else {
            link.rest(Vec::new());
            piece
        };
        slot.keep_link(self.thread.number, link);
        piece
    }

    /// Does it while the client is there, which nobody reads from meanwhile. `None` once it has gone.
    async fn while_there<'a, S: Stream, T>(
        &'a self,
        stream: &S,
        mut pulse: Pin<&mut Notified<'a>>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(done) = work.as_mut().poll(cx) {
                    return Poll::Ready(Some(done));
                }
                ready!(pulse.as_mut().poll(cx));
                pulse.set(self.thread.pulse.notified());
                if stream.was_reset() {
                    return Poll::Ready(None);
                }
            }
        })
        .await
    }
}

/// What is said to copies, and to the client.
#[derive(Debug, Default)]
struct Ask {
    request: Vec<u8>,
    asked: Asked,
    is_idempotent: bool,
    /// Nothing had to be waited for since the last answer.
    is_hasty: bool,
    /// What the client gets before the body.
    answer: Vec<u8>,
}

impl Question for Ask {
    type Link = Link;
    type Answer = Head;

    fn is_bare(&self) -> bool {
        true
    }

    fn may_repeat(&self, failure: Failure) -> bool {
        match failure {
            Failure::Refused => true,
            Failure::Unanswered => self.is_idempotent,
            Failure::Cut | Failure::Garbled | Failure::Silent => false,
        }
    }

    fn is_slow(&self) -> bool {
        false
    }

    fn is_hasty(&self) -> bool {
        self.is_hasty
    }

    async fn ask(&mut self, wanted: &Wanted<'_>, link: &mut Link) -> Result<Head, Failure> {
        self.answer.clear();
        let deadline = Instant::now() + wanted.settings.http.answer_timeout;
        let answered = by(
            deadline,
            link.ask(&self.request, self.asked, &mut self.answer),
        );
        answered.await.unwrap_or(Err(Failure::Silent))
    }

    fn status(answer: &Head) -> u16 {
        answer.status
    }
}

/// Sends all of these pieces.
async fn send<S: Stream, const N: usize>(stream: &mut S, pieces: [&[u8]; N]) -> io::Result<()> {
    let mut slices = pieces.map(IoSlice::new);
    let mut rest = slices.as_mut_slice();
    // Drops those that are empty.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let sent = stream.write_vectored(rest).await?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, sent);
    }
    stream.flush().await
}
