//! What is counted and measured, and what the controller is told.

use aya_ebpf::{
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, PerCpuHashMap, RingBuf, lpm_trie::Key},
    macros::btf_map,
};
use orch_common::{
    counter::{Bytes, Reason, SlotCounters},
    event::Event,
    flow::Census,
    latency::Histogram,
    layout::{EVENTS_BYTES, MAX_PATHS, MAX_SLOTS},
    pulse::Pulse,
    service::{PathKey, PathRule},
    slot::SlotKey,
};

use super::{NO_PREALLOC, element};

#[btf_map]
static PATHS: LpmTrie<PathKey, PathRule, MAX_PATHS, NO_PREALLOC> = LpmTrie::new();
#[btf_map]
static COUNTERS: PerCpuHashMap<SlotKey, SlotCounters, MAX_SLOTS> = PerCpuHashMap::new();
#[btf_map]
static BYTES: PerCpuArray<Bytes, MAX_SLOTS> = PerCpuArray::new();
#[btf_map]
static REASONS: PerCpuArray<u64, { Reason::COUNT }> = PerCpuArray::new();
#[btf_map]
static LATENCY: HashMap<SlotKey, Histogram, MAX_SLOTS> = HashMap::new();
#[btf_map]
static PULSES: Array<Pulse, MAX_SLOTS> = Array::new();
#[btf_map]
static CENSUS: Array<Census, MAX_SLOTS> = Array::new();
#[btf_map]
static EPOCH: Array<u32, 1> = Array::new();
#[btf_map]
static EVENTS: RingBuf<Event, EVENTS_BYTES> = RingBuf::new();

/// The rule for the longest prefix of a path.
#[inline(always)]
pub fn path_rule(key: &Key<PathKey>) -> Option<PathRule> {
    PATHS.get(key).copied()
}

/// This CPU's counters of a slot.
#[inline(always)]
pub fn counters(key: &SlotKey) -> Option<&'static mut SlotCounters> {
    element(COUNTERS.get_ptr_mut(key))
}

/// This CPU's bytes of a slot.
#[inline(always)]
pub fn bytes(key: SlotKey) -> Option<&'static mut Bytes> {
    element(BYTES.get_ptr_mut(key.index()))
}

/// This CPU's counter of a reason.
#[inline(always)]
pub fn reason(reason: Reason) -> Option<*mut u64> {
    REASONS.get_ptr_mut(reason as u32)
}

/// The response times of a slot.
#[inline(always)]
pub fn latency(key: &SlotKey) -> Option<&'static mut Histogram> {
    element(LATENCY.get_ptr_mut(key))
}

/// What a slot's traffic says of its backend.
#[inline(always)]
pub fn pulse(key: SlotKey) -> Option<&'static mut Pulse> {
    element(PULSES.get_ptr_mut(key.index()))
}

/// What a sweep has found of a slot.
#[inline(always)]
pub fn census(key: SlotKey) -> Option<&'static mut Census> {
    element(CENSUS.get_ptr_mut(key.index()))
}

/// Sweeps so far.
#[inline(always)]
pub fn epoch() -> u32 {
    EPOCH.get(0).copied().unwrap_or_default()
}

/// Counts a sweep and gives the new number.
#[inline(always)]
pub fn next_epoch() -> u32 {
    element(EPOCH.get_ptr_mut(0)).map_or(0, |epoch| {
        *epoch = epoch.wrapping_add(1);
        *epoch
    })
}

/// Tells the controller; nothing is told while the buffer is full.
#[inline(always)]
pub fn tell(event: &Event) {
    let _ = EVENTS.output(event, 0);
}
