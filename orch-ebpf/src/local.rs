//! Clients on this host and in its containers: rewritten once, when they connect.

use aya_ebpf::{
    EbpfContext, bindings::BPF_SK_STORAGE_GET_F_CREATE, helpers::bpf_get_netns_cookie,
    programs::SockAddrContext,
};
use orch_common::{
    address::{self, Address},
    counter::Reason,
    flow::{Flow, Socket},
    service::{NetnsKind, PortClass, Service},
};

use crate::{
    backend::{self, Pick},
    maps, service, storage,
    verdict::count,
};

const TCP: u32 = 6;

/// A socket connects over IPv4.
#[inline(always)]
pub fn connect4(ctx: &SockAddrContext) {
    let call = ctx.sock_addr;
    // SAFETY: the context is the kernel's.
    let asked = unsafe { (*call).user_ip4 };
    connect(ctx, address::from_v4(asked.to_ne_bytes()));
}

/// A socket connects over IPv6, or over IPv4 by a mapped address.
#[inline(always)]
pub fn connect6(ctx: &SockAddrContext) {
    let call = ctx.sock_addr;
    // SAFETY: the context is the kernel's; word by word, because the verifier demands it.
    let words = unsafe {
        [
            (&raw const (*call).user_ip6[0]).read_volatile(),
            (&raw const (*call).user_ip6[1]).read_volatile(),
            (&raw const (*call).user_ip6[2]).read_volatile(),
            (&raw const (*call).user_ip6[3]).read_volatile(),
        ]
    };
    // SAFETY: both are sixteen plain bytes.
    connect(ctx, unsafe {
        core::mem::transmute::<[u32; 4], Address>(words)
    });
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, asked: Address) {
    let call = ctx.sock_addr;
    let port = storage::asked_port(call);
    // SAFETY: the context is the kernel's.
    let tcp = unsafe { (*call).protocol } == TCP;
    if !tcp || !matches!(maps::port(port).class, PortClass::Service) {
        return;
    }
    let Some(index) = target(ctx, &asked, port) else {
        return;
    };
    let Some(service) = maps::service(index) else {
        return;
    };
    if let Some(socket) = storage::of(ctx, 0) {
        // An earlier attempt of the same socket.
        backend::discount(&mut socket.flow);
    }
    let Some(mut pick) = backend::pick(index, service) else {
        count(Reason::LocalNoBackend);
        return;
    };
    let Some(socket) = storage::of(ctx, BPF_SK_STORAGE_GET_F_CREATE) else {
        count(Reason::TableFull);
        return;
    };
    give(socket, &mut pick, service);
    socket.asked = asked;
    socket.asked_port = port;
    storage::set_port(call, pick.port);
    count(Reason::LocalConnect);
}

/// The service that the call is for, as far as its network namespace may have it: a container's
/// own loopback is its own, and namespaces that are not known arrive as outsiders.
#[inline(always)]
fn target(ctx: &SockAddrContext, asked: &Address, port: u16) -> Option<u32> {
    // SAFETY: the helper takes this context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let here = matches!(maps::netns(cookie)?, NetnsKind::Host);
    // Connecting to the unspecified address means this host.
    let own = address::is_loopback(asked) || *asked == address::any_of(asked);
    if own && !here {
        return None;
    }
    service::listening(asked, port, own)
}

/// Makes the socket a connection of the slot.
#[inline(always)]
fn give(socket: &mut Socket, pick: &mut Pick, service: &Service) {
    socket.flow = Flow {
        live: 1,
        generation: pick.generation,
        service: pick.key.service,
        slot: pick.key.slot,
        slot_port: pick.port,
        count_all: service.count_all,
        ..Flow::default()
    };
    backend::admit(pick.slot);
}
