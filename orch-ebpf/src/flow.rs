//! Flows: found, created, advanced, ended.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use orch_common::{
    address,
    counter::Reason,
    flow::{self, Counting, Flags, Flow, FlowKey, FlowState, Side},
    slot::SlotKey,
};

use crate::{
    backend::{self, Pick},
    half, live, maps,
    packet::Located,
    redirect,
    segment::Segment,
    syn,
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

/// Gives a new connection to a slot, and stores its flow.
#[inline(always)]
pub fn create(
    located: &Located,
    key: &FlowKey,
    pick: &Pick,
    counting: Counting,
    segment: &Segment,
) -> Result<&'static mut Flow, Reason> {
    let how = counting as u32;
    let slot = u32::from(pick.key.service) << 16 | u32::from(pick.key.slot);
    if orch_create(key, slot, how, segment.seq) != 0 {
        return Err(Reason::TableFull);
    }
    let ticket = half::orch_queue(key) as u32;
    let flow = maps::flow(key).ok_or(Reason::TableFull)?;
    flow.ticket = ticket;
    if flow.is_direct() {
        if orch_bind(key) != 0 {
            live::discount(flow);
            maps::remove_flow(key);
            return Err(Reason::TableFull);
        }
        flow.uplink = redirect::orch_route(located.skb, key) as u32;
        syn::remember(located, key, segment);
    }
    Ok(flow)
}

/// Has replies of the flow's backend find it. Checked once by itself (`choice`), for the sake of its
/// stack; answers 0, or 1 if the table is full.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn orch_bind(key: *const FlowKey) -> i32 {
    // SAFETY: the verifier knows the key's size and lets nobody call with less; it may be null.
    let Some(key) = (unsafe { key.as_ref() }) else {
        return 1;
    };
    let key = *key;
    let stored = maps::flow(&key).map(|flow| maps::insert_reply(&flow.reply_key(&key), &key));
    i32::from(!matches!(stored, Some(Ok(()))))
}

/// The service is in the upper half of `slot`. Checked once by itself (`choice`); answers 0, or 1
/// if a table is full.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_create(key: *const FlowKey, slot: u32, counting: u32, seq: u32) -> i32 {
    let slot = SlotKey {
        service: (slot >> 16) as u16,
        slot: slot as u16,
    };
    // SAFETY: the verifier knows the key's size and lets nobody call with less; it may be null.
    let (Some(key), Some(pick)) = (unsafe { key.as_ref() }, Pick::of(slot)) else {
        return 1;
    };
    let key = *key;
    let counting = match counting {
        0 => Counting::ByPath,
        1 => Counting::All,
        _ => Counting::None,
    };
    i32::from(store(&key, &pick, counting, seq).is_none())
}

#[inline(always)]
fn store(key: &FlowKey, pick: &Pick, counting: Counting, seq: u32) -> Option<()> {
    let mut flow = begin(pick.key, seq);
    flow.live = 1;
    flow.counting = counting;
    flow.generation = pick.slot.generation;
    flow.backend_port = pick.slot.port;
    if pick.is_direct() {
        flow.address = pick.address(!address::is_v4(&key.client))?;
        flow.backend_port = pick.slot.backend_port;
        flow.ifindex = pick.slot.ifindex;
    }
    maps::insert_flow(key, &flow).ok()?;
    if let Some(slot) = maps::slot(&pick.key) {
        live::admit(slot);
    }
    Some(())
}

/// The flow of a connection that begins with this SYN, as far as the SYN says.
#[inline(always)]
pub fn begin(slot: SlotKey, seq: u32) -> Flow {
    Flow {
        // SAFETY: the helper has no preconditions.
        request_ns: unsafe { bpf_ktime_get_ns() },
        isn: seq,
        client_next: seq.wrapping_add(1),
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
        let reply = flow.reply_key(key);
        // A later connection of the same client port may own it by now.
        if maps::reply(&reply).is_some_and(|owner| *owner == *key) {
            maps::remove_reply(&reply);
        }
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
