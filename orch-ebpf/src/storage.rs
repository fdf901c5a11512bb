//! What is remembered of balanced sockets: read when their owners ask, and given up with them.

use aya_ebpf::{
    EbpfContext,
    bindings::{__sk_buff, bpf_sock_addr},
    helpers::generated::{bpf_sk_fullsock, bpf_sk_storage_get},
    programs::{SockAddrContext, SockContext},
};
use orch_common::{address::Address, counter::Failure, flow::Socket};

use crate::{dial, live, maps, tally};

/// A program asks whom its socket is connected to: the address it asked for.
#[inline(always)]
pub fn peer<const V6: bool>(ctx: &SockAddrContext) {
    if let Some(socket) = of(ctx, 0)
        && socket.flow.backend_port == asked_port(ctx.sock_addr)
    {
        set_port(ctx.sock_addr, socket.asked_port);
        if socket.flow.is_direct() {
            let asked = socket.asked;
            set_address::<V6>(ctx.sock_addr, &asked);
        }
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
        give_up(socket);
    }
}

/// The connection of a socket ends: its owner has closed it, or connects it anew.
#[inline(always)]
pub fn give_up(socket: &mut Socket) {
    orch_give_up(socket);
}

/// Checked once by itself (`choice`), and always 0.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_give_up(socket: *mut Socket) -> i32 {
    // SAFETY: the verifier knows the size and lets nobody call with less; it may be null.
    if let Some(socket) = unsafe { socket.as_mut() } {
        tally::cut(&mut socket.flow, Failure::Aborted);
        if socket.flow.is_of_socket() {
            dial::hang_up(socket);
        }
        live::discount(&mut socket.flow);
    }
    0
}

/// What is remembered of the socket that makes the call.
#[inline(always)]
pub fn of(ctx: &SockAddrContext, flags: u32) -> Option<&'static mut Socket> {
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

/// What is remembered of the socket that a packet belongs to.
#[inline(always)]
pub fn of_packet(skb: *mut __sk_buff) -> Option<&'static mut Socket> {
    // SAFETY: the context is the kernel's; the helpers check the socket, which lives as long as
    // the packet.
    unsafe {
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
            .as_mut()
    }
}

/// The address of a call on an IPv6 socket.
#[inline(always)]
pub fn asked_v6(call: *mut bpf_sock_addr) -> Address {
    // SAFETY: the context is the kernel's; word by word, because the verifier demands it. Both are
    // sixteen plain bytes.
    unsafe {
        core::mem::transmute::<[u32; 4], Address>([
            (&raw const (*call).user_ip6[0]).read_volatile(),
            (&raw const (*call).user_ip6[1]).read_volatile(),
            (&raw const (*call).user_ip6[2]).read_volatile(),
            (&raw const (*call).user_ip6[3]).read_volatile(),
        ])
    }
}

/// Gives the call another address: the mapped form to an IPv6 socket, its last part to an IPv4 one.
#[inline(always)]
pub fn set_address<const V6: bool>(call: *mut bpf_sock_addr, address: &Address) {
    // SAFETY: as in `asked_v6`.
    unsafe {
        let words = core::mem::transmute::<Address, [u32; 4]>(*address);
        if !V6 {
            (&raw mut (*call).user_ip4).write_volatile(words[3]);
            return;
        }
        (&raw mut (*call).user_ip6[0]).write_volatile(words[0]);
        (&raw mut (*call).user_ip6[1]).write_volatile(words[1]);
        (&raw mut (*call).user_ip6[2]).write_volatile(words[2]);
        (&raw mut (*call).user_ip6[3]).write_volatile(words[3]);
    }
}

#[inline(always)]
pub fn asked_port(call: *mut bpf_sock_addr) -> u16 {
    // SAFETY: the context is the kernel's.
    u16::from_be(unsafe { (*call).user_port } as u16)
}

#[inline(always)]
pub fn set_port(call: *mut bpf_sock_addr, port: u16) {
    // SAFETY: the context is the kernel's.
    unsafe { (*call).user_port = u32::from(port.to_be()) };
}
