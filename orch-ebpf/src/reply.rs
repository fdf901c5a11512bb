//! What backends answer clients outside: TC egress of the uplinks for delivery `port`, TC ingress of
//! the host's end of a backend's interface for delivery `direct`.

use aya_ebpf::programs::TcContext;
use orch_common::{
    counter::{Failure, Reason},
    event::EventKind,
    flow::{Flags, Flow, FlowKey, FlowState, Side},
    service::PortClass,
};

use crate::{
    backend, create, exchange, flow, inside, live, maps,
    packet::{self, ETHERNET, Located},
    redirect, rescue, retake, rewrite,
    segment::Segment,
    tally,
    verdict::Verdict,
};

/// A packet leaves by an uplink.
#[inline(always)]
pub fn leaving(ctx: &TcContext) -> Verdict {
    let Ok(located) = packet::locate(ctx.skb.skb, ETHERNET) else {
        return Verdict::Untouched;
    };
    let port = maps::port(located.source_port);
    if located.fragment || !matches!(port.class, PortClass::Slot) {
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
        Some(flow) if flow.backend_port == located.source_port && !flow.is_direct() => {
            answer::<false>(&located, &segment, &key, flow)
        }
        _ => Verdict::Untouched,
    }
}

/// A packet leaves a backend that has an address of its own.
#[inline(always)]
pub fn leaving_backend(ctx: &TcContext) -> Verdict {
    let Ok(located) = packet::locate(ctx.skb.skb, ETHERNET) else {
        return Verdict::Untouched;
    };
    // The other fragments of a datagram have no ports: it goes on untouched as a whole.
    if located.fragment || maps::port(located.source_port).backend == 0 {
        return Verdict::Untouched;
    }
    let (Some((local, client)), Some(segment)) = (located.addresses(), located.segment()) else {
        return Verdict::Untouched;
    };
    let reply = FlowKey {
        client,
        local,
        client_port: located.destination_port,
        local_port: located.source_port,
    };
    // A flow that is not known by another name is one of a socket of this host.
    let named = maps::reply(&reply);
    let renamed = named.is_some();
    let key = named.map_or(reply, |key| *key);
    let Some(flow) = maps::flow(&key) else {
        if renamed {
            maps::remove_reply(&reply);
        }
        return Verdict::Untouched;
    };
    if flow.address == local && flow.backend_port == located.source_port {
        return answer::<true>(&located, &segment, &key, flow);
    }
    // The SYN has been given to another backend since, because this one was silent. What it says
    // now must not reach the client; a connection past the balancer has other numbers.
    if flow::answers_syn(flow, &segment) {
        return Verdict::Drop(Reason::Stale);
    }
    Verdict::Untouched
}

/// A segment of the backend. `DIRECT` is how its flow is delivered.
#[inline(always)]
fn answer<const DIRECT: bool>(
    located: &Located,
    segment: &Segment,
    key: &FlowKey,
    flow: &mut Flow,
) -> Verdict {
    if !flow::owns_reply(flow, segment) {
        let another = segment.flags.has(Flags::SYN | Flags::ACK) && !flow.is_of_socket();
        if !(another && flow::is_open(flow)) {
            if matches!(flow.state, FlowState::Closed) {
                create::forget(key, flow);
            }
            return Verdict::Pass(Reason::Stale);
        }
        flow::begin_anew(flow, segment);
    }
    // The stack delivers what is for a socket of this host, as it came.
    let outside = DIRECT && !flow.is_of_socket();
    if outside && redirect::is_due(flow) {
        let before = flow.uplink;
        redirect::lead(located.skb, key, flow, before);
    }
    if outside && redirect::is_too_large(located.skb, flow) {
        return Verdict::Pass(Reason::TooLarge);
    }
    if segment.flags.has(Flags::RST) && matches!(flow.state, FlowState::SynSent) {
        if DIRECT
            && !outside
            && rescue::may_wait(segment, flow)
            && retake::leave_waiting(key, flow, arrived_by(located))
        {
            return Verdict::Drop(Reason::Held);
        }
        refused(flow);
        if outside
            && rescue::applies(located, segment, flow)
            && let Some(verdict) = rescue::again(located, key, flow)
        {
            return verdict;
        }
        if outside && rescue::may_wait(segment, flow) && retake::take_back(key, flow) {
            return Verdict::Drop(Reason::Held);
        }
    }
    let closes = take(flow, segment);
    if DIRECT && !outside {
        inside::ends(key, flow);
        return Verdict::Untouched;
    }
    if closes {
        live::discount(flow);
    }
    if !rewrite::to_client(located, key, flow) {
        return Verdict::Drop(Reason::Malformed);
    }
    if DIRECT {
        return Verdict::Redirect(Reason::Reply, redirect::to_client(flow));
    }
    Verdict::Pass(Reason::Reply)
}

/// The interface by which a packet came.
#[inline(always)]
fn arrived_by(located: &Located) -> u32 {
    // SAFETY: the context is the kernel's.
    unsafe { (*located.skb).ifindex }
}

/// What a backend's segment does to its flow, and whether it closes it. What it carries comes first: its
/// last bytes may be the response.
#[inline(always)]
pub fn take(flow: &mut Flow, segment: &Segment) -> bool {
    let next = flow.server_next;
    exchange::from_server(flow, segment);
    let closes = flow::advance(flow, Side::Server, segment);
    if closes && segment.flags.has(Flags::RST) {
        tally::cut(flow, Failure::Reset);
    } else if segment.flags.has(Flags::FIN) && segment.seq == next {
        // Nothing is missing before it, so nothing can come any more.
        tally::cut(flow, Failure::Closed);
    }
    closes
}

/// The backend has nobody who listens: picks pass it by, and the controller probes it at once.
#[inline(always)]
fn refused(flow: &Flow) {
    tally::failed(flow, Failure::Refused);
    backend::pass_by(flow.slot_key(), flow.generation, EventKind::Refused);
}
