//! Interfaces as the kernel lists them (`rtnetlink(7)`), in the namespace of the calling thread.

use std::{io, net::IpAddr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{
        InfoKind, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Bytes of one answer; the kernel puts several messages into each.
const ANSWER: usize = 65_536;

/// An interface.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    /// Its index.
    pub(super) index: u32,
    /// The index of its other end, for a veth.
    pub(super) peer: Option<u32>,
    /// The bridge that it is a port of.
    pub(super) bridge: Option<u32>,
    /// Its name.
    pub(super) name: String,
    /// Whether it is up.
    pub(super) up: bool,
    /// What kind of link layer it has.
    pub(super) layer: LinkLayerType,
    /// What made it, if that was software: a device of hardware has none.
    pub(super) kind: Option<InfoKind>,
}

/// Every interface.
pub(super) fn links() -> io::Result<Vec<Link>> {
    let messages = dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let links = messages.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(message) => Some(link(message)),
        _ => None,
    });
    Ok(links.collect())
}

/// An address of an interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owned {
    /// The interface's index.
    pub(super) index: u32,
    /// The address.
    pub(super) address: IpAddr,
    /// Whether it means something beyond its link.
    pub(super) global: bool,
}

/// Every address.
pub(super) fn addresses() -> io::Result<Vec<Owned>> {
    let messages = dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let mut found = Vec::new();
    for message in messages {
        let RouteNetlinkMessage::NewAddress(message) = message else {
            continue;
        };
        // Where an interface has a peer, `Address` is the peer's.
        let (mut own, mut other) = (None, None);
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Local(address) => own = Some(address),
                AddressAttribute::Address(address) => other = Some(address),
                _ => {}
            }
        }
        found.extend(own.or(other).map(|address| Owned {
            index: message.header.index,
            address,
            global: message.header.scope == AddressScope::Universe,
        }));
    }
    Ok(found)
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        layer: message.header.link_layer_type,
        ..Link::default()
    };
    let (mut other, mut controller) = (None, None);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Link(index) => other = Some(index),
            LinkAttribute::Controller(index) => controller = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = Some(kind),
                        LinkInfo::PortKind(InfoPortKind::Bridge) => link.bridge = Some(0),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link.bridge = link.bridge.and(controller);
    link.peer = other.filter(|_| link.kind == Some(InfoKind::Veth));
    link
}

/// Asks for a list and reads it to its end.
pub(super) fn dump(question: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    converse(question, NLM_F_DUMP | NLM_F_REQUEST)
}

/// Asks for a change.
pub(super) fn ask(question: RouteNetlinkMessage) -> io::Result<()> {
    converse(question, NLM_F_ACK | NLM_F_REQUEST).map(|_| ())
}

/// Asks with these flags, and reads the answer to its end.
pub(super) fn converse(
    question: RouteNetlinkMessage,
    flags: u16,
) -> io::Result<Vec<RouteNetlinkMessage>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(question));
    packet.header.flags = flags;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut messages = Vec::new();
    let mut answer = Vec::with_capacity(ANSWER);
    loop {
        answer.clear();
        socket.recv(&mut answer, 0)?;
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(io::Error::other)?;
            // Messages are padded to four bytes (netlink(7)).
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length.max(4)..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(messages),
                // The answer to a change that was made is an error without a code.
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(messages),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(inner) => messages.push(inner),
                _ => {}
            }
        }
    }
}
