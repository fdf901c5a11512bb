//! What has the kernel told of interfaces, addresses and routes, and what of it is to be done at once?

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use orch_common::{command::Verb, slot::SlotKey};

use super::{Dataplane, DataplaneError, slots::bare};

/// `RTMGRP_LINK`; `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR`; `RTMGRP_IPV4_ROUTE` and
/// `RTMGRP_IPV6_ROUTE`; `RTMGRP_IPV4_RULE` and `RTNLGRP_IPV6_RULE` (rtnetlink(7), linux/rtnetlink.h).
const GROUPS: u32 = 1 | 0x10 | 0x100 | 0x40 | 0x400 | 0x80 | 1 << 18;
/// `RTM_NEWADDR`, `RTM_DELADDR`.
const OF_ADDRESSES: [u16; 2] = [20, 21];
/// `RTM_NEWROUTE`, `RTM_DELROUTE`, `RTM_NEWRULE`, `RTM_DELRULE`.
const OF_ROUTES: [u16; 4] = [24, 25, 32, 33];
/// Bytes of one piece of news that are read: what it is of stands at its beginning (`struct nlmsghdr`).
const SHORT: usize = 64;
/// Between two walks over all flows: a host may change its routes all the time.
const PAUSE: Duration = Duration::from_millis(200);

/// News of interfaces, addresses and routes, in the namespace of the thread that opened it.
pub(super) struct News {
    socket: Option<Socket>,
    /// Routes have changed since flows were last told to look.
    routes: bool,
    told_at: Option<Instant>,
}

/// What some of the news was of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Topics {
    addresses: bool,
    routes: bool,
}

impl Topics {
    const ALL: Self = Self {
        addresses: true,
        routes: true,
    };

    /// The topic of a message.
    fn of(message: &[u8]) -> Self {
        let kind = message.get(4..6).and_then(|bytes| bytes.try_into().ok());
        let kind = kind.map_or(0, u16::from_ne_bytes);
        Self {
            addresses: OF_ADDRESSES.contains(&kind),
            routes: OF_ROUTES.contains(&kind),
        }
    }

    const fn and(self, other: Self) -> Self {
        Self {
            addresses: self.addresses | other.addresses,
            routes: self.routes | other.routes,
        }
    }
}

impl News {
    /// Without a descriptor there is no news, and interfaces are looked at now and then.
    pub(super) fn open() -> Self {
        let opened = open().inspect_err(|error| log::warn!("no news of interfaces: {error}"));
        Self {
            socket: opened.ok(),
            routes: false,
            told_at: None,
        }
    }

    /// Takes what there is, which silences the bell. Too much at once is an error, and may be of anything.
    fn take(&self) -> Topics {
        let Some(socket) = &self.socket else {
            return Topics::default();
        };
        let mut topics = Topics::default();
        loop {
            let mut read = Vec::with_capacity(SHORT);
            match socket.recv(&mut read, 0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return topics,
                Err(_) => topics = Topics::ALL,
                Ok(_) => topics = topics.and(Topics::of(&read)),
            }
        }
    }

    /// Whether flows are to be told now that routes have changed.
    fn is_to_tell(&mut self) -> bool {
        let rests = self.told_at.is_some_and(|told| told.elapsed() < PAUSE);
        if !self.routes || rests {
            return false;
        }
        self.routes = false;
        self.told_at = Some(Instant::now());
        true
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, GROUPS))?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

impl Dataplane {
    /// Readable whenever the host's interfaces, addresses or routes have changed, until [`Self::hear`] is
    /// called.
    pub fn link_bell(&self) -> Option<OwnedFd> {
        let socket = self.news.socket.as_ref()?;
        socket.as_fd().try_clone_to_owned().ok()
    }

    /// Takes what the bell has rung for, and has replies of open connections follow the routes if those
    /// have changed: at once, or in a later call if that has just been done. Says whether the host may
    /// have other addresses.
    ///
    /// # Errors
    /// The kernel does not run the command; replies then follow within the sweep's two seconds.
    pub fn hear(&mut self) -> Result<bool, DataplaneError> {
        let topics = self.news.take();
        self.news.routes |= topics.routes;
        if self.news.is_to_tell() {
            self.reroute()?;
        }
        Ok(topics.addresses)
    }

    /// Has the next packet of each client look its route up.
    fn reroute(&mut self) -> Result<(), DataplaneError> {
        if self.swept == Some(self.born()?) {
            return Ok(());
        }
        let any = SlotKey {
            service: 0,
            slot: 0,
        };
        self.command(&bare(Verb::Reroute, any))
    }
}
