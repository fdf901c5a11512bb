//! Passive health: what a slot's own traffic says of its backend, and what of that is suspicious.
//!
//! A backend is suspected by comparison with its peers alone. One that is slow, or that answers
//! with errors, as all others do, has done nothing wrong.

/// Requests without an answer that are more than chance.
pub const UNANSWERED: u64 = 8;
/// How many times the longest row of unanswered requests of a peer a suspect's must be.
pub const TIMES_PEERS: u64 = 4;
/// Shortest silence that is suspicious.
pub const SILENCE_NS: u64 = 20_000_000;
/// How many times the usual response time a silence must last.
pub const TIMES_USUAL: u64 = 2;
/// Server errors in a row, on as many connections, that are suspicious where peers have almost none.
pub const ERRORS: u32 = 3;
/// Server errors in a row that are suspicious where peers have some.
pub const MANY_ERRORS: u32 = 8;
/// The whole of [`Pulse::share`].
pub const WHOLE: u32 = 1 << 16;
/// A share of errors that is almost none: one in twenty.
pub const FEW: u32 = WHOLE / 20;
/// A share that is some: one in four.
pub const SOME: u32 = WHOLE / 4;
/// A share of which the backend itself must be the cause if peers have few: one in two.
pub const HALF: u32 = WHOLE / 2;
/// How often limits are doubled at the most, after false alarms.
pub const MOST_PATIENCE: u32 = 6;
/// How often that of unanswered requests is: a listener's queue may have room for no more than 128
/// (listen(2)), and behind a full one nobody asks any more.
pub const MOST_ROWS: u32 = 2;
/// So long after the last false alarm it is forgotten.
pub const FORGIVEN_NS: u64 = 60_000_000_000;
/// What the end of a silence adds to the usual response time, at the most, beside doubling it.
pub const STEP_NS: u64 = 10_000_000;
/// Peers are looked at no more often than this.
pub const PAUSE_NS: u64 = 5_000_000;

/// What the traffic of a slot says. Several CPUs change it at the same time: all but `unanswered` and
/// `in_flight` may lose a change, which makes it no more than a little inexact.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Requests since the last beginning of a response. Changed atomically.
    pub unanswered: u64,
    /// Requests that have begun and whose response has not, nor has their connection ended: of clients
    /// outside, and of sockets of this host. Of the slot's backend alone, those before it being dead.
    /// Changed atomically; below zero, as a signed number, is none.
    pub in_flight: [u64; 2],
    /// When the first of them came, in nanoseconds of the monotonic clock, as all times here.
    pub asked_ns: u64,
    /// When the last response began.
    pub answered_ns: u64,
    /// A response time that few exceed: rises by a quarter of what a longer one is longer, and falls
    /// by a 256th with each shorter one. 0: none is known.
    pub usual_ns: u64,
    /// When peers were last looked at.
    pub looked_ns: u64,
    /// When a false alarm was last taken back.
    pub cleared_ns: u64,
    /// When the first of `errors` came.
    pub failing_ns: u64,
    /// Server errors (5xx) in a row, each on another connection than the one before.
    pub errors: u32,
    /// Initial sequence number of the connection that had the last of them.
    pub connection: u32,
    /// Share of server errors among the last sixteen or so responses, of [`WHOLE`].
    pub share: u32,
    /// How often the limits are doubled.
    pub patience: u32,
    /// Why picks pass the slot by: the number of an [`crate::event::EventKind`]; 0 if they do not.
    pub why: u32,
    /// When a silence last ended, in units of 2^20 ns, which wrap; 0: never. Requests from before it say
    /// how long the backend stood still, and not how long it usually takes.
    pub resumed: u32,
    /// A CPU that changes one slot's words must not take a line of the cache from another that reads
    /// those of the next slot. Array maps begin their values anywhere in a line.
    pub apart: [u64; 4],
}

/// What the other slots of the ring look like.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Peers {
    /// How many picks consider.
    pub alive: u32,
    /// How many they pass by because of what is judged here.
    pub suspects: u32,
    /// How many have answered since the trouble began.
    pub answering: u32,
    /// The sum of their shares of errors.
    pub shares: u32,
    /// How many of them have almost none.
    pub well: u32,
    /// The longest row of unanswered requests.
    pub unanswered: u64,
    /// The longest of their usual response times.
    pub usual_ns: u64,
}

impl Pulse {
    /// Requests in flight, whoever asked.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        let each = self.in_flight.iter();
        each.map(|word| word.cast_signed().max(0).cast_unsigned())
            .sum()
    }

    /// A response has begun, `taken_ns` after its request. `error` if it is a server's (5xx), on the
    /// connection with this initial sequence number.
    #[inline(always)]
    pub fn answered(&mut self, now: u64, taken_ns: u64, error: bool, connection: u32) {
        self.answered_ns = now;
        let usual = self.usual_ns;
        if usual == 0 {
            self.usual_ns = taken_ns;
        } else if taken_ns <= usual {
            self.usual_ns = usual - (usual >> 8);
        } else if !self.stood_still(now.saturating_sub(taken_ns)) {
            self.usual_ns = usual + ((taken_ns - usual) >> 2);
        }
        if !error {
            // Read with every request: mostly it is as it shall be, and its line stays where it is.
            if self.errors != 0 {
                self.errors = 0;
            }
            let forgotten = self.share >> 4;
            if forgotten != 0 {
                self.share -= forgotten;
            }
            return;
        }
        // One client that asks for the impossible again and again says nothing of the backend.
        if self.connection == connection {
            return;
        }
        self.connection = connection;
        if self.errors == 0 {
            self.failing_ns = now;
        }
        self.errors = self.errors.saturating_add(1);
        self.share += WHOLE.saturating_sub(self.share) >> 4;
    }

    /// A response begins. If that ends a silence which was long for this backend, all that waited will be
    /// answered at once: the usual time rises once, not with each of them.
    #[inline(always)]
    pub fn speaks(&mut self, now: u64) {
        if self.may_be_silent(now) {
            let most = self.usual_ns.saturating_mul(2).saturating_add(STEP_NS);
            self.usual_ns = most.min(now.saturating_sub(self.asked_ns));
            self.resumed = units(now);
        }
        self.unanswered = 0;
    }

    /// Whether a silence has ended since a request came. One of more than a minute ago is forgotten.
    #[inline(always)]
    const fn stood_still(&self, began_ns: u64) -> bool {
        const MINUTE: u32 = 1 << 16;
        self.resumed != 0 && self.resumed.wrapping_sub(units(began_ns)) < MINUTE
    }

    /// A connection is given to the slot: one more that waits, if it owes answers for long. Says whether
    /// it does. Behind a listener whose queue is full SYNs vanish, and no request comes any more.
    #[must_use]
    #[inline(always)]
    pub const fn is_behind(&self, now: u64) -> bool {
        self.unanswered > 0 && self.is_overdue(now, self.usual_ns, self.doublings(now))
    }

    /// How often the limits are doubled now.
    #[must_use]
    #[inline(always)]
    pub const fn doublings(&self, now: u64) -> u32 {
        if now.saturating_sub(self.cleared_ns) > FORGIVEN_NS {
            return 0;
        }
        self.patience & 7
    }

    /// Whether it has said nothing for longer than is usual for it. Cheap; if it holds, ask
    /// [`Self::is_silent`].
    #[must_use]
    #[inline(always)]
    pub const fn may_be_silent(&self, now: u64) -> bool {
        let doublings = self.doublings(now);
        let rows = if doublings < MOST_ROWS {
            doublings
        } else {
            MOST_ROWS
        };
        self.unanswered > UNANSWERED << rows && self.is_overdue(now, self.usual_ns, doublings)
    }

    #[inline(always)]
    const fn is_overdue(&self, now: u64, usual_ns: u64, doublings: u32) -> bool {
        let silence = now.saturating_sub(self.asked_ns);
        let enough = SILENCE_NS << doublings;
        silence > enough && silence >> doublings > TIMES_USUAL.wrapping_mul(usual_ns)
    }

    /// Whether it has stopped answering while its peers go on: the sign of a frozen process, or of a
    /// listener behind which nobody accepts.
    #[must_use]
    #[inline(always)]
    pub const fn is_silent(&self, peers: &Peers, now: u64) -> bool {
        peers.answering > 0
            && self.unanswered > TIMES_PEERS.wrapping_mul(peers.unanswered)
            && self.is_overdue(now, peers.usual_ns, self.doublings(now))
    }

    /// Whether it has more server errors than happen. Cheap; if it holds, ask [`Self::is_failing`].
    #[must_use]
    #[inline(always)]
    pub const fn may_be_failing(&self, now: u64) -> bool {
        let doublings = self.doublings(now);
        self.errors > 0
            && (self.errors >= ERRORS << doublings || doublings == 0 && self.share >= HALF)
    }

    /// Whether it has far more server errors than its peers: than all of them together, or nothing but
    /// errors where one of them has almost none.
    #[must_use]
    #[inline(always)]
    pub const fn is_failing(&self, peers: &Peers, now: u64) -> bool {
        let many = self.errors >= MANY_ERRORS << self.doublings(now);
        let limit = if many { SOME } else { FEW };
        let fewer = peers.answering > 0 && peers.shares < limit.wrapping_mul(peers.answering);
        fewer || many && peers.well > 0
    }

    /// It is well after all: its limits are doubled, since it was suspected wrongly.
    #[inline(always)]
    pub fn clear(&mut self, now: u64, wrongly: bool) {
        let patience = self.doublings(now);
        self.why = 0;
        self.looked_ns = 0;
        self.unanswered = 0;
        self.errors = 0;
        self.share = 0;
        if wrongly {
            self.patience = if patience < MOST_PATIENCE {
                patience + 1
            } else {
                MOST_PATIENCE
            };
            self.cleared_ns = now;
        }
    }
}

/// A time in the units of [`Pulse::resumed`]; never 0.
#[inline(always)]
const fn units(nanos: u64) -> u32 {
    let units = (nanos >> 20) as u32;
    if units == 0 { 1 } else { units }
}

impl Peers {
    /// Looks at one of them. `since` is when the trouble began; `suspected` says whether it is itself
    /// passed by because of what is judged here.
    #[inline(always)]
    pub const fn see(&mut self, peer: &Pulse, since: u64, suspected: bool) {
        if peer.why != 0 {
            self.suspects += suspected as u32;
            return;
        }
        self.alive += 1;
        if peer.answered_ns > since {
            self.answering += 1;
            self.shares += peer.share;
            self.well += (peer.share < FEW) as u32;
        }
        if peer.unanswered > self.unanswered {
            self.unanswered = peer.unanswered;
        }
        if peer.usual_ns > self.usual_ns {
            self.usual_ns = peer.usual_ns;
        }
    }

    /// Whether one more of a ring of `len` may be passed by: never the last, and never more than a
    /// third of them by suspicion.
    #[must_use]
    #[inline(always)]
    pub const fn spare_one(&self, len: u32) -> bool {
        let third = if len < 6 { 1 } else { len / 3 };
        self.alive > 0 && self.suspects < third
    }
}

const _: () = assert!(size_of::<Pulse>() == 128);

#[cfg(test)]
mod tests;
