//! Connections between the gateway and copies whose bytes go from socket to socket.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    btf_maps::{HashMap, SkStorage, SockHash},
    macros::btf_map,
};
use orch_common::{
    layout::MAX_RELAYS,
    relay::{Relay, RelayEnd, RelayKey},
};

use super::{NO_PREALLOC, element};

/// Both ends of every connection.
const RELAY_END_COUNT: usize = 2 * MAX_RELAYS;

#[btf_map]
static RELAYS: HashMap<RelayKey, Relay, MAX_RELAYS, NO_PREALLOC> = HashMap::new();
#[btf_map]
static RELAY_ENDS: SockHash<RelayKey, RELAY_END_COUNT> = SockHash::new();
#[btf_map]
static RELAY_SOCKETS: SkStorage<RelayEnd> = SkStorage::new();

/// A connection between the gateway and a copy.
#[inline(always)]
pub fn relay(key: &RelayKey) -> Option<&'static mut Relay> {
    element(RELAYS.get_ptr_mut(key))
}

/// Stores one; an error where it is known.
#[inline(always)]
pub fn insert_relay(key: &RelayKey) -> Result<(), i32> {
    RELAYS.insert(key, Relay::default(), u64::from(BPF_NOEXIST))
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
