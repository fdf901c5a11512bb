//! Which ports are a controller's own?

use std::{
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    sync::{LazyLock, atomic::AtomicU16},
};

/// First port that services listen on.
pub(super) const LISTEN: u16 = 18081;
/// First slot port.
pub(super) const SLOTS: u16 = 18200;
/// Slot ports per controller.
pub(super) const ROOM: u16 = 10;
/// Controllers per process, until their ports are used again.
pub(super) const CONTROLLERS: u16 = 23;
/// Processes that may run such tests beside each other.
const PROCESSES: u16 = 5;

pub(super) static NEXT: AtomicU16 = AtomicU16::new(0);
/// Which of these processes this one is. The socket is held to the end, so that it is no other.
pub(super) static PLACE: LazyLock<(u16, UnixListener)> = LazyLock::new(|| {
    let take = |place: u16| {
        let address = SocketAddr::from_abstract_name(format!("orch-e2e-{place}")).unwrap();
        Some((place, UnixListener::bind_addr(&address).ok()?))
    };
    let taken = (0..PROCESSES).find_map(take);
    taken.expect("too many processes run these tests at once")
});
