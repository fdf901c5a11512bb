//! Containers' network namespaces, seen from the host: which interface leads into one?

use std::{
    fs::File,
    io,
    net::{IpAddr, UdpSocket},
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, setns};
use orch_common::{address::Address, netns};

use super::{
    DataplaneError,
    host::to_address,
    links::{self, Link, Owned},
};

/// The way to a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    /// The file of its network namespace.
    pub(super) netns: PathBuf,
    /// Name of the host's end of its interface.
    pub(super) name: String,
    /// Its index.
    pub(super) ifindex: u32,
    /// The bridge that it is a port of; 0 if it is of none.
    pub(super) bridge: u32,
    /// The container's IPv6 address at that interface; zeros if it has none.
    pub(super) address6: Address,
}

/// What a look into a namespace shows.
pub(super) struct Inside {
    /// The namespace's cookie.
    pub(super) cookie: u64,
    links: Vec<Link>,
    addresses: Vec<Owned>,
}

/// Looks into the namespace in a file. A thread of its own enters it, and ends there.
pub(super) fn look(path: &Path) -> io::Result<Inside> {
    let file = File::open(path)?;
    let enter = move || {
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(Inside {
            cookie: own_cookie()?,
            links: links::links()?,
            addresses: links::addresses()?,
        })
    };
    let thread = thread::Builder::new()
        .name("sandbox".to_owned())
        .spawn(enter)?;
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

/// The cookie of the namespace that the calling thread is in.
pub(super) fn own_cookie() -> io::Result<u64> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    netns::cookie(UdpSocket::from(socket).as_fd())
}

/// The way to the container that has this address in this namespace.
pub(super) fn way(netns: &Path, address: IpAddr) -> Result<Way, DataplaneError> {
    let no_way = |why: &'static str| DataplaneError::NoWay {
        netns: netns.to_owned(),
        address,
        why,
    };
    let inside = look(netns).map_err(|source| DataplaneError::file(netns, source))?;
    let index = inside
        .addresses
        .iter()
        .find(|known| known.address == address)
        .map(|known| known.index)
        .ok_or_else(|| no_way("no interface in it has the address"))?;
    let peer = inside
        .links
        .iter()
        .find(|link| link.index == index)
        .and_then(|link| link.peer)
        .ok_or_else(|| no_way("its interface is no veth"))?;
    let host = links::links().map_err(|source| DataplaneError::file("/proc/net/dev", source))?;
    let end = host
        .iter()
        .find(|link| link.index == peer && link.peer.is_some())
        .ok_or_else(|| no_way("the other end of its interface is not on this host"))?;
    let second = inside
        .addresses
        .iter()
        .filter(|_| address.is_ipv4())
        .find(|known| known.index == index && known.global && known.address.is_ipv6());
    Ok(Way {
        netns: netns.to_owned(),
        name: end.name.clone(),
        ifindex: end.index,
        bridge: end.bridge.unwrap_or_default(),
        address6: second.map_or([0; 16], |known| to_address(known.address)),
    })
}

impl Inside {
    /// Indices of the host's ends of its interfaces.
    pub(super) fn peers(&self) -> impl Iterator<Item = u32> {
        self.links.iter().filter_map(|link| link.peer)
    }
}
