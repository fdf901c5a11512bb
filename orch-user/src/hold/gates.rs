//! At which listeners do connections of containers wait? A container reaches no loopback of the host,
//! so there is one listener per bridge, which takes what comes by that bridge alone: all at one port.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::{dataplane::Bridge, health::probe::Task};

/// Connections that may wait to be accepted, each listener.
const QUEUE: i32 = 1024;

/// The listeners of a service. They go when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Gates {
    /// Of all of them; some while there are any.
    port: Option<u16>,
    open: BTreeMap<Bridge, Vec<Task>>,
}

impl Gates {
    pub(super) const fn port(&self) -> Option<u16> {
        self.port
    }

    /// Listens at these bridges and no others, where the service does: at this address, or at all.
    /// A bridge at which that fails is tried again with the next call.
    pub(super) fn follow(
        &mut self,
        bridges: &[Bridge],
        at: Option<IpAddr>,
        accept: impl Fn(TcpListener) -> Task,
    ) {
        self.open.retain(|bridge, _| bridges.contains(bridge));
        for bridge in bridges {
            if self.open.contains_key(bridge) {
                continue;
            }
            let known = self.port.filter(|_| !self.open.is_empty());
            match listen(bridge, at, known.unwrap_or_default()) {
                Ok((_, listeners)) if listeners.is_empty() => {}
                Ok((port, listeners)) => {
                    self.port = Some(port);
                    let tasks = listeners.into_iter().map(&accept).collect();
                    self.open.insert(bridge.clone(), tasks);
                }
                Err(error) => log::debug!("cannot listen at {}: {error}", bridge.name),
            }
        }
        if self.open.is_empty() {
            self.port = None;
        }
    }
}

/// A listener per family of the service at this bridge, all at one port: a free one for 0.
fn listen(
    bridge: &Bridge,
    at: Option<IpAddr>,
    mut port: u16,
) -> io::Result<(u16, Vec<TcpListener>)> {
    let addresses = match at {
        None => vec![
            IpAddr::from(Ipv4Addr::UNSPECIFIED),
            Ipv6Addr::UNSPECIFIED.into(),
        ],
        // Nobody but the host itself comes there.
        Some(address) if address.is_loopback() => Vec::new(),
        Some(address) => vec![address],
    };
    let mut listeners = Vec::new();
    for ip in addresses {
        match bind(bridge, SocketAddr::new(ip, port)) {
            Ok(listener) => {
                port = listener.local_addr()?.port();
                listeners.push(listener);
            }
            // A host without IPv6.
            Err(error) if ip.is_ipv6() && error.kind() != io::ErrorKind::AddrInUse => {
                log::debug!("cannot listen at {} over IPv6: {error}", bridge.name);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((port, listeners))
}

fn bind(bridge: &Bridge, address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections that have come by it may still be there when a bridge is back.
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(bridge.name.as_bytes()))?;
    socket.bind(&address.into())?;
    socket.listen(QUEUE)?;
    TcpListener::from_std(socket.into())
}
