//! Which backends have lost their interface, and when is that to be looked at? An engine that cuts a
//! container off its network tells nobody who does not ask, and the container lives on.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use orch_common::slot::SlotKey;

use super::{Dataplane, is_interface};

/// `RTMGRP_LINK`: interfaces come, change and go (rtnetlink(7)).
const LINKS: u32 = 1;
/// Bytes of one piece of news that are read: nobody looks at them.
const SHORT: usize = 64;

/// News of interfaces, in the namespace of the thread that opened it.
pub(super) struct News(Option<Socket>);

impl News {
    /// Without a descriptor there is no news, and interfaces are looked at now and then.
    pub(super) fn open() -> Self {
        let opened = open().inspect_err(|error| log::warn!("no news of interfaces: {error}"));
        Self(opened.ok())
    }

    /// Takes what there is, which silences the bell. Too much of it at once is an error, and is news.
    fn take(&self) {
        let Some(socket) = &self.0 else { return };
        loop {
            let mut read = Vec::with_capacity(SHORT);
            match socket.recv(&mut read, 0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                _ => {}
            }
        }
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, LINKS))?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

impl Dataplane {
    /// Readable whenever [`Self::cut_off`] may have changed.
    pub fn link_bell(&self) -> Option<OwnedFd> {
        let socket = self.link_news.0.as_ref()?;
        socket.as_fd().try_clone_to_owned().ok()
    }

    /// Slots whose backends are to be reached by interfaces that are gone.
    pub fn cut_off(&self) -> Vec<SlotKey> {
        self.link_news.take();
        let ways = self.ways.of_slots();
        let gone = ways.filter(|(_, ifindex)| !is_interface(*ifindex));
        gone.map(|(key, _)| key).collect()
    }
}
