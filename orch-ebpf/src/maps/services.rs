//! Services, their slots, and where they are found.

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    macros::btf_map,
};
use orch_common::{
    address::Address,
    layout::{
        MAX_ADDRESSES, MAX_NETNS, MAX_PROCESSES, MAX_SERVICES, MAX_SLOTS, PORT_WORDS,
        PORTS as PORT_COUNT, RING_BANKS,
    },
    service::{ListenerKey, Maglev, Netns, Port, Ring, RingKey, Service},
    slot::{Owner, Slot, SlotKey},
};

use super::{NO_PREALLOC, element};

/// Rings of all services.
const RINGS: usize = MAX_SERVICES * RING_BANKS;
/// Listeners of all services: one for each family.
const LISTENER_COUNT: usize = 2 * MAX_SERVICES;

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
static PROCESSES: HashMap<u32, Owner, MAX_PROCESSES> = HashMap::new();

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
