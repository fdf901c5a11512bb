//! Flows, and what is known of those that are half open.

use aya_ebpf::{
    btf_maps::{Array, LruHashMap, PerCpuArray, SkStorage},
    macros::btf_map,
};
use orch_common::{
    flow::{Flow, FlowKey, Queue, Scratch, Socket},
    layout::{DEFAULT_FLOWS, MAX_HALF_OPEN, MAX_SYNS},
    syn::Syn,
};

use super::element;

#[btf_map]
static FLOWS: LruHashMap<FlowKey, Flow, DEFAULT_FLOWS> = LruHashMap::new();
#[btf_map]
static REPLIES: LruHashMap<FlowKey, FlowKey, DEFAULT_FLOWS> = LruHashMap::new();
#[btf_map]
static SYNS: LruHashMap<FlowKey, Syn, MAX_SYNS> = LruHashMap::new();
#[btf_map]
static HALF_OPEN: Array<FlowKey, MAX_HALF_OPEN> = Array::new();
#[btf_map]
static QUEUE: Array<Queue, 1> = Array::new();
#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();
#[btf_map]
static SOCKETS: SkStorage<Socket> = SkStorage::new();

/// A flow.
#[inline(always)]
pub fn flow(key: &FlowKey) -> Option<&'static mut Flow> {
    element(FLOWS.get_ptr_mut(key))
}

/// Stores a flow, over an earlier one of the same key.
#[inline(always)]
pub fn insert_flow(key: &FlowKey, flow: &Flow) -> Result<(), i32> {
    FLOWS.insert(key, flow, 0)
}

/// Forgets a flow.
#[inline(always)]
pub fn remove_flow(key: &FlowKey) {
    // It may have been evicted meanwhile.
    let _ = FLOWS.remove(key);
}

/// The key of the flow whose replies have this key.
#[inline(always)]
pub fn reply(key: &FlowKey) -> Option<&'static mut FlowKey> {
    element(REPLIES.get_ptr_mut(key))
}

/// Stores where the replies of a flow belong.
#[inline(always)]
pub fn insert_reply(key: &FlowKey, flow: &FlowKey) -> Result<(), i32> {
    REPLIES.insert(key, flow, 0)
}

/// Forgets it.
#[inline(always)]
pub fn remove_reply(key: &FlowKey) {
    // It may have been evicted meanwhile.
    let _ = REPLIES.remove(key);
}

/// The SYN of a flow that has not been answered.
#[inline(always)]
pub fn syn(key: &FlowKey) -> Option<&'static mut Syn> {
    element(SYNS.get_ptr_mut(key))
}

/// Remembers the SYN of a flow. Without it the flow goes on, and cannot be rescued.
#[inline(always)]
pub fn insert_syn(key: &FlowKey, syn: &Syn) {
    let _ = SYNS.insert(key, syn, 0);
}

/// How many half-open flows there may be, and have been.
#[inline(always)]
pub fn queue() -> Option<&'static mut Queue> {
    element(QUEUE.get_ptr_mut(0))
}

/// A place of a half-open flow.
#[inline(always)]
pub fn half_open(place: u32) -> Option<&'static mut FlowKey> {
    element(HALF_OPEN.get_ptr_mut(place))
}

/// This CPU's room for keys.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    element(SCRATCH.get_ptr_mut(0))
}

/// The map of flows itself, for iterating.
#[inline(always)]
pub fn flows() -> *mut core::ffi::c_void {
    core::ptr::from_ref(&FLOWS).cast_mut().cast()
}

/// The map of SYNs itself, for iterating.
#[inline(always)]
pub fn syns() -> *mut core::ffi::c_void {
    core::ptr::from_ref(&SYNS).cast_mut().cast()
}

/// The map of sockets itself, for the storage helpers.
#[inline(always)]
pub fn sockets() -> *mut core::ffi::c_void {
    core::ptr::from_ref(&SOCKETS).cast_mut().cast()
}
