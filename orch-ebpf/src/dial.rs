//! A socket of this host or of a container is about to connect to a backend's own address.

use aya_ebpf::{
    bindings::{BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock_ops},
    helpers::{bpf_ktime_get_ns, generated::bpf_sk_storage_get},
};
use orch_common::{
    address::{self, Address},
    counter::Failure,
    flow::{Counting, Flow, FlowState, Socket, mark},
};

use crate::{create, maps, tally};

/// A socket is about to send its SYN: now it has an address and a port. Where it is in a container,
/// its packets no longer say whose they are when they leave the bridge.
#[inline(always)]
pub fn dials(ops: *mut bpf_sock_ops) {
    let Some(socket) = remembered(ops) else {
        return;
    };
    let its = &socket.flow;
    if !its.is_of_socket() || its.live == 0 || matches!(its.counting, Counting::None) {
        return;
    }
    // It may have been told to connect elsewhere since. In network order, in the upper half.
    // SAFETY: the context is the kernel's.
    let asked = u32::from_be(unsafe { (&raw const (*ops).remote_port).read_volatile() });
    if asked != u32::from(its.backend_port) {
        return;
    }
    let v6 = !address::is_v4(&its.address);
    (socket.client, socket.client_port) = own(ops, v6);
    // Tells this connection from a later one between the same ends, and is never zero.
    // SAFETY: the helper has no preconditions.
    socket.flow.uplink = unsafe { bpf_ktime_get_ns() } as u32 | 1;
    note(socket);
}

/// What is remembered of a socket that is about to connect.
#[inline(always)]
fn remembered(ops: *mut bpf_sock_ops) -> Option<&'static mut Socket> {
    // SAFETY: the context is the kernel's, and its socket lives as long as the call.
    unsafe {
        if (*ops).op != BPF_SOCK_OPS_TCP_CONNECT_CB {
            return None;
        }
        let socket = (*ops).__bindgen_anon_2.sk;
        if socket.is_null() {
            return None;
        }
        bpf_sk_storage_get(maps::sockets(), socket.cast(), core::ptr::null_mut(), 0)
            .cast::<Socket>()
            .as_mut()
    }
}

/// A socket's own address and port.
#[inline(always)]
fn own(ops: *mut bpf_sock_ops, v6: bool) -> (Address, u16) {
    // SAFETY: the context is the kernel's; word by word and always all of them, because the verifier
    // demands it. Both are sixteen plain bytes.
    let (four, six, port) = unsafe {
        let six = core::mem::transmute::<[u32; 4], Address>([
            (&raw const (*ops).local_ip6[0]).read_volatile(),
            (&raw const (*ops).local_ip6[1]).read_volatile(),
            (&raw const (*ops).local_ip6[2]).read_volatile(),
            (&raw const (*ops).local_ip6[3]).read_volatile(),
        ]);
        // This one is in host order (`struct bpf_sock_ops` in the kernel's bpf.h).
        let port = (&raw const (*ops).local_port).read_volatile();
        ((&raw const (*ops).local_ip4).read_volatile(), six, port)
    };
    let address = if v6 {
        six
    } else {
        address::from_v4(four.to_ne_bytes())
    };
    (address, port as u16)
}

/// Notes the flow of a socket. Its connection counts as the socket's, from the call that makes it to
/// the end of the socket: what is noted here is what goes on in it. In a full table it is not counted.
#[inline(always)]
fn note(socket: &Socket) {
    let (its, key) = (&socket.flow, socket.key());
    if let Some(before) = maps::flow(&key) {
        tally::cut(before, Failure::Aborted);
    }
    let flow = Flow {
        live: 1,
        marks: mark::LOCAL,
        counting: its.counting,
        generation: its.generation,
        backend_port: its.backend_port,
        ifindex: its.ifindex,
        uplink: its.uplink,
        address: its.address,
        // The SYN says what it is.
        client_next: 0,
        ..create::begin(its.slot_key(), 0)
    };
    let _ = maps::insert_flow(&key, &flow);
}

/// The socket ends, or connects anew. What it has sent may still be on its way, and answered.
#[inline(always)]
pub fn hang_up(socket: &Socket) {
    let key = socket.key();
    if let Some(flow) = maps::flow(&key)
        && flow.is_of_socket()
        && flow.uplink == socket.flow.uplink
    {
        tally::cut(flow, Failure::Aborted);
        flow.live = 0;
        if matches!(flow.state, FlowState::SynSent | FlowState::Closed) {
            maps::remove_flow(&key);
        }
    }
}
