//! SYNs for a service that has no backend now: copied to the controller and dropped, and let in
//! again once there is one.
//!
//! A flood must cost little: what is known already ends at one array lookup, what is too much at
//! two more, and only what has been copied leaves a signature behind.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_ktime_get_ns, bpf_skb_change_type, bpf_skb_load_bytes},
};
use orch_common::{
    counter::Reason,
    flow::FlowKey,
    hold::{self, FRAME_BYTES, Holding, LET_GO},
};

use crate::{maps, opaque::length, packet::Located, segment::Segment};

/// `PACKET_HOST`.
const TO_HOST: u32 = 0;
/// What is not held, where a reason's number is asked for.
const NOT_HELD: i32 = -1;

/// Whether SYNs of the service wait, as long as the controller says so.
#[inline(always)]
pub fn terms(service: u32) -> Option<&'static Holding> {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    maps::holding(service).filter(|holding| holding.until_ns > now)
}

/// The same.
#[inline(always)]
pub fn is_on(service: u32) -> bool {
    terms(service).is_some()
}

/// Where connections of this host wait.
#[inline(always)]
pub fn listener(service: u32) -> Option<u16> {
    let port = terms(service)?.listener;
    (port != 0).then_some(port)
}

/// Where connections of containers wait.
#[inline(always)]
pub fn bridge_listener(service: u32) -> Option<u16> {
    let port = terms(service)?.bridge_listener;
    (port != 0).then_some(port)
}

/// Holds a SYN, and says what became of it. `None` if it is not to be held.
#[inline(always)]
pub fn park(located: &Located, key: &FlowKey, service: u32, segment: &Segment) -> Option<Reason> {
    const AGAIN: i32 = Reason::HeldAgain as i32;
    const FULL: i32 = Reason::HoldFull as i32;
    const FLOOD: i32 = Reason::HoldFlood as i32;
    match orch_hold(located.skb, key, service, segment.seq) {
        NOT_HELD => None,
        AGAIN => Some(Reason::HeldAgain),
        FULL => Some(Reason::HoldFull),
        FLOOD => Some(Reason::HoldFlood),
        _ => Some(Reason::Held),
    }
}

/// Checked once by itself (`choice`). The number of a reason, or `NOT_HELD`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_hold(skb: *mut __sk_buff, key: *const FlowKey, service: u32, seq: u32) -> i32 {
    // SAFETY: the verifier knows the key's size and lets nobody call with less; it may be null. The
    // context is the kernel's.
    let (key, mark) = unsafe { (key.as_ref(), (*skb).mark) };
    let (Some(key), Some(terms)) = (key, terms(service)) else {
        return NOT_HELD;
    };
    if mark == LET_GO {
        // Its link header may be made up, and the host answers only what is for it.
        // SAFETY: the helper takes any type.
        unsafe {
            bpf_skb_change_type(skb, TO_HOST);
        }
        return NOT_HELD;
    }
    hold(skb, key, service, seq, terms) as i32
}

#[inline(always)]
fn hold(skb: *mut __sk_buff, key: &FlowKey, service: u32, seq: u32, terms: &Holding) -> Reason {
    let signature = hold::signature(key, seq, terms.session);
    let Some(place) = maps::signature(signature) else {
        return Reason::HoldFull;
    };
    if *place == signature {
        return Reason::HeldAgain;
    }
    let source = hold::source_bucket(&key.client);
    if !admits(source, hold::source_cost(terms.cost_ns)) || !admits(service, terms.cost_ns) {
        return Reason::HoldFlood;
    }
    if copy(skb, key, service, seq).is_none() {
        return Reason::HoldFull;
    }
    *place = signature;
    Reason::Held
}

#[inline(always)]
fn admits(bucket: u32, cost: u64) -> bool {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(full_at) = maps::bucket(bucket) else {
        return false;
    };
    let Some(next) = hold::take_token(*full_at, now, cost) else {
        return false;
    };
    *full_at = next;
    true
}

#[inline(always)]
fn copy(skb: *mut __sk_buff, key: &FlowKey, service: u32, seq: u32) -> Option<()> {
    // SAFETY: the context is the kernel's.
    let (len, ifindex) = unsafe { ((*skb).len as usize, (*skb).ifindex) };
    if len > FRAME_BYTES {
        return None;
    }
    let len = length(len, FRAME_BYTES)?;
    let mut entry = maps::held()?;
    let record = entry.as_mut_ptr();
    // SAFETY: the record is whole and ours until it is submitted; the helper writes `len` bytes of
    // its frame, which has as many.
    let failed = unsafe {
        (&raw mut (*record).key).write(*key);
        (&raw mut (*record).seq).write(seq);
        (&raw mut (*record).ifindex).write(ifindex);
        (&raw mut (*record).service).write(service as u16);
        (&raw mut (*record).len).write(len as u16);
        let frame = (&raw mut (*record).frame).cast();
        bpf_skb_load_bytes(skb.cast(), 0, frame, len as u32)
    };
    if failed != 0 {
        entry.discard(0);
        return None;
    }
    entry.submit(0);
    Some(())
}
