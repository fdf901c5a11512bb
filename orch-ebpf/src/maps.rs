//! Every map, and the typed way to it. No other file names a map.

use aya_ebpf::{
    btf_maps::{
        Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf, SkStorage,
        SockHash, lpm_trie::Key,
    },
    macros::btf_map,
    maps::ring_buf::RingBufEntry,
};
use orch_common::{
    address::Address,
    counter::{Bytes, Reason, SlotCounters},
    event::Event,
    flow::{Census, Flow, FlowKey, Queue, Scratch, Socket},
    hold::{BUCKETS as BUCKET_COUNT, HELD_BYTES, HeldSyn, Holding, SIGNATURES as SIGNATURE_COUNT},
    latency::Histogram,
    layout::{
        DEFAULT_FLOWS, EVENTS_BYTES, MAX_ADDRESSES, MAX_HALF_OPEN, MAX_NETNS, MAX_PATHS,
        MAX_PROCESSES, MAX_RELAYS, MAX_SERVICES, MAX_SLOTS, MAX_SYNS, PORT_WORDS,
        PORTS as PORT_COUNT, RING_BANKS,
    },
    pulse::Pulse,
    relay::{Relay, RelayEnd, RelayKey},
    service::{ListenerKey, Maglev, Netns, PathKey, PathRule, Port, Ring, RingKey, Service},
    slot::{Owner, Slot, SlotKey},
    syn::Syn,
};

/// Rings of all services.
const RINGS: usize = MAX_SERVICES * RING_BANKS;
/// `BPF_F_NO_PREALLOC`: a trie demands it, and elsewhere an entry that is removed is not another's at
/// once, to which somebody still writes.
const NO_PREALLOC: usize = 1;
/// Listeners of all services: one for each family.
const LISTENER_COUNT: usize = 2 * MAX_SERVICES;
/// Both ends of every connection.
const RELAY_END_COUNT: usize = 2 * MAX_RELAYS;

#[btf_map]
static SERVICES: HashMap<u32, Service, MAX_SERVICES> = HashMap::new();
#[btf_map]
static LISTENERS: HashMap<ListenerKey, u32, LISTENER_COUNT> = HashMap::new();
#[btf_map]
static SLOTS: HashMap<SlotKey, Slot, MAX_SLOTS> = HashMap::new();
#[btf_map]
static GENERATIONS: Array<u32, MAX_SLOTS> = Array::new();
#[btf_map]
static RING: HashMap<RingKey, Ring, RINGS> = HashMap::new();
#[btf_map]
static MAGLEV: HashMap<RingKey, Maglev, RINGS, NO_PREALLOC> = HashMap::new();
#[btf_map]
static CURSOR: Array<u64, MAX_SERVICES> = Array::new();
#[btf_map]
static PORTS: Array<Port, PORT_COUNT> = Array::new();
#[btf_map]
static SOCKET_PORTS: Array<u64, PORT_WORDS> = Array::new();
#[btf_map]
static ADDRESSES: HashMap<Address, u32, MAX_ADDRESSES> = HashMap::new();
#[btf_map]
static NETNS: HashMap<u64, Netns, MAX_NETNS> = HashMap::new();
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
static PROCESSES: HashMap<u32, Owner, MAX_PROCESSES> = HashMap::new();
#[btf_map]
static SOCKETS: SkStorage<Socket> = SkStorage::new();
#[btf_map]
static RELAYS: HashMap<RelayKey, Relay, MAX_RELAYS, NO_PREALLOC> = HashMap::new();
#[btf_map]
static RELAY_ENDS: SockHash<RelayKey, RELAY_END_COUNT> = SockHash::new();
#[btf_map]
static RELAY_SOCKETS: SkStorage<RelayEnd> = SkStorage::new();
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
#[btf_map]
static HOLDING: Array<Holding, MAX_SERVICES> = Array::new();
#[btf_map]
static HELD: RingBuf<HeldSyn, HELD_BYTES> = RingBuf::new();
#[btf_map]
static SIGNATURES: Array<u64, SIGNATURE_COUNT> = Array::new();
#[btf_map]
static BUCKETS: Array<u64, BUCKET_COUNT> = Array::new();

/// A mutable reference into a map.
#[inline(always)]
fn element<T>(pointer: Option<*mut T>) -> Option<&'static mut T> {
    // SAFETY: the kernel keeps an element's memory in place while a program that has looked it up
    // runs. Other CPUs may write the same element: what must not be lost is changed by atomic
    // instructions, everything else is single aligned words of which the last one wins.
    pointer.map(|pointer| unsafe { &mut *pointer })
}

/// What a TCP port is.
#[inline(always)]
pub fn port(number: u16) -> Port {
    PORTS.get(u32::from(number)).copied().unwrap_or_default()
}

/// Whether a balanced socket of this host may be connected to this port.
#[inline(always)]
pub fn is_socket_port(number: u16) -> bool {
    let word = SOCKET_PORTS.get(u32::from(number >> 6)).copied();
    word.is_some_and(|word| word >> (number & 63) & 1 == 1)
}

/// A service by its index.
#[inline(always)]
pub fn service(index: u32) -> Option<&'static mut Service> {
    element(SERVICES.get_ptr_mut(index))
}

/// The index of the service that listens at exactly this address and port.
#[inline(always)]
pub fn listener(key: &ListenerKey) -> Option<u32> {
    element(LISTENERS.get_ptr_mut(key)).copied()
}

/// Whether this is an address of the host.
#[inline(always)]
pub fn is_local(address: &Address) -> bool {
    ADDRESSES.get_ptr(address).is_some()
}

/// A network namespace, if it is known.
#[inline(always)]
pub fn netns(cookie: u64) -> Option<&'static mut Netns> {
    element(NETNS.get_ptr_mut(cookie))
}

/// The ring in force of a service.
#[inline(always)]
pub fn ring(service: u32, generation: u32) -> Option<&'static mut Ring> {
    element(RING.get_ptr_mut(RingKey::new(service as u16, generation)))
}

/// The table in force of a service with `source_ip`.
#[inline(always)]
pub fn maglev(service: u32, generation: u32) -> Option<&'static mut Maglev> {
    element(MAGLEV.get_ptr_mut(RingKey::new(service as u16, generation)))
}

/// The cursor of a service, for atomic use.
#[inline(always)]
pub fn cursor(service: u32) -> Option<*mut u64> {
    CURSOR.get_ptr_mut(service)
}

/// A slot.
#[inline(always)]
pub fn slot(key: &SlotKey) -> Option<&'static mut Slot> {
    element(SLOTS.get_ptr_mut(key))
}

/// Creates a slot.
#[inline(always)]
pub fn insert_slot(key: &SlotKey, slot: &Slot) -> Result<(), i32> {
    SLOTS.insert(key, slot, 0)
}

/// Removes a slot.
#[inline(always)]
pub fn remove_slot(key: &SlotKey) -> Result<(), i32> {
    SLOTS.remove(key)
}

/// The generation of the backend in a slot; 0 for none.
#[inline(always)]
pub fn generation(key: SlotKey) -> u32 {
    GENERATIONS.get(key.index()).copied().unwrap_or_default()
}

/// Sets it.
#[inline(always)]
pub fn set_generation(key: SlotKey, generation: u32) {
    if let Some(cell) = element(GENERATIONS.get_ptr_mut(key.index())) {
        *cell = generation;
    }
}

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

/// Whose first process this is.
#[inline(always)]
pub fn process(pid: u32) -> Option<Owner> {
    element(PROCESSES.get_ptr_mut(pid)).copied()
}

/// Takes out whose process this was.
#[inline(always)]
pub fn take_process(pid: u32) -> Option<Owner> {
    let owner = process(pid)?;
    // It may come again as another process.
    let _ = PROCESSES.remove(pid);
    Some(owner)
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

/// A connection between the gateway and a copy.
#[inline(always)]
pub fn relay(key: &RelayKey) -> Option<&'static mut Relay> {
    element(RELAYS.get_ptr_mut(key))
}

/// Stores one.
#[inline(always)]
pub fn insert_relay(key: &RelayKey) -> Result<(), i32> {
    RELAYS.insert(key, Relay::default(), 0)
}

/// Forgets one: its bytes go by TCP from now on.
#[inline(always)]
pub fn remove_relay(key: &RelayKey) {
    // The other end may have removed it.
    let _ = RELAYS.remove(key);
}

/// The map of ends itself, for the helpers that put sockets into it and send to them.
#[inline(always)]
pub fn relay_ends() -> *mut core::ffi::c_void {
    core::ptr::from_ref(&RELAY_ENDS).cast_mut().cast()
}

/// The map of their sockets itself, for the storage helpers.
#[inline(always)]
pub fn relay_sockets() -> *mut core::ffi::c_void {
    core::ptr::from_ref(&RELAY_SOCKETS).cast_mut().cast()
}

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

/// Whether and how SYNs of a service wait.
#[inline(always)]
pub fn holding(service: u32) -> Option<&'static Holding> {
    element(HOLDING.get_ptr_mut(service)).map(|holding| &*holding)
}

/// The place of a signature.
#[inline(always)]
pub fn signature(signature: u64) -> Option<&'static mut u64> {
    element(SIGNATURES.get_ptr_mut((signature >> 32) as u32 % SIGNATURE_COUNT as u32))
}

/// A token bucket.
#[inline(always)]
pub fn bucket(index: u32) -> Option<&'static mut u64> {
    element(BUCKETS.get_ptr_mut(index))
}

/// Room for a held SYN; `None` while the buffer is full.
#[inline(always)]
pub fn held() -> Option<RingBufEntry<HeldSyn>> {
    HELD.reserve(0)
}

/// Tells the controller; nothing is told while the buffer is full.
#[inline(always)]
pub fn tell(event: &Event) {
    let _ = EVENTS.output(event, 0);
}
