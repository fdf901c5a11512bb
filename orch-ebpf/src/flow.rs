//! Flows: what a segment means for them.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use orch_common::{
    counter::{Failure, Reason},
    flow::{Flags, Flow, FlowState, Side, mark},
    http::Exchange,
};

use crate::{backend, belief, exchange, live, maps, segment::Segment, tally};

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
    let open = is_open(flow);
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

/// Whether something is under way: it is established, or its client has finished and may wait for an answer.
#[inline(always)]
pub fn is_open(flow: &Flow) -> bool {
    matches!(flow.state, FlowState::Established | FlowState::FinClient)
}

/// Takes the step that a segment makes a flow take, and says whether it has just closed.
#[inline(always)]
pub fn advance(flow: &mut Flow, side: Side, segment: &Segment) -> bool {
    flow.seen = maps::epoch();
    let flags = segment.flags;
    let before = flow.state;
    if matches!(side, Side::Server)
        && flags.0 & (Flags::ACK | Flags::RST) == Flags::ACK
        && !before.is_half_open()
    {
        flow.acked = segment.ack;
        if exchange::is_followed(flow) {
            tally::acknowledged(flow);
        }
    }
    if flags.0 & (Flags::FIN | Flags::SYN | Flags::RST) == 0
        && !matches!(before, FlowState::SynReceived)
    {
        if matches!(before, FlowState::Closed) && belief::ends_all(flow, side, segment) {
            flow.set(mark::LINGERS, false);
        }
        return false;
    }
    let forged = if flags.has(Flags::RST) {
        !belief::is_believed(flow, side, segment.seq)
    } else {
        matches!(side, Side::Client) && !belief::may_step(flow, segment)
    };
    if forged {
        return false;
    }
    // One that comes again must not set back what has been seen since.
    if flags.has(Flags::SYN | Flags::ACK)
        && matches!((before, side), (FlowState::SynSent, Side::Server))
    {
        flow.server_next = segment.seq.wrapping_add(1);
    }
    flow.state = before.next(side, flags);
    if before.is_half_open() && !flow.state.is_half_open() {
        // Whether it has taken more, its next segment says.
        flow.acked = flow.isn.wrapping_add(1);
    }
    let closes = matches!(flow.state, FlowState::Closed) && !matches!(before, FlowState::Closed);
    if closes && !flags.has(Flags::RST) && !belief::ends_all(flow, side, segment) {
        flow.set(mark::LINGERS, true);
    }
    closes
}

/// Begins anew with the SYN that its backend has just answered: it has lost the connection that was open there.
#[inline(always)]
pub fn begin_anew(flow: &mut Flow, segment: &Segment) {
    tally::cut(flow, Failure::Aborted);
    live::discount(flow);
    flow.isn = segment.ack.wrapping_sub(1);
    flow.client_next = segment.ack;
    flow.acked = 0;
    flow.state = FlowState::SynSent;
    flow.exchange = Exchange::Idle;
    flow.method_len = 0;
    flow.marks &= mark::ELSEWHERE;
    flow.live = 1;
    if let Some(slot) = maps::slot(&flow.slot_key()) {
        live::admit(slot);
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
