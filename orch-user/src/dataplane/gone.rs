//! Which backends have lost their interface, and when is that to be looked at, and the host's addresses? An engine that cuts a
//! container off its network tells nobody who does not ask, and the container lives on.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use orch_common::slot::SlotKey;

use super::{Dataplane, is_interface};

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR`: interfaces come, change and go, and so do
/// addresses (rtnetlink(7)).
const GROUPS: u32 = 1 | 0x10 | 0x100;
/// Types of what is told of addresses: `RTM_NEWADDR`, `RTM_DELADDR`.
const OF_ADDRESSES: [u16; 2] = [20, 21];
/// Bytes of one piece of news that are read: what it is of stands at its beginning (`struct nlmsghdr`).
const SHORT: usize = 64;

/// News of interfaces, in the namespace of the thread that opened it.
pub(super) struct News(Option<Socket>);

impl News {
    /// Without a descriptor there is no news, and interfaces are looked at now and then.
    pub(super) fn open() -> Self {
        let opened = open().inspect_err(|error| log::warn!("no news of interfaces: {error}"));
        Self(opened.ok())
    }

    /// Takes what there is, which silences the bell, and says whether some of it is of addresses. Too much
    /// at once is an error, and may be.
    fn take(&self) -> bool {
        let Some(socket) = &self.0 else { return false };
        let mut of_addresses = false;
        loop {
            let mut read = Vec::with_capacity(SHORT);
            match socket.recv(&mut read, 0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return of_addresses,
                Err(_) => of_addresses = true,
                Ok(_) => {
                    of_addresses |= kind(&read).is_some_and(|kind| OF_ADDRESSES.contains(&kind));
                }
            }
        }
    }
}

/// The type of a message.
fn kind(message: &[u8]) -> Option<u16> {
    let kind = message.get(4..6)?;
    Some(u16::from_ne_bytes(kind.try_into().ok()?))
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, GROUPS))?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

impl Dataplane {
    /// Readable whenever [`Self::cut_off`] may have changed, or the host's addresses, until [`Self::hear`]
    /// is called.
    pub fn link_bell(&self) -> Option<OwnedFd> {
        let socket = self.link_news.0.as_ref()?;
        socket.as_fd().try_clone_to_owned().ok()
    }

    /// Takes what the bell has rung for. Says whether the host may have other addresses.
    pub fn hear(&self) -> bool {
        self.link_news.take()
    }

    /// Slots whose backends are to be reached by interfaces that are gone.
    pub fn cut_off(&self) -> Vec<SlotKey> {
        let ways = self.ways.of_slots();
        let gone = ways.filter(|(_, ifindex)| !is_interface(*ifindex));
        gone.map(|(key, _)| key).collect()
    }
}
