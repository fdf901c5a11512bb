//! What backends answer clients outside: TC egress of the uplinks.

use aya_ebpf::programs::TcContext;
use orch_common::{
    counter::Reason,
    event::{Event, EventKind},
    flow::{Flags, Flow, FlowKey, FlowState, Side},
    service::PortClass,
    slot::SlotKey,
};

use crate::{
    backend, exchange, flow, maps,
    packet::{self, ETHERNET, Located},
    rewrite,
    segment::Segment,
    verdict::Verdict,
};

/// A packet leaves by an uplink.
#[inline(always)]
pub fn leaving(ctx: &TcContext) -> Verdict {
    let Ok(located) = packet::locate(ctx.skb.skb, ETHERNET) else {
        return Verdict::Untouched;
    };
    let port = maps::port(located.source_port);
    if !matches!(port.class, PortClass::Slot) {
        return Verdict::Untouched;
    }
    let (Some((local, client)), Some(segment)) = (located.addresses(), located.segment()) else {
        return Verdict::Untouched;
    };
    let key = FlowKey {
        client,
        local,
        client_port: located.destination_port,
        local_port: port.listen_port,
    };
    match maps::flow(&key) {
        Some(flow) if flow.slot_port == located.source_port => {
            reply(ctx, &located, &segment, &key, flow)
        }
        _ => Verdict::Untouched,
    }
}

/// A segment of the backend.
#[inline(always)]
fn reply(
    ctx: &TcContext,
    located: &Located,
    segment: &Segment,
    key: &FlowKey,
    flow: &mut Flow,
) -> Verdict {
    if !flow::owns_reply(flow, segment) {
        if matches!(flow.state, FlowState::Closed) {
            maps::remove_flow(key);
        }
        return Verdict::Pass(Reason::Stale);
    }
    if segment.flags.has(Flags::RST) && matches!(flow.state, FlowState::SynSent) {
        maps::tell(&Event {
            kind: EventKind::Refused,
            slot: SlotKey {
                service: flow.service,
                slot: flow.slot,
            },
            generation: flow.generation,
        });
    }
    if flow::advance(flow, Side::Server, segment) {
        backend::discount(flow);
    }
    exchange::from_server(flow, segment);
    if rewrite::source(ctx.skb.skb, located, key.local_port) {
        Verdict::Pass(Reason::Reply)
    } else {
        Verdict::Drop(Reason::Malformed)
    }
}
