//! Outsiders at slot ports, past the balancer.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use orch_common::{
    counter::Reason,
    flow::{Flow, FlowKey, FlowState, Side},
    service::{Port, PortClass},
    slot::SlotKey,
};

use crate::{
    backend::Pick,
    create, ends, flow, half,
    header::Miss,
    maps,
    packet::{self, ETHERNET, Located},
    segment::Segment,
    verdict::Verdict,
};

/// A packet arrives at an interface that is not balanced.
#[inline(always)]
pub fn guarded(ctx: &TcContext) -> Verdict {
    let located = match packet::locate(ctx.skb.skb, ETHERNET) {
        Ok(located) => located,
        Err(miss) => return missed(ctx.skb.skb, miss),
    };
    let port = maps::port(located.destination_port);
    match port.class {
        PortClass::Slot => past_the_balancer(&located, &port),
        _ => Verdict::Untouched,
    }
}

/// A packet in which no TCP was found. Where it may be hidden from us but not from the host, it
/// may be a SYN to a slot.
#[inline(always)]
pub fn missed(skb: *mut __sk_buff, miss: Miss) -> Verdict {
    match (miss, ends::v6_addresses(skb, ETHERNET)) {
        (Miss::Hidden, Some((_, local))) if maps::is_local(&local) => {
            Verdict::Drop(Reason::SlotGuard)
        }
        _ => Verdict::Untouched,
    }
}

/// A packet for a slot's port: outsiders have no business there, unless the service says so. Then
/// the connection is remembered, so that a balanced one from the same client port avoids the slot.
#[inline(always)]
pub fn past_the_balancer(located: &Located, port: &Port) -> Verdict {
    let Some(key) = located.key() else {
        return Verdict::Untouched;
    };
    if port.exposed == 0 {
        return guard(located, &key, port);
    }
    match located.segment() {
        Some(segment) if !located.fragment && maps::is_local(&key.local) => {
            exposed(&key, port, &segment)
        }
        _ => Verdict::Untouched,
    }
}

/// Drops what would open a connection: a SYN, whatever flags it has beside, and every first
/// fragment, because the flags may be in the next one.
#[inline(always)]
fn guard(located: &Located, key: &FlowKey, port: &Port) -> Verdict {
    let segment = located.segment();
    let opens = match &segment {
        Some(segment) => segment.flags.asks(),
        None => false,
    };
    if !opens && !located.fragment || !maps::is_local(&key.local) {
        return Verdict::Untouched;
    }
    match segment {
        Some(segment) if is_balanced(key, port, &segment) => Verdict::Untouched,
        _ => Verdict::Drop(Reason::SlotGuard),
    }
}

/// Whether a SYN has been balanced already, at an interface that lies before this one: that of a
/// VLAN or a macvlan sees the packets of its parent again.
#[inline(always)]
fn is_balanced(key: &FlowKey, port: &Port, segment: &Segment) -> bool {
    let balanced = FlowKey {
        local_port: port.listen_port,
        ..*key
    };
    maps::flow(&balanced)
        .is_some_and(|flow| flow.backend_port == key.local_port && flow.isn == segment.seq)
}

/// A segment for a slot that outsiders may reach.
#[inline(always)]
fn exposed(key: &FlowKey, port: &Port, segment: &Segment) -> Verdict {
    if segment.flags.opens() {
        if is_balanced(key, port, segment) {
            return Verdict::Untouched;
        }
        return remember(key, slot_of(port), port, segment);
    }
    if let Some(direct) = maps::flow(key) {
        // Nothing is counted for it in a slot, so nothing has to be discounted.
        flow::advance(direct, Side::Client, segment);
    }
    Verdict::Untouched
}

/// The slot of a port that outsiders may reach, if its backend has an address of its own: then
/// nobody but us can take them there.
#[inline(always)]
pub fn forwarded(port: &Port) -> Option<SlotKey> {
    if port.exposed == 0 {
        return None;
    }
    let pick = Pick::of(slot_of(port))?;
    pick.is_direct().then_some(pick.key)
}

#[inline(always)]
fn slot_of(port: &Port) -> SlotKey {
    SlotKey {
        service: port.service,
        slot: u16::from(port.slot),
    }
}

/// Remembers a connection past the balancer. A balanced one of the same client port in the same
/// slot has the same four numbers at the backend: then this one cannot be.
#[inline(always)]
fn remember(key: &FlowKey, slot: SlotKey, port: &Port, segment: &Segment) -> Verdict {
    let balanced = FlowKey {
        local_port: port.listen_port,
        ..*key
    };
    let taken = maps::flow(&balanced)
        .is_some_and(|flow| flow.slot == slot.slot && !matches!(flow.state, FlowState::Closed));
    if taken {
        return Verdict::Drop(Reason::Collision);
    }
    if orch_past(key, slot.packed(), segment.seq) != 0 {
        return Verdict::Drop(Reason::TableFull);
    }
    let ticket = half::orch_queue(key) as u32;
    if let Some(flow) = maps::flow(key) {
        flow.acked = ticket;
    }
    Verdict::Untouched
}

/// Stores the flow of a connection past the balancer; `slot` is packed.
/// Checked once by itself (`choice`), for the sake of its stack; answers 0, or 1 if the table is full.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_past(key: *const FlowKey, slot: u32, seq: u32) -> i32 {
    // SAFETY: the verifier knows the key's size and lets nobody call with less; it may be null.
    let Some(key) = (unsafe { key.as_ref() }) else {
        return 1;
    };
    let key = *key;
    let slot = SlotKey::unpacked(slot);
    let flow = Flow {
        generation: maps::generation(slot),
        backend_port: key.local_port,
        ..create::begin(slot, seq)
    };
    i32::from(maps::insert_flow(&key, &flow).is_err())
}
