//! Which sockets of the gateway and of copies are the two ends of one connection (`relay`).

use aya_ebpf::{
    bindings::{
        BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_TCP_CLOSE, bpf_sock, bpf_sock_ops,
    },
    helpers::{
        bpf_get_netns_cookie, bpf_sock_ops_cb_flags_set,
        generated::{bpf_sk_storage_get, bpf_sock_hash_update},
    },
};
use orch_common::{
    relay::{PRIORITY, RelayEnd, RelayKey},
    service::NetnsKind,
};

use crate::maps;

/// A socket is connected: the gateway's before the copy hears of that, and the copy's then. So the
/// gateway's is known when the copy's is asked after. Or it ends.
#[inline(always)]
pub fn changed(ops: *mut bpf_sock_ops) {
    // SAFETY: the context is the kernel's.
    let operation = unsafe { (*ops).op };
    if operation == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
        asks(ops);
    } else if operation == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        answers(ops);
    } else if operation == BPF_SOCK_OPS_STATE_CB {
        ends(ops);
    }
}

#[inline(always)]
fn asks(ops: *mut bpf_sock_ops) {
    if !is_gateways(ops) {
        return;
    }
    let key = key(ops);
    let end = RelayEnd {
        gateway: key,
        asks: 1,
    };
    if maps::insert_relay(&key).is_err() {
        return;
    }
    // SAFETY: the helper takes the program's context.
    let hears = unsafe { bpf_sock_ops_cb_flags_set(ops, BPF_SOCK_OPS_STATE_CB_FLAG as i32) };
    if hears != 0 || !remember(ops, key, end) {
        maps::remove_relay(&key);
    }
}

/// A socket on which the gateway asks changes its state.
#[inline(always)]
fn ends(ops: *mut bpf_sock_ops) {
    // SAFETY: the context is the kernel's.
    let state = unsafe { (*ops).__bindgen_anon_1.args[1] };
    if state != BPF_TCP_CLOSE {
        return;
    }
    let Some(socket) = socket(ops) else {
        return;
    };
    // SAFETY: the map holds values of this type; the socket lives as long as the call.
    let end = unsafe {
        bpf_sk_storage_get(
            maps::relay_sockets(),
            socket.cast(),
            core::ptr::null_mut(),
            0,
        )
        .cast::<RelayEnd>()
        .as_ref()
    };
    if let Some(end) = end {
        let gateway = end.gateway;
        maps::remove_relay(&gateway);
    }
}

#[inline(always)]
fn answers(ops: *mut bpf_sock_ops) {
    let key = key(ops);
    let gateway = key.flipped();
    if let Some(relay) = maps::relay(&gateway)
        && remember(ops, key, RelayEnd { gateway, asks: 0 })
    {
        relay.joined = 1;
    }
}

/// Whether it is a socket on which the gateway asks, in the network namespace of the host.
#[inline(always)]
fn is_gateways(ops: *mut bpf_sock_ops) -> bool {
    let Some(socket) = socket(ops) else {
        return false;
    };
    // SAFETY: not null, and it lives as long as the call.
    if unsafe { (*socket).priority } != PRIORITY {
        return false;
    }
    // SAFETY: the helper takes the program's context.
    let cookie = unsafe { bpf_get_netns_cookie(ops.cast()) };
    maps::netns(cookie).is_some_and(|netns| matches!(netns.kind, NetnsKind::Host))
}

#[inline(always)]
fn socket(ops: *mut bpf_sock_ops) -> Option<*mut bpf_sock> {
    // SAFETY: the context is the kernel's.
    let socket = unsafe { (*ops).__bindgen_anon_2.sk };
    (!socket.is_null()).then_some(socket)
}

#[inline(always)]
fn key(ops: *mut bpf_sock_ops) -> RelayKey {
    // SAFETY: the context is the kernel's; field by field, because the verifier demands it.
    let (own_next, peer_next, own_port, peer_port) = unsafe {
        (
            (&raw const (*ops).snd_nxt).read_volatile(),
            (&raw const (*ops).rcv_nxt).read_volatile(),
            (&raw const (*ops).local_port).read_volatile(),
            (&raw const (*ops).remote_port).read_volatile(),
        )
    };
    RelayKey {
        own_next,
        peer_next,
        own_port: own_port as u16,
        // In network order, in the upper half (`struct bpf_sock_ops` in the kernel's bpf.h).
        peer_port: u32::from_be(peer_port) as u16,
    }
}

/// Puts a socket among the ends, with what it is; whether that was possible. From now on
/// `orch_relay` sees what it sends.
#[inline(always)]
fn remember(ops: *mut bpf_sock_ops, mut key: RelayKey, mut end: RelayEnd) -> bool {
    let Some(socket) = socket(ops) else {
        return false;
    };
    // SAFETY: the maps hold keys and values of these types; the socket lives as long as the call.
    unsafe {
        let stored = bpf_sk_storage_get(
            maps::relay_sockets(),
            socket.cast(),
            (&raw mut end).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        );
        !stored.is_null()
            && bpf_sock_hash_update(
                ops,
                maps::relay_ends(),
                (&raw mut key).cast(),
                u64::from(BPF_NOEXIST),
            ) == 0
    }
}
