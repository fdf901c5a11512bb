//! What clients from outside send: TC ingress of the uplinks.

use aya_ebpf::programs::TcContext;
use orch_common::{
    counter::Reason,
    flow::{Flow, FlowKey, FlowState, Side},
    service::PortClass,
};

use crate::{
    backend, direct, exchange, flow, maps,
    packet::{self, ETHERNET, Located},
    redirect, rewrite,
    segment::Segment,
    service,
    verdict::Verdict,
};

/// A packet arrives at an uplink.
#[inline(always)]
pub fn arriving(ctx: &TcContext) -> Verdict {
    let located = match packet::locate(ctx.skb.skb, ETHERNET) {
        Ok(located) => located,
        Err(miss) => return direct::missed(ctx.skb.skb, miss),
    };
    let port = maps::port(located.destination_port);
    match port.class {
        PortClass::Other => Verdict::Untouched,
        PortClass::Slot => direct::past_the_balancer(&located, &port),
        PortClass::Service => balance(&located),
    }
}

/// A packet for a service's port.
#[inline(always)]
fn balance(located: &Located) -> Verdict {
    let Some((client, local)) = located.addresses() else {
        return Verdict::Untouched;
    };
    let key = FlowKey {
        client,
        local,
        client_port: located.source_port,
        local_port: located.destination_port,
    };
    let known = maps::flow(&key);
    if located.fragment {
        return unhandled(&key, Reason::Fragment);
    }
    let Some(segment) = located.segment() else {
        return unhandled(&key, Reason::Malformed);
    };
    let outcome = match known {
        Some(flow) if segment.flags.opens() => match flow::opening(flow, &segment) {
            flow::Opening::Again => Ok((flow, Reason::SynAgain)),
            opening => {
                backend::discount(flow);
                open(located, &key, &segment, opening.reason())
            }
        },
        Some(flow) => advance(flow, &segment),
        None if segment.flags.opens() => open(located, &key, &segment, Reason::NewFlow),
        None => return unhandled(&key, Reason::NoFlow),
    };
    match outcome {
        Ok((flow, reason)) => deliver(located, &key, flow, reason),
        Err(verdict) => verdict,
    }
}

/// Sends a client's packet on to the backend of its flow.
#[inline(always)]
pub fn deliver(located: &Located, key: &FlowKey, flow: &Flow, reason: Reason) -> Verdict {
    if !rewrite::to_backend(located, key, flow) {
        return Verdict::Drop(Reason::Malformed);
    }
    if flow.is_direct() {
        return Verdict::Redirect(reason, redirect::into_backend(flow));
    }
    Verdict::Pass(reason)
}

/// A packet that we cannot balance goes on untouched; it is counted if it was for a service.
#[inline(always)]
fn unhandled(key: &FlowKey, reason: Reason) -> Verdict {
    match service::listening(&key.local, key.local_port, false) {
        Some(_) => Verdict::Pass(reason),
        None => Verdict::Untouched,
    }
}

/// A new connection.
#[inline(always)]
fn open(
    located: &Located,
    key: &FlowKey,
    segment: &Segment,
    reason: Reason,
) -> Result<(&'static mut Flow, Reason), Verdict> {
    let found = service::listening(&key.local, key.local_port, false)
        .and_then(|index| Some((index, maps::service(index)?)));
    let Some((index, service)) = found else {
        return Err(Verdict::Untouched);
    };
    match flow::create(located, key, index, service, segment) {
        Ok(flow) => {
            if segment.len > 0 {
                exchange::from_client(flow, &segment.behind_syn());
            }
            Ok((flow, reason))
        }
        Err(why @ (Reason::NoBackend | Reason::NoFamily)) => {
            // A flow of an earlier connection must not catch what follows.
            maps::remove_flow(key);
            Err(Verdict::Pass(why))
        }
        Err(why) => Err(Verdict::Drop(why)),
    }
}

/// A later segment of the client. Once its backend is gone, the kernel answers it with RST.
#[inline(always)]
pub fn advance(
    flow: &'static mut Flow,
    segment: &Segment,
) -> Result<(&'static mut Flow, Reason), Verdict> {
    if !backend::is_current(flow) {
        flow.state = FlowState::Closed;
        backend::discount(flow);
        return Err(Verdict::Pass(Reason::DeadBackend));
    }
    if flow::advance(flow, Side::Client, segment) {
        backend::discount(flow);
    }
    exchange::from_client(flow, segment);
    Ok((flow, Reason::Hit))
}
