//! What sockets of this host send to slots' ports and receive from there. The test of the port comes first, so that
//! every other packet of the host costs next to nothing. The port is the socket's, not the
//! packet's: here a packet has been through NAT, which may have put a container's port in it.

use aya_ebpf::{bindings::__sk_buff, programs::SkBuffContext};
use orch_common::{
    counter::Failure,
    flow::{Flags, FlowState, Socket},
};

use crate::{
    inside, maps,
    packet::{self, BARE},
    reply,
    segment::Segment,
    storage, tally,
};

/// A socket sends a packet.
#[inline(always)]
pub fn sent(ctx: &SkBuffContext) {
    let skb = ctx.skb.skb;
    let Some((socket, segment)) = owner(skb).zip(segment(skb)) else {
        return;
    };
    inside::sends(&mut socket.flow, &segment);
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

/// What is remembered of the packet's socket, if it is the client of a connection to a slot's port.
/// Connections to a backend's own address are seen at its interface (`inside`).
#[inline(always)]
fn owner(skb: *mut __sk_buff) -> Option<&'static mut Socket> {
    // SAFETY: the context is the kernel's, and the socket lives as long as the packet.
    let port = unsafe {
        let socket = (*skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return None;
        }
        u16::from_be((&raw const (*socket).dst_port).read_volatile())
    };
    if !maps::is_socket_port(port) {
        return None;
    }
    storage::of_packet(skb)
        .filter(|found| found.flow.backend_port == port && !found.flow.is_direct())
}
