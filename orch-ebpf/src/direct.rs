//! Outsiders at slot ports, past the balancer.

use aya_ebpf::programs::TcContext;
use orch_common::{
    counter::Reason,
    flow::{Flow, FlowKey, FlowState, Side},
    service::{Port, PortClass},
    slot::SlotKey,
};

use crate::{
    flow, maps,
    packet::{self, ETHERNET, Located},
    segment::Segment,
    verdict::Verdict,
};

/// A packet arrives at an interface that is not balanced.
#[inline(always)]
pub fn guarded(ctx: &TcContext) -> Verdict {
    let Some(located) = packet::locate(ctx.skb.skb, ETHERNET) else {
        return Verdict::Untouched;
    };
    let port = maps::port(located.destination_port);
    match port.class {
        PortClass::Slot => past_the_balancer(&located, &port),
        _ => Verdict::Untouched,
    }
}

/// A packet for a slot's port: outsiders have no business there, unless the service says so. Then
/// the connection is remembered, so that a balanced one from the same client port avoids the slot.
#[inline(always)]
pub fn past_the_balancer(located: &Located, port: &Port) -> Verdict {
    let (Some((client, local)), Some(segment)) = (located.addresses(), located.segment()) else {
        return Verdict::Untouched;
    };
    if !segment.flags.opens() && port.exposed == 0 || !maps::is_local(&local) {
        return Verdict::Untouched;
    }
    if port.exposed == 0 {
        return Verdict::Drop(Reason::SlotGuard);
    }
    let key = FlowKey {
        client,
        local,
        client_port: located.source_port,
        local_port: located.destination_port,
    };
    if segment.flags.opens() {
        return remember(&key, port, &segment);
    }
    if let Some(direct) = maps::flow(&key) {
        // Nothing is counted for it in a slot, so nothing has to be discounted.
        flow::advance(direct, Side::Client, &segment);
    }
    Verdict::Untouched
}

/// Remembers a connection past the balancer. A balanced one of the same client port in the same
/// slot has the same four numbers at the backend: then this one cannot be.
#[inline(always)]
fn remember(key: &FlowKey, port: &Port, segment: &Segment) -> Verdict {
    let slot = SlotKey {
        service: port.service,
        slot: u16::from(port.slot),
    };
    let balanced = FlowKey {
        local_port: port.listen_port,
        ..*key
    };
    let taken = maps::flow(&balanced)
        .is_some_and(|flow| flow.slot == slot.slot && !matches!(flow.state, FlowState::Closed));
    if taken {
        return Verdict::Drop(Reason::Collision);
    }
    let flow = Flow {
        generation: maps::generation(slot),
        isn: segment.seq,
        client_next: segment.seq.wrapping_add(1),
        seen: maps::epoch(),
        service: slot.service,
        slot: slot.slot,
        slot_port: key.local_port,
        ..Flow::default()
    };
    match maps::insert_flow(key, &flow) {
        Ok(()) => Verdict::Untouched,
        Err(_) => Verdict::Drop(Reason::TableFull),
    }
}
