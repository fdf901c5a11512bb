//! Plain requests: all head, which has come whole, and nothing in it that a proxy has to understand.
//! They are most, and are handed on as lines of bytes; so are their answers. Whatever else comes on a
//! connection is the library's (`connection`), from its first byte on.

mod answer;
mod chunks;
mod field;
mod link;
mod request;
mod room;

use std::{
    future::poll_fn,
    io::{self, IoSlice, Write},
    pin::{Pin, pin},
    task::{Poll, ready},
};

use futures_util::future::BoxFuture;
use tokio::{io::AsyncWriteExt, sync::futures::Notified, task::coop, time::Instant};

pub(super) use self::link::Link;
use self::{
    answer::{Extent, Head},
    request::Request,
    room::Room,
};
use super::{
    connection::{Arrival, Client, close},
    forward::{self, Answered, Question, Wanted},
    problem::Problem,
    service::{Flight, Settings},
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
        let mut inquiry = Inquiry::default();
        let mut served = 0;
        loop {
            let settings = self.service.settings();
            let bytes = early.get(served..).unwrap_or_default();
            if bytes.is_empty() {
                early.clear();
                served = 0;
                let patience = settings.http.idle_timeout;
                let mut arrival = pin!(self.arrival(stream, early, patience, true));
                let arrived = poll_fn(|cx| {
                    let arrived = arrival.as_mut().poll(cx);
                    inquiry.is_hasty &= arrived.is_ready();
                    arrived
                });
                match arrived.await {
                    Arrival::Bytes => continue,
                    Arrival::Nothing => return Stretch::Parked,
                    Arrival::End => break,
                }
            }
            let out = &mut inquiry.request;
            let Some(request) = request::translate(bytes, &settings, &self.asker, out) else {
                early.drain(..served);
                return Stretch::Other;
            };
            served += request.size;
            let goes_on =
                self.answer_plain(stream, pulse.as_mut(), &settings, request, &mut inquiry);
            if !goes_on.await {
                break;
            }
            inquiry.is_hasty = true;
            coop::consume_budget().await;
        }
        if S::SAYS_GOODBYE {
            close(stream, false).await;
        }
        Stretch::Closed
    }

    /// Has one request answered; whether another may follow.
    async fn answer_plain<'a, S: Stream>(
        &'a self,
        stream: &mut S,
        mut pulse: Pin<&mut Notified<'a>>,
        settings: &Settings,
        request: Request,
        inquiry: &mut Inquiry,
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
        inquiry.is_idempotent = request.is_idempotent;
        inquiry.to_head = request.is_head;
        let answered = forward::forward(&wanted, inquiry);
        let Some(answered) = self.while_there(stream, pulse.as_mut(), answered).await else {
            return false;
        };
        let closes = request.closes || self.shared.is_closing();
        let out = &mut inquiry.answer;
        if let Err(problem) = &answered {
            out.clear();
            problem.write_head(out);
        }
        if closes {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        let sent = match answered {
            Ok(answered) => {
                let sent = self.deliver(stream, pulse, settings, answered, out, closes);
                sent.await
            }
            Err(problem) => {
                if !request.is_head {
                    problem.write_body(out);
                }
                send(stream, [out]).await
            }
        };
        sent.is_ok() && !closes
    }

    /// Hands an answer on, piece by piece, behind what is in `out`. An error ends the client's
    /// connection: it would take the next answer for more of this one.
    async fn deliver<'a, S: Stream>(
        &'a self,
        stream: &mut S,
        mut pulse: Pin<&mut Notified<'a>>,
        settings: &Settings,
        answered: Answered<Inquiry>,
        out: &mut Vec<u8>,
        closes: bool,
    ) -> io::Result<()> {
        let Answered {
            answer: mut head,
            mut link,
            flight,
        } = answered;
        let mut room = link.take();
        let mut most = PIECE;
        loop {
            let text = room.text();
            let part = head
                .body
                .take(text)
                .map_err(|_| io::ErrorKind::InvalidData)?;
            let clean = part.used == text.len();
            let mut behind = behind(&head.body, part.passed, part.ended, out);
            if out.len() + part.passed <= SMALL {
                out.extend_from_slice(text.get(..part.passed).unwrap_or_default());
                out.extend_from_slice(std::mem::take(&mut behind));
                room.clear();
            }
            if part.ended {
                let rest = self.keep(flight, link, head.keeps && clean, room);
                let text = rest.as_ref().map_or(&[][..], Room::text);
                let text = text.get(..part.passed).unwrap_or_default();
                if closes && text.is_empty() && behind.is_empty() {
                    let sent = stream.end_with(out);
                    return send(stream, [out.get(sent..).unwrap_or_default()]).await;
                }
                return send(stream, [out, text, behind]).await;
            }
            let text = room.text().get(..part.passed).unwrap_or_default();
            send(stream, [out, text, behind]).await?;
            out.clear();
            let deadline = Instant::now() + settings.http.body_timeout;
            let more = by(deadline, link.more(&mut room, most));
            let more = self.while_there(stream, pulse.as_mut(), more).await;
            let more = more.ok_or(io::ErrorKind::ConnectionReset)?;
            let more = more.ok_or(io::ErrorKind::TimedOut)??;
            if more == 0 && matches!(head.body, Extent::UntilEnd) {
                drop((link, flight));
                return send(stream, [b"0\r\n\r\n"]).await;
            }
            if more == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if more == most {
                most = (2 * most).min(LONG);
            }
            coop::consume_budget().await;
        }
    }

    /// The copy has said all: its connection is kept before the client has all of it. Gives back the
    /// room if something is in it.
    fn keep(&self, flight: Flight, mut link: Box<Link>, clean: bool, room: Room) -> Option<Room> {
        let (rest, room) = if room.text().is_empty() {
            (None, room)
        } else {
            (Some(room), Room::default())
        };
        if clean && link.settle(room) {
            flight.0.keep_link(self.thread.number, link);
        }
        // Nor does its slot wait for a client that takes its time.
        drop(flight);
        rest
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

/// Appends what comes before a piece of a body that is no chunk yet, and gives what comes behind a piece.
fn behind(body: &Extent, passed: usize, ended: bool, out: &mut Vec<u8>) -> &'static [u8] {
    match body {
        Extent::UntilEnd if passed > 0 => {
            // Writing to memory does not fail.
            let _ = write!(out, "{passed:x}\r\n");
            b"\r\n"
        }
        // Instead of trailers.
        Extent::Chunked(_) if ended => b"\r\n",
        _ => b"",
    }
}

/// Gives up at the deadline. For what is polled at every pulse, and waits at times.
async fn by<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if Instant::now() >= deadline => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// What is said to copies, and to the client.
#[derive(Debug, Default)]
struct Inquiry {
    request: Vec<u8>,
    to_head: bool,
    is_idempotent: bool,
    /// Nothing had to be waited for since the client's last answer. What another client's connection
    /// left behind in this very turn is not found: the runtime is believed there.
    is_hasty: bool,
    /// What the client gets before the body.
    answer: Vec<u8>,
}

impl Question for Inquiry {
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

    fn fault(&self) -> Option<Problem> {
        None
    }

    fn is_hasty(&self) -> bool {
        self.is_hasty
    }

    async fn ask(&mut self, wanted: &Wanted<'_>, link: &mut Link) -> Result<Head, Failure> {
        self.answer.clear();
        let deadline = Instant::now() + wanted.settings.http.answer_timeout;
        let answered = link.ask(&self.request, self.to_head, &mut self.answer);
        by(deadline, answered).await.unwrap_or(Err(Failure::Silent))
    }

    fn status(answer: &Head) -> u16 {
        answer.status
    }
}
