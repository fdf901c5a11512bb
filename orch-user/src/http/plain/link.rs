//! A connection to a copy by which plain requests go.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use futures_util::future::BoxFuture;
use orch_common::{counter, relay};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::coop,
    time::Instant,
};

use super::{
    super::{
        backend::MOMENT,
        forward::Connection,
        pool::{Kept, Pool},
        service::Slot,
        tally::Tally,
        tap::{Asked, Failure, Tap, Way},
    },
    answer::{self, Head},
    room::Room,
};

/// Read at once of a head.
const PIECE: usize = 8 << 10;
/// Bytes of an answer's head at the most, with those of a status below 200 before it.
const HEAD: usize = 256 << 10;
/// Room that is larger is not kept between requests.
const KEPT: usize = 16 << 10;

/// One request at a time.
#[derive(Debug)]
pub(in super::super) struct Link {
    tap: Tap,
    tally: Arc<Tally>,
    room: Room,
    used_at: Instant,
}

impl Link {
    async fn open(
        to: SocketAddr,
        tally: Arc<Tally>,
        way: Way,
        limit: Duration,
    ) -> Result<Box<Self>, Failure> {
        let tap = Tap::connect(to, way, limit, Arc::clone(&tally)).await?;
        Ok(Box::new(Self {
            tap,
            tally,
            room: Room::default(),
            used_at: Instant::now(),
        }))
    }

    /// Sends a request and reads on until the head of its answer is there, whose translation is
    /// appended to `out`. Where this is dropped before, its client has gone.
    pub(super) async fn ask(
        &mut self,
        request: &[u8],
        to_head: bool,
        out: &mut Vec<u8>,
    ) -> Result<Head, Failure> {
        let Self {
            tap, tally, room, ..
        } = self;
        tap.line().begin();
        room.clear();
        let asked = Asked(tally);
        let answered = exchange(tap, room, request, to_head, out).await;
        asked.ended();
        answered.map_err(|error| match error {
            Ended::Unsent => Failure::Unanswered,
            Ended::Garbled => Failure::Garbled,
            Ended::By(how) => {
                tally.failed(how);
                if tap.line().heard() > 0 {
                    Failure::Cut
                } else {
                    Failure::Unanswered
                }
            }
        })
    }

    /// What has come of the body.
    pub(super) fn take(&mut self) -> Room {
        std::mem::take(&mut self.room)
    }

    /// Reads more of the body, so much at the most. 0 at the connection's end.
    pub(super) async fn more(&mut self, room: &mut Room, most: usize) -> io::Result<usize> {
        room.clear();
        let read = self.tap.read(room.free(most)).await?;
        room.came(read);
        Ok(read)
    }

    /// The answer has ended; the room serves the next one. Whether there can be one.
    pub(super) fn settle(&mut self, room: Room) -> bool {
        if room.size() <= KEPT {
            self.room = room;
        }
        // Of a long answer, or one of many pieces, the rest came by TCP, and what is behind it there
        // would come up within another answer, and none of the kernel's events tells of it.
        let least = (relay::MOST / relay::PIECE) as usize;
        let spilled = self.tap.way() == Way::Relay && self.tap.line().heard() >= least;
        self.tap.line().begin();
        self.used_at = Instant::now();
        !spilled || self.tap.is_silent()
    }
}

/// Why there is no answer.
enum Ended {
    /// Not a byte of the request was sent.
    Unsent,
    Garbled,
    By(counter::Failure),
}

async fn exchange(
    tap: &mut Tap,
    room: &mut Room,
    request: &[u8],
    to_head: bool,
    out: &mut Vec<u8>,
) -> Result<Head, Ended> {
    let mut rest = request;
    while !rest.is_empty() {
        match tap.write(rest).await {
            Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
            _ if rest.len() == request.len() => return Err(Ended::Unsent),
            _ => return Err(Ended::By(counter::Failure::Reset)),
        }
    }
    let mut heard = 0;
    while heard <= HEAD {
        match tap.read(room.free(PIECE)).await {
            Ok(0) => return Err(Ended::By(counter::Failure::Closed)),
            Err(_) => return Err(Ended::By(counter::Failure::Reset)),
            Ok(read) => {
                heard += read;
                room.came(read);
            }
        }
        while let Some(head) =
            answer::translate(room.text(), to_head, out).map_err(|_| Ended::Garbled)?
        {
            room.take(head.size);
            if head.status >= 200 {
                return Ok(head);
            }
        }
        coop::consume_budget().await;
    }
    Err(Ended::Garbled)
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
