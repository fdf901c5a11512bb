//! Flows: found, created, advanced, ended.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use orch_common::{
    counter::Reason,
    flow::{self, Flags, Flow, FlowKey, FlowState, Side},
    service::Service,
};

use crate::{
    backend::{self, Pick},
    maps,
    segment::Segment,
};

/// A SYN that comes again so much later, with no answer to the first, meets a silent backend: the
/// first retransmission comes after a second (RFC 6298, 2.1).
const SILENCE_NS: u64 = 800_000_000;
/// Picks that may collide with connections past the balancer before a SYN is dropped.
const TRIES: u32 = 4;

/// What a SYN means for the flow of its addresses.
pub enum Opening {
    /// It came again; its flow keeps its slot.
    Again,
    /// It starts a connection. The flow, if there is one, is over.
    New,
}

/// Judges a SYN that finds a flow. Another initial sequence number is another connection.
#[inline(always)]
pub fn opening(flow: &Flow, segment: &Segment) -> Opening {
    let same = flow.isn == segment.seq && flow.state as u8 != FlowState::Closed as u8;
    if !same || !backend::is_current(flow) {
        return Opening::New;
    }
    // SAFETY: the helper has no preconditions.
    let age = unsafe { bpf_ktime_get_ns() }.saturating_sub(flow.request_ns);
    if matches!(flow.state, FlowState::SynSent) && age > SILENCE_NS {
        return Opening::New;
    }
    Opening::Again
}

/// Gives a new connection to a slot and stores its flow. Answers the slot's port.
#[inline(always)]
pub fn create(
    key: &FlowKey,
    index: u32,
    service: &Service,
    segment: &Segment,
) -> Result<u16, Reason> {
    for _ in 0..TRIES {
        let pick = backend::pick(index, service).ok_or(Reason::NoBackend)?;
        if service.expose_slots == 1 && is_taken(key, pick.port) {
            continue;
        }
        let flow = begin(&pick, service, segment);
        maps::insert_flow(key, &flow).map_err(|_| Reason::TableFull)?;
        backend::admit(pick.slot);
        return Ok(pick.port);
    }
    Err(Reason::Collision)
}

/// Whether the same client port is in use for a connection past the balancer to this slot port:
/// at the backend the two would be one.
#[inline(always)]
fn is_taken(key: &FlowKey, slot_port: u16) -> bool {
    let direct = FlowKey {
        local_port: slot_port,
        ..*key
    };
    maps::flow(&direct).is_some_and(|flow| !matches!(flow.state, FlowState::Closed))
}

/// The flow of a connection that begins with this SYN.
#[inline(always)]
pub fn begin(pick: &Pick, service: &Service, segment: &Segment) -> Flow {
    let next = segment.seq.wrapping_add(1);
    Flow {
        live: 1,
        // SAFETY: the helper has no preconditions.
        request_ns: unsafe { bpf_ktime_get_ns() },
        generation: pick.generation,
        isn: segment.seq,
        client_next: next,
        seen: maps::epoch(),
        service: pick.key.service,
        slot: pick.key.slot,
        slot_port: pick.port,
        count_all: service.count_all,
        ..Flow::default()
    }
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
    if flags.has(Flags::SYN | Flags::ACK) && matches!(side, Side::Server) {
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
        (_, Side::Client) => flow::reset_is_plausible(seq, flow.client_next),
        (_, Side::Server) => flow::reset_is_plausible(seq, flow.server_next),
    }
}

/// Whether a reply belongs to this flow: a SYN-ACK acknowledges the flow's own SYN and the data
/// that came with it, and a reset of the SYN does as well.
#[inline(always)]
pub fn owns_reply(flow: &Flow, segment: &Segment) -> bool {
    let answers_syn = segment.flags.has(Flags::SYN)
        || (segment.flags.has(Flags::RST | Flags::ACK) && matches!(flow.state, FlowState::SynSent));
    let sent = flow.client_next.wrapping_sub(flow.isn);
    !answers_syn || segment.ack.wrapping_sub(flow.isn).wrapping_sub(1) < sent
}
