//! In the place of a backend that is gone. A socket of this host may have been given to a backend just
//! before that ended, and send its SYN just after: too late to choose another address for it. The
//! host takes that address over and has such sockets wait with all others of the service.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use orch_common::{address, hold::HeldSyn};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpListener, runtime::Handle, sync::watch, time::timeout};

use super::{frame, porch::Porch};
use crate::{dataplane::Stead, health::probe::Task};

/// Connections that may come at once.
const BACKLOG: i32 = 1024;
/// `IPPROTO_RAW`: packets are sent with the header that they have.
const RAW: i32 = 255;

/// How long those who are cut off may take to hear of it: without the address nobody can tell them.
const FAREWELL: Duration = Duration::from_secs(1);

/// Answers at the address of a backend that is gone, until it is dropped.
#[derive(Debug)]
pub struct StandIn {
    /// Says whether those who came by it are to be cut off. The listener has a receiver, and so has
    /// each of them.
    cut: Option<watch::Sender<bool>>,
    stead: Option<Stead>,
    _accepting: Task,
}

impl StandIn {
    /// Takes the place of `backend`; `tell` is called for everybody who comes. Fails where one of
    /// this controller does already, or somebody listens there.
    pub fn open(
        pin_dir: &Path,
        backend: SocketAddr,
        porch: &Porch,
        tell: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let stead = Stead::take(pin_dir, backend.ip())?;
        let socket = Socket::new(Domain::for_address(backend), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // A route makes an address of IPv6 the host's own for packets, not for sockets.
        match backend {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
        socket.bind(&backend.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        let (cut, heard) = watch::channel(false);
        Ok(Self {
            cut: Some(cut),
            stead: Some(stead),
            _accepting: porch.also(listener, heard, tell),
        })
    }

    /// Whether nobody is left who came by it.
    pub fn is_idle(&self) -> bool {
        let guests = self.cut.as_ref().map_or(0, watch::Sender::receiver_count);
        guests <= 1
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let idle = self.is_idle();
        let (Some(cut), stead) = (self.cut.take(), self.stead.take()) else {
            return;
        };
        if !idle && let Ok(runtime) = Handle::try_current() {
            cut.send_replace(true);
            runtime.spawn(async move {
                let _ = timeout(FAREWELL, cut.closed()).await;
                drop(stead);
            });
        }
    }
}

/// Where a socket of this host waits for an answer from.
pub fn backend(syn: &HeldSyn) -> SocketAddr {
    SocketAddr::new(ip(&syn.key.local), syn.key.local_port)
}

/// Sends the SYN of a socket once more: its own next try is up to a second away.
pub fn send_again(syn: &HeldSyn) -> io::Result<()> {
    let backend = backend(syn);
    let frame = frame::of(syn).ok_or(io::ErrorKind::InvalidData)?;
    let domain = Domain::for_address(backend);
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)))?;
    // The port is in the packet: here it would be taken for a protocol (raw(7), ipv6(7)).
    let to = SocketAddr::new(backend.ip(), 0);
    socket
        .send_to(frame::packet(&frame), &to.into())
        .map(|_| ())
}

fn ip(bytes: &address::Address) -> IpAddr {
    if address::is_v4(bytes) {
        Ipv4Addr::from(address::v4_octets(bytes)).into()
    } else {
        Ipv6Addr::from(*bytes).into()
    }
}
