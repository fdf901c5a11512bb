//! The listening socket.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::StartError;

/// Connections that may wait for `accept`; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Listens on every IPv6 and IPv4 address, or on every IPv4 address where IPv6 is off.
pub(crate) fn on_every_address(port: u16) -> Result<TcpListener, StartError> {
    on(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        .or_else(|error| match error.kind() {
            // Another listener is no reason to try the other family.
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
            _ => on(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        })
        .map_err(|source| StartError::Listen { port, source })
}

fn on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A replacement listens on the port whose old connections are still in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
