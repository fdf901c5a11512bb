//! Flows: what a segment means for them.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use orch_common::{
    counter::Reason,
    flow::{self, Flags, Flow, FlowState, Side, mark},
};

use crate::{backend, exchange, maps, segment::Segment};

/// A SYN that comes again so much later, with no answer to the first, meets a silent backend: the
/// first retransmission comes after a second (RFC 6298, 2.1).
const SILENCE_NS: u64 = 800_000_000;

/// What a SYN means for the flow of its addresses.
pub enum Opening {
    /// It came again; its flow keeps its slot.
    Again,
    /// It starts a connection. The flow of an earlier one is over.
    New,
    /// It came again because its backend is silent: another slot gets it.
    Moved,
}

impl Opening {
    /// What became of the SYN.
    #[inline(always)]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Again => Reason::SynAgain,
            Self::New => Reason::Reopened,
            Self::Moved => Reason::Moved,
        }
    }
}

/// Judges a SYN that finds a flow. Another initial sequence number is another connection, but not while one is open: whoever
/// knows its ends could cut it. Its backend answers with a challenge (RFC 5961, 4), which a client
/// that has it no more answers with RST; and a backend that has it no more is found out by its SYN-ACK (`reply`).
#[inline(always)]
pub fn opening(flow: &Flow, segment: &Segment) -> Opening {
    let same = flow.isn == segment.seq && flow.state as u8 != FlowState::Closed as u8;
    let open = matches!(flow.state, FlowState::Established);
    if !(same || open) || !backend::is_current(flow) {
        return Opening::New;
    }
    // SAFETY: the helper has no preconditions.
    let age = unsafe { bpf_ktime_get_ns() }.saturating_sub(flow.request_ns);
    if matches!(flow.state, FlowState::SynSent) && age > SILENCE_NS {
        return Opening::Moved;
    }
    Opening::Again
}

/// Takes the step that a segment makes a flow take, and says whether it has just closed.
#[inline(always)]
pub fn advance(flow: &mut Flow, side: Side, segment: &Segment) -> bool {
    flow.seen = maps::epoch();
    let flags = segment.flags;
    if flags.0 & (Flags::FIN | Flags::SYN | Flags::RST) == 0
        && !matches!(flow.state, FlowState::SynReceived)
    {
        return false;
    }
    if flags.has(Flags::RST) && !is_believed(flow, side, segment.seq) {
        return false;
    }
    // One that comes again must not set back what has been seen since.
    if flags.has(Flags::SYN | Flags::ACK)
        && matches!((flow.state, side), (FlowState::SynSent, Side::Server))
    {
        flow.server_next = segment.seq.wrapping_add(1);
    }
    let before = flow.state;
    flow.state = before.next(side, flags);
    matches!(flow.state, FlowState::Closed) && !matches!(before, FlowState::Closed)
}

/// Whether a RST ends the flow. Before the backend's SYN-ACK, a client answers with RST what an
/// earlier connection of its port has left at the backend, and then sends its SYN again: that RST
/// has the earlier connection's numbers, and the SYN must find its slot.
#[inline(always)]
fn is_believed(flow: &Flow, side: Side, seq: u32) -> bool {
    match (flow.state, side) {
        (FlowState::SynSent, Side::Client) => seq == flow.client_next,
        (FlowState::SynSent, Side::Server) => true,
        // All its bytes were seen: as the backend does (RFC 5961, 3.2).
        (FlowState::Established, Side::Client)
            if exchange::is_followed(flow) && !flow.is(mark::HOLE) =>
        {
            seq == flow.client_next
        }
        (_, Side::Client) => flow::reset_is_plausible(seq, flow.client_next),
        (_, Side::Server) => flow::reset_is_plausible(seq, flow.server_next),
    }
}

/// Whether a reply belongs to this flow: a SYN-ACK acknowledges the flow's own SYN and the data
/// that came with it, and a reset of the SYN does as well (RFC 9293, 3.10.7.3: any other is not for
/// the SYN, and the client drops it).
#[inline(always)]
pub fn owns_reply(flow: &Flow, segment: &Segment) -> bool {
    let refuses = segment.flags.has(Flags::RST) && matches!(flow.state, FlowState::SynSent);
    let is_answer = segment.flags.has(Flags::SYN) || refuses;
    !is_answer || segment.flags.has(Flags::ACK) && acknowledges_syn(flow, segment)
}

/// Whether this is the first answer of a backend to the flow's SYN, taking or refusing it.
#[inline(always)]
pub fn answers_syn(flow: &Flow, segment: &Segment) -> bool {
    (segment.flags.has(Flags::SYN | Flags::ACK) || segment.flags.has(Flags::RST | Flags::ACK))
        && acknowledges_syn(flow, segment)
}

#[inline(always)]
fn acknowledges_syn(flow: &Flow, segment: &Segment) -> bool {
    let sent = flow.client_next.wrapping_sub(flow.isn);
    segment.ack.wrapping_sub(flow.isn).wrapping_sub(1) < sent
}
