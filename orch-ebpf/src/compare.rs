//! A slot beside its peers: is it alone in being silent, or in failing?

use aya_ebpf::helpers::bpf_ktime_get_ns;
use orch_common::{
    counter::Reason,
    event::EventKind,
    flow::{Flow, mark},
    layout::{RING_TURNS, SLOTS_PER_SERVICE},
    pulse::{Peers, Pulse},
    service::Ring,
    slot::SlotKey,
};

use crate::{
    atomic, backend, maps,
    pulse::{is_compared, is_due},
    turn,
    verdict::count,
};

/// Compares the slot of a flow with its peers.
#[inline(always)]
pub fn look(flow: &Flow, kind: EventKind) {
    orch_compare(flow.slot_key().packed(), flow.generation, kind as u32);
}

/// A new connection goes to a slot. One that owes answers for long owes one more then, and one that owes
/// many is compared with its peers: behind a listener whose queue is full SYNs vanish, and no request
/// comes any more that would have that done.
#[inline(always)]
pub fn given(flow: &mut Flow) {
    if orch_given(flow.slot_key().packed(), flow.generation) != 0 {
        flow.set(mark::GIVEN, true);
    }
}

/// See [`given`]. Checked once by itself (`choice`). 1 if the connection was counted as a request.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_given(slot: u32, generation: u32) -> i32 {
    let key = SlotKey::unpacked(slot);
    let Some(pulse) = maps::pulse(key) else {
        return 0;
    };
    if pulse.unanswered == 0 {
        return 0;
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if !pulse.is_behind(now) {
        return 0;
    }
    atomic::add(&raw mut pulse.unanswered, 1);
    if pulse.may_be_silent(now) && is_due(pulse, now) {
        orch_compare(slot, generation, EventKind::Silent as u32);
    }
    1
}

/// Passes a slot by if it is much worse than its peers. `slot` is packed.
/// Checked once by itself (`choice`), and always 0.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_compare(slot: u32, generation: u32, kind: u32) -> i32 {
    let key = SlotKey::unpacked(slot);
    if let Some(pulse) = maps::pulse(key) {
        compare(key, generation, pulse, kind == EventKind::Silent as u32);
    }
    0
}

#[inline(always)]
fn compare(key: SlotKey, generation: u32, pulse: &mut Pulse, silent: bool) {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    pulse.looked_ns = now;
    let since = if silent {
        pulse.asked_ns
    } else {
        pulse.failing_ns
    };
    let Some((peers, len)) = peers(key, since) else {
        return;
    };
    let (guilty, kind, reason) = if silent {
        (
            pulse.is_silent(&peers, now),
            EventKind::Silent,
            Reason::Silent,
        )
    } else {
        (
            pulse.is_failing(&peers, now),
            EventKind::Failing,
            Reason::Failing,
        )
    };
    if guilty && peers.spare_one(len) && backend::pass_by(key, generation, kind) {
        count(reason);
    }
}

/// Looks at all others in the ring of a slot's service, and says how many slots the ring has.
#[inline(always)]
fn peers(key: SlotKey, since: u64) -> Option<(Peers, u32)> {
    let index = u32::from(key.service);
    let served = served(maps::ring(index, maps::service(index)?.ring)?);
    let mut peers = Peers::default();
    for slot in 0..SLOTS_PER_SERVICE as u32 {
        // No branch here: the verifier would follow both ways at each turn.
        let other = served >> slot & 1 & u64::from(slot != u32::from(key.slot));
        let peer = SlotKey {
            slot: slot as u16,
            ..key
        };
        orch_peer(peer.packed(), since, &raw mut peers, other as u32);
    }
    Some((peers, served.count_ones()))
}

/// The slots that have a turn, each by its bit: one of greater weight has several turns.
#[inline(always)]
fn served(ring: &Ring) -> u64 {
    let mut served = 0;
    for at in 0..RING_TURNS as u32 {
        if at >= ring.len {
            break;
        }
        served |= 1 << (turn::at(ring, at).slot & 63);
    }
    served
}

const _: () = assert!(SLOTS_PER_SERVICE == u64::BITS as usize);

/// Looks at one of them. Checked once by itself (`choice`): in the loop, its paths would multiply.
/// Always 0.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_peer(slot: u32, since: u64, peers: *mut Peers, other: u32) -> i32 {
    if other == 0 {
        return 0;
    }
    let key = SlotKey::unpacked(slot);
    // SAFETY: the verifier knows the size and lets nobody call with less; it may be null.
    if let (Some(peer), Some(peers)) = (maps::pulse(key), unsafe { peers.as_mut() }) {
        peers.see(peer, since, is_compared(peer.why));
    }
    0
}
