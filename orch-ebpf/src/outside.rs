//! What clients from outside send: TC ingress of the uplinks.

use aya_ebpf::programs::TcContext;
use orch_common::{
    counter::{Failure, Reason},
    flow::{Flags, Flow, FlowKey, FlowState, Side},
    service::PortClass,
    slot::SlotKey,
};

use crate::{
    backend, direct, exchange, flow, icmp, live, maps, open,
    packet::{self, ETHERNET, Located},
    redirect, rewrite,
    segment::Segment,
    service, tally,
    verdict::Verdict,
};

/// A packet arrives at an uplink.
#[inline(always)]
pub fn arriving(ctx: &TcContext) -> Verdict {
    let located = match packet::locate(ctx.skb.skb, ETHERNET) {
        Ok(located) => located,
        Err(miss) => {
            let skb = ctx.skb.skb;
            return icmp::about_a_flow(skb, miss);
        }
    };
    let port = maps::port(located.destination_port);
    let slot = match port.class {
        PortClass::Other => return Verdict::Untouched,
        PortClass::Service => None,
        PortClass::Slot => match direct::forwarded(&port) {
            None => return direct::past_the_balancer(&located, &port),
            slot => slot,
        },
    };
    balance(&located, slot)
}

/// A packet for a service's port, or for a slot's.
#[inline(always)]
fn balance(located: &Located, slot: Option<SlotKey>) -> Verdict {
    let Some(key) = located.key() else {
        return Verdict::Untouched;
    };
    // Nobody outside has the addresses of a socket of this host but by forging them.
    let known = maps::flow(&key).filter(|flow| !flow.is_of_socket());
    if located.fragment {
        return unhandled(&key, Reason::Fragment);
    }
    let Some(segment) = located.segment() else {
        return unhandled(&key, Reason::Malformed);
    };
    // Before the segment is taken for the flow's last.
    let due = known.as_ref().is_some_and(|flow| redirect::is_due(flow));
    let outcome = match judge(known, &segment) {
        Step::Go(flow, reason, closes) => Ok((flow, reason, closes)),
        Step::Open(reason, silent) => {
            open::connection(located, &key, slot, &segment, (reason, silent))
        }
        Step::Leave(reason) => return Verdict::Pass(reason),
        Step::Unknown => return unhandled(&key, Reason::NoFlow),
    };
    match outcome {
        Ok((flow, reason, closes)) => {
            exchange::from_client(flow, &segment);
            if closes {
                end(flow, &segment);
            }
            if flow.is_direct() {
                let again = due || matches!(reason, Reason::SynAgain);
                redirect::follow(located.skb, &key, flow, again);
            }
            deliver(located, &key, flow, reason)
        }
        Err(verdict) => verdict,
    }
}

/// What to do with a client's segment. Each step has one place in the code, since the compiler
/// copies what it calls into every place that calls it.
enum Step {
    /// It goes to the backend of its flow, which it may close.
    Go(&'static mut Flow, Reason, bool),
    /// It opens a connection, at another slot than a silent one if there is another.
    Open(Reason, Option<u16>),
    /// The kernel answers it.
    Leave(Reason),
    /// Nobody knows its connection.
    Unknown,
}

#[inline(always)]
fn judge(known: Option<&'static mut Flow>, segment: &Segment) -> Step {
    match known {
        Some(flow) if segment.flags.opens() => match flow::opening(flow, segment) {
            flow::Opening::Again => Step::Go(flow, Reason::SynAgain, false),
            opening => {
                let moved = matches!(opening, flow::Opening::Moved);
                if moved {
                    tally::failed(flow, Failure::Timeout);
                }
                live::discount(flow);
                Step::Open(opening.reason(), moved.then_some(flow.slot))
            }
        },
        Some(flow) => advance(flow, segment),
        None if segment.flags.opens() => Step::Open(Reason::NewFlow, None),
        None => Step::Unknown,
    }
}

/// A later segment of the client. Once its backend is gone, the kernel answers it with RST.
#[inline(always)]
fn advance(flow: &'static mut Flow, segment: &Segment) -> Step {
    if !backend::is_current(flow) {
        flow.state = FlowState::Closed;
        if flow.live == 1 {
            tally::failed(flow, Failure::Gone);
        }
        live::discount(flow);
        return Step::Leave(Reason::DeadBackend);
    }
    let closes = flow::advance(flow, Side::Client, segment);
    Step::Go(flow, Reason::Hit, closes)
}

/// A client's segment has closed its flow.
#[inline(always)]
fn end(flow: &mut Flow, segment: &Segment) {
    if segment.flags.has(Flags::RST) {
        tally::cut(flow, Failure::Aborted);
    }
    live::discount(flow);
}

/// Sends a client's packet on to the backend of its flow.
#[inline(always)]
fn deliver(located: &Located, key: &FlowKey, flow: &Flow, reason: Reason) -> Verdict {
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
