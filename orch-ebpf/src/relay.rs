//! What the gateway and a copy on this host say to each other goes from socket to socket (`join`).

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, sk_action::SK_PASS, sk_msg_md},
    helpers::generated::{bpf_msg_redirect_hash, bpf_sk_storage_get},
};
use orch_common::relay::RelayEnd;

use crate::maps;

/// A socket among the ends sends: into the other one, where that is possible.
#[inline(always)]
pub fn sending(msg: *mut sk_msg_md) {
    let Some(end) = end(msg) else {
        return;
    };
    let Some(relay) = maps::relay(&end.gateway) else {
        return;
    };
    let mut other = end.gateway;
    // SAFETY: the context is the kernel's.
    let size = unsafe { (*msg).size };
    if end.asks == 1 {
        // What is put in is read before what comes by TCP: after the first piece by TCP all go so.
        if relay.joined == 0 || !relay.ask(size) {
            maps::remove_relay(&end.gateway);
            return;
        }
        other = other.flipped();
    } else if !relay.answer(size) {
        return;
    }
    // SAFETY: the map holds keys of this type.
    let found = unsafe {
        bpf_msg_redirect_hash(
            msg,
            maps::relay_ends(),
            (&raw mut other).cast(),
            u64::from(BPF_F_INGRESS),
        )
    };
    if found != i64::from(SK_PASS) {
        maps::remove_relay(&end.gateway);
    }
}

/// What is remembered of the socket that sends.
#[inline(always)]
fn end(msg: *mut sk_msg_md) -> Option<RelayEnd> {
    // SAFETY: the context is the kernel's, and its socket lives as long as the call.
    unsafe {
        let socket = (*msg).__bindgen_anon_3.sk;
        if socket.is_null() {
            return None;
        }
        bpf_sk_storage_get(
            maps::relay_sockets(),
            socket.cast(),
            core::ptr::null_mut(),
            0,
        )
        .cast::<RelayEnd>()
        .as_ref()
        .copied()
    }
}
