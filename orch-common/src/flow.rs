//! Flows: one per TCP connection that the data plane knows, and the step that a segment makes it take.

use crate::{
    address::Address,
    http::{Exchange, is_new},
    slot::SlotKey,
};

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

/// Where a flow stands. RFC 9293, 3.3.2, as far as somebody between the two ends can see it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// The client's SYN has passed.
    #[default]
    SynSent = 0,
    /// The backend's SYN-ACK has passed.
    SynReceived = 1,
    /// The client has acknowledged it.
    Established = 2,
    /// The client has sent FIN.
    FinClient = 3,
    /// The backend has sent FIN.
    FinServer = 4,
    /// Both have sent FIN, or one has sent RST, or the backend is gone.
    Closed = 5,
}

/// Who sent a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that opened the connection.
    Client,
    /// The backend.
    Server,
}

/// TCP flags (RFC 9293, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// The sender has finished sending.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Resets the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;

    /// Whether all of `bits` are set.
    #[must_use]
    #[inline(always)]
    pub const fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }

    /// SYN without ACK: asks for a connection, if perhaps in a way that no end grants.
    #[must_use]
    #[inline(always)]
    pub const fn asks(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN
    }

    /// SYN without ACK, RST or FIN: the first segment of a connection.
    #[must_use]
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST | Self::FIN) == Self::SYN
    }
}

impl FlowState {
    /// The state after a segment with `flags` from `side`. A pure SYN from the client is not for
    /// this function: it starts a flow anew.
    #[must_use]
    #[inline(always)]
    pub const fn next(self, side: Side, flags: Flags) -> Self {
        if flags.has(Flags::RST) {
            return Self::Closed;
        }
        let fin = flags.has(Flags::FIN);
        match (self, side) {
            (Self::SynSent, Side::Server) if flags.has(Flags::SYN | Flags::ACK) => {
                Self::SynReceived
            }
            (Self::SynSent | Self::SynReceived | Self::Established, Side::Client) if fin => {
                Self::FinClient
            }
            (Self::SynSent | Self::SynReceived | Self::Established, Side::Server) if fin => {
                Self::FinServer
            }
            (Self::SynReceived, Side::Client) if flags.has(Flags::ACK) => Self::Established,
            (Self::FinClient, Side::Server) | (Self::FinServer, Side::Client) if fin => {
                Self::Closed
            }
            (state, _) => state,
        }
    }

    /// Sweeps without a segment after which a flow in this state is freed. A sweep comes every
    /// [`SWEEP_SECONDS`].
    #[must_use]
    #[inline(always)]
    pub const fn patience(self) -> u32 {
        match self {
            Self::SynSent | Self::SynReceived => 60 / SWEEP_SECONDS,
            // TCP keep-alive first probes an idle connection after two hours (RFC 9293, 3.8.4).
            Self::Established => 3 * 3600 / SWEEP_SECONDS,
            Self::FinClient | Self::FinServer => 900 / SWEEP_SECONDS,
            Self::Closed => 10 / SWEEP_SECONDS,
        }
    }
}

/// Seconds between two sweeps of the flow table.
pub const SWEEP_SECONDS: u32 = 2;

/// How far from the next expected sequence number a RST may lie and still close a flow. The ends
/// demand an exact match (RFC 5961, 3.2); in between, segments may have been lost before they came
/// by. A RST outside is forwarded and changes nothing, so that a blind one cannot end a flow.
const RESET_WINDOW: i32 = 1 << 20;

/// Whether a RST with sequence number `seq` is near enough to `expected` to be believed.
#[must_use]
#[inline(always)]
pub const fn reset_is_plausible(seq: u32, expected: u32) -> bool {
    let distance = seq.wrapping_sub(expected) as i32;
    distance >= -RESET_WINDOW && distance <= RESET_WINDOW
}

/// Largest window of TCP, in bytes (RFC 7323, 2.2): nobody may send more beyond what has been
/// acknowledged.
const LARGEST_WINDOW: u32 = 1 << 30;

/// What [`Flow::sent`] becomes when one side has sent its bytes up to `end`, and how many of them are new:
/// none of those of a leap that no window allows. `None` if all have been there before.
#[must_use]
#[inline(always)]
pub const fn reach(sent: u64, side: Side, end: u32) -> Option<(u64, u32)> {
    let (client, server) = (sent as u32, (sent >> 32) as u32);
    let (before, next) = match side {
        Side::Client => (client, (server as u64) << 32 | end as u64),
        Side::Server => (server, (end as u64) << 32 | client as u64),
    };
    if end == before || !is_new(end, before) {
        return None;
    }
    let new = end.wrapping_sub(before);
    Some((next, if new <= LARGEST_WINDOW { new } else { 0 }))
}

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
    /// The first bytes of a request whose method has come in pieces, least significant first.
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
    /// The sequence number at which the response in progress begins.
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
    /// Its place among the half-open flows: the how manieth flow it was; 0 if it has none.
    pub ticket: u32,
    /// The host's end of the backend's interface; 0 for delivery `port`.
    pub ifindex: u32,
    /// The interface by which replies go to the client, for delivery `direct`; for one of a socket, a
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

/// The places of half-open flows (SYN seen, handshake not complete): each new flow takes the next,
/// around and around.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Flows that have taken a place so far.
    pub tickets: u64,
    /// How many places there are: at most [`MAX_HALF_OPEN`](crate::layout::MAX_HALF_OPEN). 0 switches
    /// the bound off.
    pub places: u32,
    /// Always zero.
    pub pad: u32,
}

impl Queue {
    /// The places for a table of so many flows: a quarter of it, so that established flows have the
    /// rest whatever comes.
    #[must_use]
    pub const fn places(flows: u32) -> u32 {
        let quarter = flows / 4;
        if quarter < crate::layout::MAX_HALF_OPEN as u32 {
            quarter
        } else {
            crate::layout::MAX_HALF_OPEN as u32
        }
    }
}

const _: () = assert!(size_of::<Queue>() == 16);

/// What a sweep has found of a slot: the flows that are there, beside the counts that say how many there
/// should be.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// The number of the sweep ([`crate::layout::map::EPOCH`]); what an earlier one has found is over.
    pub sweep: u32,
    /// Flows that count as live in the slot, of its backend of now.
    pub live: u32,
    /// Those of them whose request waits for a response.
    pub waiting: u32,
    /// Always zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<Census>() == 16);

/// Room for keys that do not fit on the stack of a kernel program.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    /// The connection.
    pub key: FlowKey,
    /// Another one that may be in its way.
    pub other: FlowKey,
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

/// A balanced socket of this host.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Socket {
    /// Its connection.
    pub flow: Flow,
    /// The address its owner asked for, which `getpeername` goes on showing.
    pub asked: Address,
    /// The port its owner asked for.
    pub asked_port: u16,
    /// Its own port, once it connects to a backend's own address.
    pub client_port: u16,
    /// Always zero.
    pub pad: [u16; 2],
    /// Its own address, likewise.
    pub client: Address,
}

impl Socket {
    /// The key of the flow in which is noted what goes on in its connection to a backend's own address
    /// ([`Flow::is_of_socket`]).
    #[must_use]
    #[inline(always)]
    pub const fn key(&self) -> FlowKey {
        FlowKey {
            client: self.client,
            local: self.flow.address,
            client_port: self.client_port,
            local_port: self.flow.backend_port,
        }
    }
}

const _: () = assert!(size_of::<FlowKey>() == 36);
const _: () = assert!(size_of::<Flow>() == 88);
const _: () = assert!(
    core::mem::offset_of!(Flow, client_next).is_multiple_of(8)
        && core::mem::offset_of!(Flow, server_next) == core::mem::offset_of!(Flow, client_next) + 4
);
const _: () = assert!(size_of::<Socket>() == 128);

#[cfg(test)]
mod tests {
    use super::*;

    const SYN_ACK: u8 = Flags::SYN | Flags::ACK;
    const FIN_ACK: u8 = Flags::FIN | Flags::ACK;

    fn walk(segments: &[(Side, u8)]) -> FlowState {
        segments
            .iter()
            .fold(FlowState::SynSent, |state, &(side, flags)| {
                state.next(side, Flags(flags))
            })
    }

    #[test]
    fn a_connection_opens_and_closes() {
        use Side::{Client, Server};
        let open = [(Server, SYN_ACK), (Client, Flags::ACK)];
        assert_eq!(walk(&open[..1]), FlowState::SynReceived);
        assert_eq!(walk(&open), FlowState::Established);
        let ends = [
            ([(Client, FIN_ACK), (Server, FIN_ACK)], FlowState::FinClient),
            ([(Server, FIN_ACK), (Client, FIN_ACK)], FlowState::FinServer),
        ];
        for (fins, half) in ends {
            let mut segments = open.to_vec();
            segments.push(fins[0]);
            assert_eq!(walk(&segments), half);
            segments.push((fins[1].0, Flags::ACK));
            assert_eq!(walk(&segments), half, "an ACK is no FIN");
            segments.push(fins[1]);
            assert_eq!(walk(&segments), FlowState::Closed);
            segments.push((Client, Flags::ACK));
            assert_eq!(walk(&segments), FlowState::Closed);
        }
    }

    #[test]
    fn a_reset_closes_in_every_state() {
        use FlowState::{Closed, Established, FinClient, FinServer, SynReceived, SynSent};
        for state in [
            SynSent,
            SynReceived,
            Established,
            FinClient,
            FinServer,
            Closed,
        ] {
            for side in [Side::Client, Side::Server] {
                assert_eq!(state.next(side, Flags(Flags::RST)), Closed);
                assert_eq!(state.next(side, Flags(Flags::RST | Flags::ACK)), Closed);
            }
        }
    }

    #[test]
    fn only_a_bare_syn_opens() {
        assert!(Flags(Flags::SYN).opens());
        assert!(Flags(Flags::SYN | 0xc0).opens(), "ECN set-up (RFC 3168)");
        for bits in [
            SYN_ACK,
            Flags::SYN | Flags::RST,
            Flags::SYN | Flags::FIN,
            Flags::ACK,
        ] {
            assert!(!Flags(bits).opens());
        }
        assert!(Flags(Flags::SYN | Flags::FIN).asks());
        assert!(!Flags(SYN_ACK).asks());
    }

    #[test]
    fn a_byte_counts_once_and_a_wild_leap_not_at_all() {
        let word = |client: u32, server: u32| u64::from(server) << 32 | u64::from(client);
        let rows = [
            (Side::Client, 1000, None),
            (Side::Client, 900, None),
            (Side::Client, 1016, Some((word(1016, u32::MAX), 16))),
            (Side::Server, u32::MAX, None),
            (Side::Server, 15, Some((word(1000, 15), 16))),
            (
                Side::Client,
                1000 + (1 << 30),
                Some((word(1000 + (1 << 30), u32::MAX), 1 << 30)),
            ),
            (
                Side::Client,
                1001 + (1 << 30),
                Some((word(1001 + (1 << 30), u32::MAX), 0)),
            ),
        ];
        for (side, end, expected) in rows {
            assert_eq!(
                reach(word(1000, u32::MAX), side, end),
                expected,
                "{side:?} {end}"
            );
        }
    }

    #[test]
    fn a_blind_reset_is_not_believed() {
        assert!(reset_is_plausible(1000, 1000));
        assert!(reset_is_plausible(5, u32::MAX - 5));
        assert!(!reset_is_plausible(0x4000_0000, 1000));
        assert!(!reset_is_plausible(0x8000_0000, 0));
    }
}
