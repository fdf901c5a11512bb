//! Flows: one per TCP connection that the data plane knows.

mod census;
mod half_open;
mod sequence;
mod socket;
mod state;

pub use self::{
    census::Census,
    half_open::{Queue, Scratch},
    sequence::{FORGERY_WINDOW, is_in_reach, reach, unacknowledged},
    socket::Socket,
    state::{Flags, FlowState, HANDSHAKE_SWEEPS, LINGER_SWEEPS, SWEEP_SECONDS, Side},
};
use crate::{address::Address, http::Exchange, slot::SlotKey};

/// Key of a flow: the connection as its client sees it. Aligned so that the kernel programs copy
/// and hash it by words.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The client.
    pub client: Address,
    /// The address of this host that the client connected to; for a socket of this host, the backend's
    /// own ([`Flow::is_of_socket`]).
    pub local: Address,
    /// The client's port.
    pub client_port: u16,
    /// The service's port; for a connection past the balancer, the slot's; for a socket of this host,
    /// the backend's.
    pub local_port: u16,
}

/// Set in [`Flow::method`] where that is no part of a method, which is ASCII.
const BEYOND: u64 = 1 << 63;
/// Most bytes beyond a gap: more than Linux lets wait by default (`tcp_rmem` in tcp(7): 6 MiB). What lies further ahead
/// its backend does not take.
const MOST_BEYOND: u32 = 8 << 20;

/// What the data plane knows of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    /// 1 while the flow is counted in its slot's `live`; for one of a socket ([`Self::is_of_socket`]),
    /// while there is that socket. Changed by atomic exchange alone, so that
    /// a flow is counted and discounted exactly once whichever CPU sees its end.
    pub live: u64,
    /// When the request in flight began, in nanoseconds of the monotonic clock; before the first
    /// one, when the SYN came.
    pub request_ns: u64,
    /// The first bytes of a request whose method has come in pieces ([`Exchange::Method`]), least significant
    /// first; else, what [`Self::beyond`] says.
    pub method: u64,
    /// Generation of the backend it was given to.
    pub generation: u32,
    /// The client's initial sequence number.
    pub isn: u32,
    /// The sequence number that the client's next new byte will have. One aligned word with the next
    /// field, so that each goes on by atomic exchange of both and no byte is counted twice.
    pub client_next: u32,
    /// The sequence number that the backend's next new byte will have.
    pub server_next: u32,
    /// The sequence number at which the response in progress begins; while there is none, where what the
    /// client has sent is missing ([`mark::HOLE`]).
    pub response_seq: u32,
    /// The sweep before which it last saw a segment.
    pub seen: u32,
    /// Index of the service.
    pub service: u16,
    /// Number of the slot.
    pub slot: u16,
    /// The port that its packets have at the backend's end: the slot's for delivery `port`, the
    /// backend's own for delivery `direct`.
    pub backend_port: u16,
    /// Where the connection stands.
    pub state: FlowState,
    /// Where the exchange of request and response stands.
    pub exchange: Exchange,
    /// What else is known of it: bits of [`mark`].
    pub marks: u8,
    /// Which requests count.
    pub counting: Counting,
    /// How many bytes of `method` have come.
    pub method_len: u8,
    /// How many more slots it was given to because one before did not answer; for one of a socket, how
    /// many refusals were kept from it.
    pub moves: u8,
    /// Up to where its backend has acknowledged what the client sends. Until the handshake is complete, its place
    /// among the half-open flows: the how manieth flow it was; 0 if it has none.
    pub acked: u32,
    /// The host's end of the backend's interface; 0 for delivery `port`.
    pub ifindex: u32,
    /// The interface by which replies go to the client, for delivery `direct`: where the route led when
    /// it was last looked up, which is at the first packet of every sweep's time. For one of a socket, a
    /// number that a later connection between the same ends does not have.
    pub uplink: u32,
    /// The backend's own address, for delivery `direct`.
    pub address: Address,
}

/// Bits of [`Flow::marks`].
pub mod mark {
    /// The last request is one that counts.
    pub const COUNTED: u8 = 1;
    /// The last request is among those in flight of its slot. Set and cleared with that count.
    pub const WAITS: u8 = 2;
    /// The client is a socket of this host.
    pub const LOCAL: u8 = 4;
    /// Its SYN was sent again without an answer, which has been counted.
    pub const REPEATED: u8 = 8;
    /// It was counted as a request without an answer when it came: its first request is not.
    pub const GIVEN: u8 = 16;
    /// What the client has sent from `response_seq` on is missing: it may be the beginning of a request.
    pub const HOLE: u8 = 32;
    /// Its packets come by another interface than the one by which replies go.
    pub const ELSEWHERE: u8 = 64;
    /// Both have sent FIN, and the client has not acknowledged the backend's yet: it may come again.
    pub const LINGERS: u8 = 128;
}

impl Flow {
    /// Whether it has all of these marks.
    #[must_use]
    #[inline(always)]
    pub const fn is(&self, marks: u8) -> bool {
        self.marks & marks == marks
    }

    /// Sets marks, or takes them away.
    #[inline(always)]
    pub const fn set(&mut self, marks: u8, on: bool) {
        if on {
            self.marks |= marks;
        } else {
            self.marks &= !marks;
        }
    }

    /// Sweeps without a segment after which it is freed.
    #[must_use]
    #[inline(always)]
    pub const fn patience(&self) -> u32 {
        if self.is(mark::LINGERS) && matches!(self.state, FlowState::Closed) {
            LINGER_SWEEPS
        } else {
            self.state.patience()
        }
    }

    /// How far both sides have sent, as one word: the client in its lower half.
    #[must_use]
    #[inline(always)]
    pub const fn sent(&self) -> u64 {
        (self.server_next as u64) << 32 | self.client_next as u64
    }

    /// Notes that one side has sent its bytes up to `end`, where nobody else does at the same time.
    pub const fn reach(&mut self, side: Side, end: u32) {
        if let Some((sent, _)) = reach(self.sent(), side, end) {
            self.client_next = sent as u32;
            self.server_next = (sent >> 32) as u32;
        }
    }

    /// Up to where the client's bytes have come by beyond some that have not. There its backend believes a
    /// RST, if it tells its client of gaps (RFC 2018): so does Linux (`tcp_validate_incoming` in the kernel's
    /// `net/ipv4/tcp_input.c`), since a client that gives up has mostly said no more than that.
    #[must_use]
    #[inline(always)]
    pub const fn beyond(&self) -> Option<u32> {
        let end = self.method as u32;
        let is_there = self.method & BEYOND != 0
            && end != self.client_next
            && is_in_reach(end, self.client_next, MOST_BEYOND);
        if is_there { Some(end) } else { None }
    }

    /// Notes that bytes of the client that end here have come by beyond some that have not.
    #[inline(always)]
    pub const fn came_beyond(&mut self, end: u32) {
        let known = match self.beyond() {
            Some(known) => known,
            None => self.client_next,
        };
        let is_further = end != known && is_in_reach(end, known, MOST_BEYOND);
        let fits = is_in_reach(end, self.client_next, MOST_BEYOND);
        if is_further && fits && !matches!(self.exchange, Exchange::Method) {
            self.method = BEYOND | end as u64;
        }
    }

    /// The slot that it was given to.
    #[must_use]
    #[inline(always)]
    pub const fn slot_key(&self) -> SlotKey {
        SlotKey {
            service: self.service,
            slot: self.slot,
        }
    }

    /// Whether its packets go to the backend's own address.
    #[must_use]
    #[inline(always)]
    pub const fn is_direct(&self) -> bool {
        self.ifindex != 0
    }

    /// Whether it is what goes on in the connection of a socket of this host to a backend's own
    /// address: that is in the key, no packet of it is changed, and what its slot counts is the
    /// socket. `live` says whether there is one.
    #[must_use]
    #[inline(always)]
    pub const fn is_of_socket(&self) -> bool {
        self.is(mark::LOCAL) && self.is_direct()
    }

    /// The connection as its backend sees it: the key by which replies find the flow.
    #[must_use]
    #[inline(always)]
    pub const fn reply_key(&self, key: &FlowKey) -> FlowKey {
        FlowKey {
            client: key.client,
            local: self.address,
            client_port: key.client_port,
            local_port: self.backend_port,
        }
    }
}

/// Which requests of a connection count.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counting {
    /// Those that the service's path rules say.
    #[default]
    ByPath = 0,
    /// All: the service has no rule but `/`.
    All = 1,
    /// None: the connection went to a slot's port past the balancer.
    None = 2,
}

const _: () = assert!(size_of::<FlowKey>() == 36);
const _: () = assert!(size_of::<Flow>() == 88);
const _: () = assert!(
    core::mem::offset_of!(Flow, client_next).is_multiple_of(8)
        && core::mem::offset_of!(Flow, server_next) == core::mem::offset_of!(Flow, client_next) + 4
);
