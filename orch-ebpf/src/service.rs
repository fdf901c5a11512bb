//! Which service a connection is for.

use orch_common::{
    address::{self, Address},
    service::ListenerKey,
};

use crate::maps;

/// The index of the service that listens at this address of the host and port. `loopback` says
/// whether the address is the asker's own loopback, which is always the host's.
#[inline(always)]
pub fn listening(local: &Address, port: u16, loopback: bool) -> Option<u32> {
    u32::try_from(orch_listening(local, u32::from(port), u32::from(loopback))).ok()
}

/// An index, or a number below zero. Checked once by itself (`choice`), for the sake of its stack.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_listening(local: *const Address, port: u32, loopback: u32) -> i32 {
    // SAFETY: the verifier knows the address's size and lets nobody call with less; it may be null.
    let Some(local) = (unsafe { local.as_ref() }) else {
        return -1;
    };
    find(local, port as u16, loopback == 1).map_or(-1, |index| index as i32)
}

#[inline(always)]
fn find(local: &Address, port: u16, loopback: bool) -> Option<u32> {
    let mut key = ListenerKey {
        address: *local,
        port,
        pad: 0,
    };
    if let Some(index) = maps::listener(&key) {
        return Some(index);
    }
    let own = key.address;
    key.address = address::any_of(&own);
    let index = maps::listener(&key)?;
    (loopback || maps::is_local(&own)).then_some(index)
}
