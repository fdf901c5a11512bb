//! What is remembered of balanced sockets: read when their owners ask, and given up with them.

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sock_addr,
    helpers::generated::bpf_sk_storage_get,
    programs::{SockAddrContext, SockContext},
};
use orch_common::flow::Socket;

use crate::{backend, maps};

/// A program asks whom its socket is connected to: the address it asked for.
#[inline(always)]
pub fn peer(ctx: &SockAddrContext) {
    if let Some(socket) = of(ctx, 0)
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
