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
    let mut key = ListenerKey {
        address: *local,
        port,
        pad: 0,
    };
    if let Some(index) = maps::listener(&key) {
        return Some(index);
    }
    key.address = address::any_of(local);
    let index = maps::listener(&key)?;
    (loopback || maps::is_local(local)).then_some(index)
}
