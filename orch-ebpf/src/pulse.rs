//! Passive health: what a slot's traffic says of its backend.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use orch_common::{
    event::EventKind,
    flow::{Flow, mark},
    pulse::{PAUSE_NS, Pulse, UNANSWERED},
    slot::SlotKey,
};

use crate::{atomic, backend, maps, tally};

/// A request goes to the slot of a flow. Says whether the slot has to be compared with its peers.
#[inline(always)]
pub fn asked(flow: &mut Flow, now: u64) -> bool {
    let Some(pulse) = maps::pulse(flow.slot_key()).filter(|_| backend::is_current(flow)) else {
        return false;
    };
    tally::begins(flow, pulse);
    let known = flow.is(mark::GIVEN) && pulse.unanswered > 0;
    flow.set(mark::GIVEN, false);
    if known {
        return pulse.may_be_silent(now) && is_due(pulse, now);
    }
    if atomic::fetch_add(&raw mut pulse.unanswered, 1) == 0 {
        pulse.asked_ns = now;
        return false;
    }
    pulse.may_be_silent(now) && is_due(pulse, now)
}

/// A slot sends the first bytes of a response, of whatever kind.
#[inline(always)]
pub fn spoke(flow: &Flow) {
    let key = flow.slot_key();
    // What a backend before it still says is none of its own.
    let Some(pulse) = maps::pulse(key).filter(|_| backend::is_current(flow)) else {
        return;
    };
    if pulse.unanswered > UNANSWERED {
        // SAFETY: the helper has no preconditions.
        pulse.speaks(unsafe { bpf_ktime_get_ns() });
    } else {
        pulse.unanswered = 0;
    }
    // It was behind, and no more than that: its limits stay as they are.
    if pulse.why == EventKind::Silent as u32
        && let Some(slot) = maps::slot(&key)
        && slot.generation == flow.generation
    {
        pulse.clear(0, false);
        slot.alive = 1;
    }
}

/// The slot of a flow has answered; `at` is when, and after which time. Says whether the slot has to be
/// compared with its peers.
#[inline(always)]
pub fn answered(flow: &mut Flow, error: bool, at: (u64, u64)) -> bool {
    let Some(pulse) = maps::pulse(flow.slot_key()) else {
        return false;
    };
    tally::ends(flow, pulse);
    if !backend::is_current(flow) {
        return false;
    }
    let (now, taken) = at;
    // Its initial sequence number tells a connection from others.
    pulse.answered(now, taken, error, flow.isn);
    error && pulse.may_be_failing(now) && is_due(pulse, now)
}

/// Whether it may be compared again.
#[inline(always)]
pub const fn is_due(pulse: &Pulse, now: u64) -> bool {
    pulse.why == 0 && now.wrapping_sub(pulse.looked_ns) >= PAUSE_NS
}

/// Another backend is in the slot.
#[inline(always)]
pub fn begin(key: SlotKey) {
    if let Some(pulse) = maps::pulse(key) {
        *pulse = Pulse::default();
    }
}

/// Picks consider the slot again.
#[inline(always)]
pub fn clear(key: SlotKey) {
    if let Some(pulse) = maps::pulse(key)
        && pulse.why != 0
    {
        // SAFETY: the helper has no preconditions.
        let now = unsafe { bpf_ktime_get_ns() };
        pulse.clear(now, is_compared(pulse.why));
    }
}

/// Whether a slot is passed by because of such a comparison.
#[inline(always)]
pub const fn is_compared(why: u32) -> bool {
    why == EventKind::Silent as u32 || why == EventKind::Failing as u32
}
