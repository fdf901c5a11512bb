//! Requests and responses on a connection: counted per slot, and timed.

use aya_ebpf::{bindings::__sk_buff, btf_maps::lpm_trie::Key, helpers::bpf_ktime_get_ns};
use orch_common::{
    event::EventKind,
    flow::{Counting, Flow, FlowState, Side, mark},
    http, latency,
    service::{PATH_BYTES, PathKey, PathRule},
    slot::SlotKey,
};

use crate::{atomic, compare, interim, maps, opaque::opaque, pulse, segment::Segment, tally};

/// Whether what connections carry is looked at: 1, unless the loader has written another number to
/// measure what that costs. The kernel leaves out what comes after a look at it then.
#[unsafe(no_mangle)]
static SIGNALS: u32 = 1;

/// Class of the statuses that say that the server has failed.
const SERVER_ERROR: u8 = 5;

#[inline(always)]
fn is_wanted() -> bool {
    // SAFETY: the loader may have written the constant, so the compiler must not know it.
    unsafe { core::ptr::read_volatile(&raw const SIGNALS) != 0 }
}

/// Whether what the flow carries is looked at.
#[inline(always)]
pub fn is_followed(flow: &Flow) -> bool {
    !matches!(flow.counting, Counting::None) && is_wanted()
}

/// Takes a segment of the client.
#[inline(always)]
pub fn from_client(flow: &mut Flow, segment: &Segment) {
    if segment.len == 0 || !is_wanted() {
        return;
    }
    let early = segment.flags.opens();
    // What a stray SYN brings belongs to no connection.
    if early && segment.seq != flow.isn {
        return;
    }
    // Before the backend has answered, anything but the SYN's own data is of an earlier connection.
    if matches!(flow.state, FlowState::SynSent) && !early {
        return;
    }
    if !matches!(flow.counting, Counting::None) {
        if orch_request(segment.skb, flow, segment) != 0 {
            compare::look(flow, EventKind::Silent);
        }
    } else if early {
        flow.client_next = segment.data_seq().wrapping_add(segment.len);
    }
}

/// Takes a segment of the backend.
#[inline(always)]
pub fn from_server(flow: &mut Flow, segment: &Segment) {
    if segment.len > 0 && is_followed(flow) && orch_response(segment.skb, flow, segment) != 0 {
        compare::look(flow, EventKind::Failing);
    }
}

/// What is handed over, if the verifier believes in it: it knows the sizes of both and lets nobody
/// call with less, but either may be null.
#[inline(always)]
fn given<'a>(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    segment: *const Segment,
) -> Option<(&'a mut Flow, Segment)> {
    // SAFETY: as said; the caller's flow lives in its map and the segment on its stack.
    let (flow, segment) = unsafe { (flow.as_mut()?, segment.as_ref()?) };
    // A pointer read from memory is no packet to the verifier.
    Some((flow, Segment { skb, ..*segment }))
}

/// Payload of the client. Checked once by itself (`choice`). 1 if its slot has to be compared with
/// its peers, which the caller does, since three functions would have too much stack.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_request(skb: *mut __sk_buff, flow: *mut Flow, segment: *const Segment) -> i32 {
    given(skb, flow, segment).map_or(0, |(flow, segment)| {
        let seq = segment.data_seq();
        i32::from(request(flow, &Segment { seq, ..segment }))
    })
}

/// Payload of the backend. As `orch_request`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_response(skb: *mut __sk_buff, flow: *mut Flow, segment: *const Segment) -> i32 {
    given(skb, flow, segment).map_or(0, |(flow, segment)| i32::from(response(flow, &segment)))
}

#[inline(always)]
fn request(flow: &mut Flow, segment: &Segment) -> bool {
    let ahead = segment.seq != flow.client_next && http::is_new(segment.seq, flow.client_next);
    let may_begin = http::client_payload(flow, segment.seq);
    // What comes before it has not come by, or never does: the backend says which.
    let end = segment.seq.wrapping_add(segment.len);
    if ahead {
        flow.came_beyond(end);
    } else {
        tally::carried(flow, Side::Client, end);
    }
    if !may_begin {
        return false;
    }
    let Some(target) = http::client_head(flow, &segment.head(0)) else {
        return false;
    };
    // SAFETY: the helper has no preconditions.
    flow.request_ns = unsafe { bpf_ktime_get_ns() };
    flow.set(mark::COUNTED, counts(flow, segment, target));
    if let Some(counters) = maps::counters(&flow.slot_key()) {
        let cell = if flow.is(mark::COUNTED) {
            &raw mut counters.requests
        } else {
            &raw mut counters.excluded
        };
        atomic::add(cell, 1);
    }
    pulse::asked(flow, flow.request_ns)
}

/// Whether the request counts: by the longest rule that its path begins with, as far as this
/// segment shows it.
#[inline(always)]
fn counts(flow: &Flow, segment: &Segment, target: u32) -> bool {
    if matches!(flow.counting, Counting::All) {
        return true;
    }
    let path = PathKey {
        service: u32::from(flow.service).to_ne_bytes(),
        path: [0; PATH_BYTES],
    };
    let mut key = Key::new(PathKey::BITS, path);
    segment.target(target, &mut key.data.path);
    matches!(maps::path_rule(&key), Some(PathRule::Count))
}

#[inline(always)]
fn response(flow: &mut Flow, segment: &Segment) -> bool {
    let wanted = http::server_payload(flow, segment.seq, segment.len);
    tally::carried(flow, Side::Server, segment.seq.wrapping_add(segment.len));
    let Some(skip) = wanted else {
        return false;
    };
    pulse::spoke(flow);
    let Some(class) = interim::final_status(flow, segment, skip) else {
        return false;
    };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let taken = now.saturating_sub(flow.request_ns);
    if flow.is(mark::COUNTED) {
        answered(flow.slot_key(), class, taken);
    }
    pulse::answered(flow, class == SERVER_ERROR, (now, taken))
}

/// Counts and times a response to a request that counts.
#[inline(always)]
fn answered(key: SlotKey, class: u8, taken: u64) {
    if let Some(counters) = maps::counters(&key)
        && let Some(cell) = counters.responses.get_mut(opaque(usize::from(class)))
    {
        atomic::add(cell, 1);
    }
    if let Some(histogram) = maps::latency(&key) {
        atomic::add(&raw mut histogram.sum_ns, taken);
        if let Some(cell) = histogram.buckets.get_mut(opaque(latency::bucket(taken))) {
            atomic::add(cell, 1);
        }
    }
}
