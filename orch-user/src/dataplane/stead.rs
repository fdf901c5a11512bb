//! The address of a backend that is gone, for a while one of this host's own: what its sockets still send
//! there comes back to them. A route of the table `local` does it, as for every other address of
//! the host (ip-route(8), type `local`).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::Path,
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};

use rustix::net::netdevice::index_to_name_inlined;

use super::links;

/// Who has made the route: a number that no routing daemon has (`rt_protos` of iproute2).
const PROTOCOL: u8 = 111;
/// `RT_TABLE_LOCAL`.
const LOCAL: u8 = 255;
/// The loopback interface of every namespace.
const LOOPBACK: u32 = 1;

/// Until this is dropped, the address is the host's, in the namespace of the thread that took it.
#[derive(Debug)]
pub struct Stead {
    route: RouteMessage,
}

impl Stead {
    /// Takes the place of an address on behalf of the controller with these pins. Fails where it has done
    /// so already, or this is not root.
    pub fn take(pin_dir: &Path, address: IpAddr) -> io::Result<Self> {
        let route = route(owner(pin_dir), address);
        links::converse(
            RouteNetlinkMessage::NewRoute(route.clone()),
            NLM_F_ACK | NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL,
        )?;
        Ok(Self { route })
    }
}

impl Drop for Stead {
    fn drop(&mut self) {
        if let Err(error) = links::ask(RouteNetlinkMessage::DelRoute(self.route.clone())) {
            log::warn!("a route for the address of a backend that is gone stays: {error}");
        }
    }
}

/// Removes what a controller with these pins has left that was killed.
pub(super) fn forget(pin_dir: &Path) -> io::Result<()> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        for message in links::dump(RouteNetlinkMessage::GetRoute(question))? {
            if let RouteNetlinkMessage::NewRoute(found) = message
                && is_of(&found, owner(pin_dir))
            {
                links::ask(RouteNetlinkMessage::DelRoute(found))?;
            }
        }
    }
    Ok(())
}

/// Whether there is such an interface in this namespace, and not about to go.
pub fn is_interface(index: u32) -> bool {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    // Without a descriptor nothing is known, and nothing is done.
    socket.map_or(true, |socket| {
        // One that the kernel is taking down has an index still, and an empty name.
        index_to_name_inlined(socket, index).is_ok_and(|name| !name.as_bytes().is_empty())
    })
}

fn is_of(route: &RouteMessage, owner: u32) -> bool {
    route.header.protocol == RouteProtocol::from(PROTOCOL)
        && route.header.table == LOCAL
        && route.attributes.contains(&RouteAttribute::Priority(owner))
}

fn route(owner: u32, address: IpAddr) -> RouteMessage {
    let (family, bits) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family,
        destination_prefix_length: bits,
        table: LOCAL,
        protocol: RouteProtocol::from(PROTOCOL),
        scope: RouteScope::Host,
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::from(address)),
        RouteAttribute::Oif(LOOPBACK),
        RouteAttribute::Priority(owner),
    ];
    message
}

/// Tells the routes of one controller from another's: they are of no use as priorities, since there
/// is one for each address (FNV-1a, RFC 9923).
fn owner(pin_dir: &Path) -> u32 {
    let bytes = pin_dir.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    }) | 1
}
