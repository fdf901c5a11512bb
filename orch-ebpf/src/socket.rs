//! What balanced sockets of this host send and receive. The test of the port comes first, so that
//! every other packet of the host costs next to nothing.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_sk_fullsock, bpf_sk_storage_get},
    programs::SkBuffContext,
};
use orch_common::{
    flow::{Flags, Side, Socket},
    service::PortClass,
};

use crate::{
    exchange, flow, maps,
    packet::{self, BARE},
};

/// A socket sends a packet.
#[inline(always)]
pub fn sent(ctx: &SkBuffContext) {
    let skb = ctx.skb.skb;
    let Ok(located) = packet::locate(skb, BARE) else {
        return;
    };
    let port = located.destination_port;
    if !is_slot(port) {
        return;
    }
    let (Some(socket), Some(segment)) = (owner(skb, port), located.segment()) else {
        return;
    };
    if segment.flags.opens() {
        socket.flow.isn = segment.seq;
        socket.flow.client_next = segment.seq.wrapping_add(1);
        exchange::from_client(&mut socket.flow, &segment.behind_syn());
        return;
    }
    flow::advance(&mut socket.flow, Side::Client, &segment);
    exchange::from_client(&mut socket.flow, &segment);
}

/// A socket receives a packet.
#[inline(always)]
pub fn received(ctx: &SkBuffContext) {
    let skb = ctx.skb.skb;
    let Ok(located) = packet::locate(skb, BARE) else {
        return;
    };
    let port = located.source_port;
    if !is_slot(port) {
        return;
    }
    let (Some(socket), Some(segment)) = (owner(skb, port), located.segment()) else {
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
fn is_slot(port: u16) -> bool {
    matches!(maps::port(port).class, PortClass::Slot)
}

/// What is remembered of the packet's socket, if it is the client of a connection to this port.
#[inline(always)]
fn owner(skb: *mut __sk_buff, port: u16) -> Option<&'static mut Socket> {
    // SAFETY: the context is the kernel's; the helpers check the socket, which lives as long as
    // the packet.
    let socket = unsafe {
        let socket = (*skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return None;
        }
        let socket = bpf_sk_fullsock(socket);
        if socket.is_null() {
            return None;
        }
        bpf_sk_storage_get(maps::sockets(), socket.cast(), core::ptr::null_mut(), 0)
            .cast::<Socket>()
            .as_mut()?
    };
    (socket.flow.slot_port == port).then_some(socket)
}
