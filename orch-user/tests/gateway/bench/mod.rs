//! A gateway on loopback, with copies that are told what to do by the path.

mod copy;
mod gate;
mod talk;

use std::{
    net::{Ipv4Addr, TcpListener},
    thread,
    time::{Duration, Instant},
};

pub(crate) use self::{
    copy::Copy,
    gate::{Gate, spawn},
    talk::{Answer, Talk},
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until it gives something.
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: in vain");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A port that nobody uses, as far as one can know.
pub(crate) fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap().port()
}
