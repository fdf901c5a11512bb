//! What balanced sockets of this host send and receive. The test of the port comes first, so that
//! every other packet of the host costs next to nothing. The port is the socket's, not the
//! packet's: here a packet has been through NAT, which may have put a container's port in it.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_sk_fullsock, bpf_sk_storage_get},
    programs::SkBuffContext,
};
use orch_common::{
    counter::Failure,
    flow::{Flags, Flow, FlowState, Side, Socket, mark},
};

use crate::{
    exchange, flow, maps,
    packet::{self, BARE},
    reply,
    segment::Segment,
    tally,
};

/// A socket sends a packet.
#[inline(always)]
pub fn sent(ctx: &SkBuffContext) {
    let skb = ctx.skb.skb;
    let Some((socket, segment)) = owner(skb).zip(segment(skb)) else {
        return;
    };
    let flow = &mut socket.flow;
    let closes = if segment.flags.opens() {
        opens(flow, &segment);
        false
    } else {
        flow::advance(flow, Side::Client, &segment)
    };
    exchange::from_client(flow, &segment);
    if closes && segment.flags.has(Flags::RST) {
        tally::cut(flow, Failure::Aborted);
    }
}

/// A socket sends its SYN, perhaps again because nobody answers.
#[inline(always)]
fn opens(flow: &mut Flow, segment: &Segment) {
    if flow.isn != segment.seq || flow.client_next == 0 {
        flow.isn = segment.seq;
        flow.client_next = segment.seq.wrapping_add(1);
    } else if matches!(flow.state, FlowState::SynSent) && !flow.is(mark::REPEATED) {
        flow.set(mark::REPEATED, true);
        tally::failed(flow, Failure::Timeout);
    }
}

/// A socket receives a packet.
#[inline(always)]
pub fn received(ctx: &SkBuffContext) {
    let skb = ctx.skb.skb;
    let Some((socket, segment)) = owner(skb).zip(segment(skb)) else {
        return;
    };
    let flow = &mut socket.flow;
    if segment.flags.has(Flags::RST) && matches!(flow.state, FlowState::SynSent) {
        tally::failed(flow, Failure::Refused);
    }
    // The socket's release ends the connection, not its FIN: until then its owner holds it.
    reply::take(flow, &segment);
}

#[inline(always)]
fn segment(skb: *mut __sk_buff) -> Option<Segment> {
    packet::locate(skb, BARE).ok()?.segment()
}

/// What is remembered of the packet's socket, if it is the client of a connection to a slot.
#[inline(always)]
fn owner(skb: *mut __sk_buff) -> Option<&'static mut Socket> {
    // SAFETY: the context is the kernel's; the helpers check the socket, which lives as long as
    // the packet.
    unsafe {
        let socket = (*skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return None;
        }
        let port = u16::from_be((&raw const (*socket).dst_port).read_volatile());
        if !maps::is_socket_port(port) {
            return None;
        }
        let socket = bpf_sk_fullsock(socket);
        if socket.is_null() {
            return None;
        }
        let found = bpf_sk_storage_get(maps::sockets(), socket.cast(), core::ptr::null_mut(), 0)
            .cast::<Socket>()
            .as_mut()?;
        (found.flow.backend_port == port).then_some(found)
    }
}
