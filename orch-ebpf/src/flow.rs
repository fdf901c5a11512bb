//! Flows: found, created, advanced, ended.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use orch_common::{
    counter::Reason,
    flow::{self, Counting, Flags, Flow, FlowKey, FlowState, Side},
    service::Service,
    slot::SlotKey,
};

use crate::{
    backend::{self, Pick},
    maps,
    packet::Located,
    redirect,
    segment::Segment,
};

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
        return Opening::Moved;
    }
    Opening::Again
}

/// Gives a new connection to the slot whose turn it is, and stores its flow.
#[inline(always)]
pub fn create(
    located: &Located,
    key: &FlowKey,
    index: u32,
    service: &Service,
    segment: &Segment,
) -> Result<&'static mut Flow, Reason> {
    let pick = backend::choose(index, service, |pick| {
        let past = service.expose_slots == 1 && !pick.is_direct();
        if past && is_taken(key, pick.slot.port) {
            return Err(Reason::Collision);
        }
        suits(located, key, pick)
    })?;
    give(located, key, &pick, service.counting, segment)
}

/// Whether a connection can be given to a slot for delivery `direct`: its backend has an address of
/// the client's family, its interface is there, and no other connection has the same four numbers
/// at the backend, as it would if one client port were in use to two addresses of this host.
#[inline(always)]
pub fn suits(located: &Located, key: &FlowKey, pick: &Pick) -> Result<(), Reason> {
    if !pick.is_direct() {
        return Ok(());
    }
    let address = pick.address(located.v6).ok_or(Reason::NoFamily)?;
    if !redirect::exists(located, pick.slot.ifindex) {
        return Err(Reason::PassedBy);
    }
    let reply = FlowKey {
        local: address,
        local_port: pick.slot.backend_port,
        ..*key
    };
    match maps::reply(&reply) {
        Some(other) if *other != *key && is_live(other) => Err(Reason::Collision),
        _ => Ok(()),
    }
}

#[inline(always)]
fn is_live(key: &FlowKey) -> bool {
    maps::flow(key).is_some_and(|flow| !matches!(flow.state, FlowState::Closed))
}

/// Whether the same client port is in use for a connection past the balancer to this slot port:
/// at the backend the two would be one.
#[inline(always)]
fn is_taken(key: &FlowKey, slot_port: u16) -> bool {
    is_live(&FlowKey {
        local_port: slot_port,
        ..*key
    })
}

/// Stores the flow of a connection to this slot.
#[inline(always)]
pub fn give(
    located: &Located,
    key: &FlowKey,
    pick: &Pick,
    counting: Counting,
    segment: &Segment,
) -> Result<&'static mut Flow, Reason> {
    let mut flow = begin(pick.key, segment);
    flow.live = 1;
    flow.counting = counting;
    flow.generation = pick.slot.generation;
    flow.backend_port = pick.slot.port;
    if pick.is_direct() {
        flow.address = pick.address(located.v6).ok_or(Reason::NoFamily)?;
        flow.backend_port = pick.slot.backend_port;
        flow.ifindex = pick.slot.ifindex;
        flow.uplink = redirect::route(located, key);
        maps::insert_reply(&flow.reply_key(key), key).map_err(|_| Reason::TableFull)?;
    }
    maps::insert_flow(key, &flow).map_err(|_| Reason::TableFull)?;
    if let Some(slot) = maps::slot(&pick.key) {
        backend::admit(slot);
    }
    maps::flow(key).ok_or(Reason::TableFull)
}

/// The flow of a connection that begins with this SYN, as far as the SYN says.
#[inline(always)]
pub fn begin(slot: SlotKey, segment: &Segment) -> Flow {
    Flow {
        // SAFETY: the helper has no preconditions.
        request_ns: unsafe { bpf_ktime_get_ns() },
        isn: segment.seq,
        client_next: segment.seq.wrapping_add(1),
        seen: maps::epoch(),
        service: slot.service,
        slot: slot.slot,
        ..Flow::default()
    }
}

/// Forgets a flow, and where its replies belong.
#[inline(always)]
pub fn forget(key: &FlowKey, flow: &Flow) {
    if flow.is_direct() {
        maps::remove_reply(&flow.reply_key(key));
    }
    maps::remove_flow(key);
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
    let is_answer = segment.flags.has(Flags::SYN)
        || (segment.flags.has(Flags::RST | Flags::ACK) && matches!(flow.state, FlowState::SynSent));
    !is_answer || acknowledges_syn(flow, segment)
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
