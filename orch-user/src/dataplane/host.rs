//! What of the host the data plane has to know: interfaces and addresses.

use std::net::IpAddr;

use netlink_packet_route::link::{InfoKind, LinkLayerType};
use orch_common::address::{self, Address};

use super::{
    DataplaneError,
    attach::Role,
    links::{self, Link},
};
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
    /// A bridge: its ports are where packets come in. `inner` where none of them leads out of the
    /// host.
    Bridge { inner: bool },
    /// A port of a bridge that leads out of the host.
    OuterPort,
    /// A port of a bridge that leads to a container or a virtual machine.
    InnerPort,
    /// Without Ethernet headers: not supported.
    Bare,
    /// Any other.
    Plain,
}

/// What there is.
pub(super) struct Seen {
    /// Every interface that is up.
    pub(super) interfaces: Vec<Interface>,
    /// Indices of all, up or not.
    pub(super) exist: Vec<u32>,
    /// Every address of the host.
    pub(super) addresses: Vec<Address>,
}

/// Looks at the host.
pub(super) fn look() -> Result<Seen, DataplaneError> {
    let failed = |source| DataplaneError::file("/proc/net/dev", source);
    let owned = links::addresses().map_err(failed)?;
    let all = links::links().map_err(failed)?;
    let outer: Vec<u32> = all.iter().filter_map(leads_out).collect();
    let exist = all.iter().map(|link| link.index).collect();
    let interfaces = all
        .into_iter()
        .filter(|link| link.up)
        .map(|link| Interface {
            index: link.index,
            kind: kind(&link, &outer),
            has_address: owned.iter().any(|known| known.index == link.index),
            name: link.name,
        })
        .collect();
    let mut addresses: Vec<Address> = owned
        .iter()
        .map(|known| to_address(known.address))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(Seen {
        interfaces,
        exist,
        addresses,
    })
}

/// Why an interface can be no uplink, whoever names it.
pub(super) fn never(interface: &Interface) -> Option<&'static str> {
    match interface.kind {
        Kind::Loopback => Some("clients on this host are balanced where they connect"),
        Kind::Bare => Some("it has no Ethernet headers, which is not supported"),
        _ => None,
    }
}

/// The role of an interface. A named interface is an uplink wherever it can be; `auto` takes those with
/// an address, and the ports by which a bridge leads out. What is left of either is guarded.
pub(super) fn role(interface: &Interface, wanted: &Interfaces) -> Option<Role> {
    let plain = matches!(interface.kind, Kind::Plain | Kind::OuterPort);
    match wanted {
        _ if never(interface).is_some() => None,
        Interfaces::Named(names) if names.contains(&interface.name) => Some(Role::Uplink),
        Interfaces::Named(_) => plain.then_some(Role::Guarded),
        Interfaces::Auto => {
            let uplink = interface.kind == Kind::OuterPort || interface.has_address;
            plain.then_some(if uplink { Role::Uplink } else { Role::Guarded })
        }
    }
}

/// `outer` are the bridges that lead out of the host.
fn kind(link: &Link, outer: &[u32]) -> Kind {
    match link.layer {
        LinkLayerType::Loopback => Kind::Loopback,
        LinkLayerType::Ether if link.kind == Some(InfoKind::Bridge) => Kind::Bridge {
            inner: !outer.contains(&link.index),
        },
        LinkLayerType::Ether if link.bridge.is_none() => Kind::Plain,
        LinkLayerType::Ether if leads_out(link).is_some() => Kind::OuterPort,
        LinkLayerType::Ether => Kind::InnerPort,
        _ => Kind::Bare,
    }
}

/// The bridge that leads out of the host by this port.
fn leads_out(link: &Link) -> Option<u32> {
    let within = matches!(
        link.kind,
        Some(InfoKind::Veth | InfoKind::Tun | InfoKind::MacVtap)
    );
    link.bridge.filter(|_| !within)
}

/// A bridge of containers or virtual machines, which has the host's address in their network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// Its index, which no later interface gets.
    pub index: u32,
}

/// The bridges that lead nowhere but into this host. None where one of them is named as an uplink: what
/// containers send is balanced and held there, and the connect hook cannot tell those bridges from
/// others.
pub(super) fn inner_bridges(interfaces: &[Interface], wanted: &Interfaces) -> Vec<Bridge> {
    let inner = |one: &&Interface| one.kind == Kind::Bridge { inner: true } && one.has_address;
    let found = || interfaces.iter().filter(inner);
    if found().any(|bridge| role(bridge, wanted).is_some()) {
        return Vec::new();
    }
    let bridges = found().map(|bridge| Bridge {
        name: bridge.name.clone(),
        index: bridge.index,
    });
    bridges.collect()
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
            (Kind::Bridge { inner: true }, true, None),
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
        let bridge = interface(Kind::Bridge { inner: true }, true);
        assert_eq!(role(&bridge, &named), None);
        let named = Interfaces::Named(vec!["x0".to_owned()]);
        assert_eq!(
            role(&interface(Kind::Plain, true), &named),
            Some(Role::Uplink)
        );
        for kind in [Kind::Loopback, Kind::Bare] {
            assert_eq!(role(&interface(kind, true), &named), None, "{kind:?}");
        }
    }

    #[test]
    fn containers_come_by_bridges_that_lead_nowhere_else() {
        let auto = Interfaces::Auto;
        let found = |kind, has_address, wanted: &Interfaces| {
            let mut second = interface(Kind::Bridge { inner: true }, true);
            "y0".clone_into(&mut second.name);
            let both = [interface(kind, has_address), second];
            inner_bridges(&both, wanted).len()
        };
        assert_eq!(found(Kind::Bridge { inner: true }, true, &auto), 2);
        assert_eq!(found(Kind::Bridge { inner: false }, true, &auto), 1);
        assert_eq!(found(Kind::Bridge { inner: true }, false, &auto), 1);
        assert_eq!(found(Kind::Plain, true, &auto), 1);
        let named = Interfaces::Named(vec!["x0".to_owned()]);
        let bridge = Kind::Bridge { inner: true };
        assert_eq!(found(bridge, true, &named), 0, "held where they come in");
    }
}
