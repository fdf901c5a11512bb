//! Past bridge and connection tracking: into a backend's namespace, and out to its client.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibLookup,
    },
    helpers::generated::{bpf_check_mtu, bpf_fib_lookup, bpf_redirect_neigh, bpf_redirect_peer},
};
use orch_common::{
    address::{self, Address},
    flow::{Flow, FlowKey, mark},
};

use crate::maps;

/// `AF_INET`, `AF_INET6`.
const V4: u8 = 2;
const V6: u8 = 10;
/// The loopback interface of every namespace: routes looked up from it are those of packets that
/// the host itself sends.
const LOOPBACK: u32 = 1;
/// Bytes of a packet that every IPv6 link carries, with an Ethernet header.
const LEAST_MTU: u32 = 1280 + 14;
/// `BPF_MTU_CHK_SEGS`: segments that are still together are tested one by one.
const SEGMENTS: u64 = 1;

/// Hands the packet to the other end of the backend's interface: it goes on in the backend's
/// namespace as if it had just arrived there. Gives the TC action.
#[inline(always)]
pub fn into_backend(flow: &Flow) -> i32 {
    // SAFETY: the helper takes any number and refuses what is no interface.
    unsafe { bpf_redirect_peer(flow.ifindex, 0) as i32 }
}

/// Sends the packet out by the interface that leads to the client, with the link header that the
/// host's own routes and neighbours give. Gives the TC action.
#[inline(always)]
pub fn to_client(flow: &Flow) -> i32 {
    // SAFETY: no parameters are handed over; the helper refuses what is no interface.
    unsafe { bpf_redirect_neigh(flow.uplink, core::ptr::null_mut(), 0, 0) as i32 }
}

/// Whether there is such an interface: while a container ends, its own vanishes before anybody
/// hears of it, and what is redirected there is lost without a trace.
#[inline(always)]
pub fn exists(skb: *mut __sk_buff, ifindex: u32) -> bool {
    let mut mtu = 0_u32;
    // SAFETY: the helper writes the MTU of the interface that it checks to a live local.
    unsafe { bpf_check_mtu(skb.cast(), ifindex, &raw mut mtu, 0, 0) >= 0 }
}

/// Whether a reply may be too large for the interface by which it is to leave: what is redirected
/// there goes past the host's own test (RFC 1191, RFC 8201). Of segments that are still together, each
/// counts by itself. Asked only of those above the least that every link carries (RFC 8200, 5).
#[inline(always)]
pub fn is_too_large(skb: *mut __sk_buff, flow: &Flow) -> bool {
    // SAFETY: the context is the kernel's.
    if unsafe { (*skb).len } <= LEAST_MTU {
        return false;
    }
    let mut mtu = 0_u32;
    // SAFETY: the helper writes the MTU of the interface to a live local, and refuses what is none.
    unsafe { bpf_check_mtu(skb.cast(), flow.uplink, &raw mut mtu, 0, SEGMENTS) > 0 }
}

/// Whether the route to a flow's client is to be looked up again: nobody tells when routes change.
#[inline(always)]
pub fn is_due(flow: &Flow) -> bool {
    flow.seen != maps::epoch()
}

/// A packet of the client: replies go where its route leads. That is looked up again when it is due, and
/// at once where the client's packets have begun to come by another interface.
#[inline(always)]
pub fn follow(skb: *mut __sk_buff, key: &FlowKey, flow: &mut Flow, due: bool) {
    // SAFETY: the context is the kernel's.
    let arrived = unsafe { (*skb).ifindex };
    if due || (arrived != flow.uplink) != flow.is(mark::ELSEWHERE) {
        lead(skb, key, flow, arrived);
        let elsewhere = arrived != flow.uplink;
        // Replies on another CPU change other marks: they are not written without need.
        if elsewhere != flow.is(mark::ELSEWHERE) {
            flow.set(mark::ELSEWHERE, elsewhere);
        }
    }
}

/// Looks it up. Where the host has no route, or does not forward, it is `otherwise`.
#[inline(always)]
pub fn lead(skb: *mut __sk_buff, key: &FlowKey, flow: &mut Flow, otherwise: u32) {
    flow.uplink = match orch_route(skb, key) {
        0 => otherwise,
        found => found as u32,
    };
}

/// The interface by which the route to the client of this connection leads, or 0. Checked once by itself
/// (`choice`), for the sake of its stack.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_route(skb: *mut __sk_buff, key: *const FlowKey) -> i32 {
    // SAFETY: the verifier knows the key's size and lets nobody call with less; it may be null.
    (unsafe { key.as_ref() }).map_or(0, |key| route(skb, key) as i32)
}

#[inline(always)]
fn route(skb: *mut __sk_buff, key: &FlowKey) -> u32 {
    // SAFETY: all fields are plain numbers.
    let mut question: FibLookup = unsafe { core::mem::zeroed() };
    question.ifindex = LOOPBACK;
    if address::is_v4(&key.client) {
        question.family = V4;
        question.__bindgen_anon_3.ipv4_src = words(&key.local)[3];
        question.__bindgen_anon_4.ipv4_dst = words(&key.client)[3];
    } else {
        question.family = V6;
        question.__bindgen_anon_3.ipv6_src = words(&key.local);
        question.__bindgen_anon_4.ipv6_dst = words(&key.client);
    }
    // SAFETY: the size is that of the question, which lives on the stack; the context is the kernel's.
    let found = unsafe {
        bpf_fib_lookup(
            skb.cast(),
            &raw mut question,
            size_of::<FibLookup>() as i32,
            0,
        )
    };
    match found as u32 {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => question.ifindex,
        _ => 0,
    }
}

/// An address as four words in the order they lie in memory.
#[inline(always)]
const fn words(address: &Address) -> [u32; 4] {
    // SAFETY: both are sixteen plain bytes.
    unsafe { core::mem::transmute::<Address, [u32; 4]>(*address) }
}
