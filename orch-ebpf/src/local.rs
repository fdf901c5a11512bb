//! Clients on this host and in its containers: rewritten once, when they connect.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock_addr},
    helpers::{bpf_get_netns_cookie, generated::bpf_sk_storage_get},
    programs::{SockAddrContext, SockContext},
};
use orch_common::{
    address::{self, Address},
    counter::Reason,
    flow::{Flow, Socket},
    service::{NetnsKind, PortClass, Service},
};

use crate::{
    backend::{self, Pick},
    maps, service,
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
    let port = asked_port(call);
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
    if let Some(socket) = storage(ctx, 0) {
        // An earlier attempt of the same socket.
        backend::discount(&mut socket.flow);
    }
    let Some(mut pick) = backend::pick(index, service) else {
        count(Reason::LocalNoBackend);
        return;
    };
    let Some(socket) = storage(ctx, BPF_SK_STORAGE_GET_F_CREATE) else {
        count(Reason::TableFull);
        return;
    };
    give(socket, &mut pick, service);
    socket.asked = asked;
    socket.asked_port = port;
    set_port(call, pick.port);
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

/// A program asks whom its socket is connected to: the address it asked for.
#[inline(always)]
pub fn peer(ctx: &SockAddrContext) {
    if let Some(socket) = storage(ctx, 0)
        && socket.flow.slot_port == asked_port(ctx.sock_addr)
    {
        set_port(ctx.sock_addr, socket.asked_port);
    }
}

/// The last holder of a socket has closed it.
#[inline(always)]
pub fn released(ctx: &SockContext) {
    // SAFETY: the helper takes this context for the socket.
    let found = unsafe {
        bpf_sk_storage_get(maps::sockets(), ctx.as_ptr(), core::ptr::null_mut(), 0)
            .cast::<Socket>()
            .as_mut()
    };
    if let Some(socket) = found {
        backend::discount(&mut socket.flow);
    }
}

/// What is remembered of the socket that makes the call.
#[inline(always)]
fn storage(ctx: &SockAddrContext, flags: u32) -> Option<&'static mut Socket> {
    // SAFETY: the context is the kernel's, and its socket lives as long as the call.
    unsafe {
        let socket = (*ctx.sock_addr).__bindgen_anon_1.sk;
        bpf_sk_storage_get(
            maps::sockets(),
            socket.cast(),
            core::ptr::null_mut(),
            u64::from(flags),
        )
        .cast::<Socket>()
        .as_mut()
    }
}

#[inline(always)]
fn asked_port(call: *mut bpf_sock_addr) -> u16 {
    // SAFETY: the context is the kernel's.
    u16::from_be(unsafe { (*call).user_port } as u16)
}

#[inline(always)]
fn set_port(call: *mut bpf_sock_addr, port: u16) {
    // SAFETY: the context is the kernel's.
    unsafe { (*call).user_port = u32::from(port.to_be()) };
}
