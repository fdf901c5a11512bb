//! What of the host the data plane has to know: interfaces and addresses.

use std::{net::IpAddr, path::Path};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use orch_common::address::{self, Address};

use super::{DataplaneError, attach::Role};
use crate::config::Interfaces;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    /// Its name.
    pub(super) name: String,
    /// Its index, which no later interface gets.
    pub(super) index: u32,
    kind: Kind,
    has_address: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Loopback.
    Loopback,
    /// A bridge: its ports are where packets come in.
    Bridge,
    /// A port of a bridge that leads out of the host.
    OuterPort,
    /// A port of a bridge that leads to a container or a virtual machine.
    InnerPort,
    /// Without Ethernet headers: not supported.
    Bare,
    /// Any other.
    Plain,
}

/// Every interface that is up, and every address of the host.
pub(super) fn look() -> Result<(Vec<Interface>, Vec<Address>), DataplaneError> {
    let listed = getifaddrs().map_err(|errno| DataplaneError::file("/proc/net/dev", errno))?;
    let mut interfaces: Vec<Interface> = Vec::new();
    let mut addresses = Vec::new();
    for entry in listed {
        let Some(storage) = entry.address.as_ref() else {
            continue;
        };
        if let Some(ip) = ip(storage) {
            addresses.push(to_address(ip));
            if let Some(known) = interfaces
                .iter_mut()
                .find(|i| i.name == entry.interface_name)
            {
                known.has_address = true;
            }
        } else if let Some(link) = storage.as_link_addr()
            && entry.flags.contains(InterfaceFlags::IFF_UP)
        {
            // The link entry of an interface comes before its addresses.
            interfaces.push(Interface {
                index: link.ifindex() as u32,
                kind: kind(&entry.interface_name, link.hatype()),
                name: entry.interface_name,
                has_address: false,
            });
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    Ok((interfaces, addresses))
}

/// The role of an interface. A named interface is an uplink whatever it is; `auto` takes those with
/// an address, and the ports by which a bridge leads out. What is left of either is guarded.
pub(super) fn role(interface: &Interface, wanted: &Interfaces) -> Option<Role> {
    let plain = matches!(interface.kind, Kind::Plain | Kind::OuterPort);
    match wanted {
        Interfaces::Named(names) if names.contains(&interface.name) => Some(Role::Uplink),
        Interfaces::Named(_) => plain.then_some(Role::Guarded),
        Interfaces::Auto => {
            let uplink = interface.kind == Kind::OuterPort || interface.has_address;
            plain.then_some(if uplink { Role::Uplink } else { Role::Guarded })
        }
    }
}

fn kind(name: &str, hardware: u16) -> Kind {
    let dir = Path::new("/sys/class/net").join(name);
    match hardware {
        ARPHRD_LOOPBACK => Kind::Loopback,
        ARPHRD_ETHER if dir.join("bridge").exists() => Kind::Bridge,
        ARPHRD_ETHER if dir.join("brport").exists() && dir.join("device").exists() => {
            Kind::OuterPort
        }
        ARPHRD_ETHER if dir.join("brport").exists() => Kind::InnerPort,
        ARPHRD_ETHER => Kind::Plain,
        _ => Kind::Bare,
    }
}

/// From `linux/if_arp.h`.
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

fn ip(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|address| IpAddr::V6(address.ip()))
    })
}

/// An address as the maps hold it.
pub(super) fn to_address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => address::from_v4(ip.octets()),
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(kind: Kind, has_address: bool) -> Interface {
        Interface {
            name: "x0".to_owned(),
            index: 7,
            kind,
            has_address,
        }
    }

    #[test]
    fn auto_takes_what_leads_out() {
        let auto = Interfaces::Auto;
        for (kind, has_address, expected) in [
            (Kind::Plain, true, Some(Role::Uplink)),
            (Kind::Plain, false, Some(Role::Guarded)),
            (Kind::OuterPort, false, Some(Role::Uplink)),
            (Kind::InnerPort, false, None),
            (Kind::Bridge, true, None),
            (Kind::Loopback, true, None),
            (Kind::Bare, true, None),
        ] {
            assert_eq!(
                role(&interface(kind, has_address), &auto),
                expected,
                "{kind:?}"
            );
        }
    }

    #[test]
    fn what_is_not_named_is_guarded() {
        let named = Interfaces::Named(vec!["y0".to_owned()]);
        assert_eq!(
            role(&interface(Kind::Plain, true), &named),
            Some(Role::Guarded)
        );
        assert_eq!(role(&interface(Kind::Bridge, true), &named), None);
        let named = Interfaces::Named(vec!["x0".to_owned()]);
        assert_eq!(
            role(&interface(Kind::Plain, true), &named),
            Some(Role::Uplink)
        );
    }
}
