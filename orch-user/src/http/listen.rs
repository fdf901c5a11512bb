//! Listening sockets: one per thread, between which the kernel shares the connections out.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    time::Duration,
};

use socket2::{Domain, Protocol, Type};

use crate::config::Listen;

/// Connections that wait to be accepted, per socket; the kernel's own limit holds as well.
const BACKLOG: i32 = 8192;

/// The addresses of a listener. All addresses of the host are one socket, for IPv4 and IPv6.
pub(super) fn address(listen: Listen) -> SocketAddr {
    let any = if has_v6() {
        IpAddr::from(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::from(Ipv4Addr::UNSPECIFIED)
    };
    SocketAddr::new(listen.address.unwrap_or(any), listen.port)
}

fn has_v6() -> bool {
    socket2::Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).is_ok()
}

/// A socket that listens. `both` is for the unspecified address of IPv6: it takes IPv4, too.
/// Accepted connections inherit what is set here; `patience` is how long their clients may leave
/// what was sent to them unacknowledged.
pub(super) fn bind(address: SocketAddr, both: bool, patience: Duration) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!both)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    // A whole number of milliseconds in an `int` (tcp(7)): some 24 days.
    let most = Duration::from_millis(i32::MAX.unsigned_abs().into());
    socket.set_tcp_user_timeout(Some(patience.min(most)))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
