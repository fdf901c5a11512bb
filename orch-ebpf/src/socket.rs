//! What balanced sockets of this host send and receive. The test of the port comes first, so that
//! every other packet of the host costs next to nothing. The port is the socket's, not the
//! packet's: here a packet has been through NAT, which may have put a container's port in it.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_sk_fullsock, bpf_sk_storage_get},
    programs::SkBuffContext,
};
use orch_common::flow::{Flags, Side, Socket};

use crate::{
    exchange, flow, maps,
    packet::{self, BARE},
    segment::Segment,
};

/// A socket sends a packet.
#[inline(always)]
pub fn sent(ctx: &SkBuffContext) {
    let skb = ctx.skb.skb;
    let Some((socket, segment)) = owner(skb).zip(segment(skb)) else {
        return;
    };
    if segment.flags.opens() {
        socket.flow.isn = segment.seq;
        socket.flow.client_next = segment.seq.wrapping_add(1);
    } else {
        flow::advance(&mut socket.flow, Side::Client, &segment);
    }
    exchange::from_client(&mut socket.flow, &segment);
}

/// A socket receives a packet.
#[inline(always)]
pub fn received(ctx: &SkBuffContext) {
    let skb = ctx.skb.skb;
    let Some((socket, segment)) = owner(skb).zip(segment(skb)) else {
        return;
    };
    if segment.flags.has(Flags::SYN | Flags::ACK) {
        socket.flow.server_next = segment.seq.wrapping_add(1);
    }
    // The socket's release ends the connection, not its FIN: until then its owner holds it.
    flow::advance(&mut socket.flow, Side::Server, &segment);
    exchange::from_server(&mut socket.flow, &segment);
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
