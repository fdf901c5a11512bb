//! Whether what the gateway and copies say to each other goes from socket to socket. Attached while
//! there is a gateway, since every socket that connects pays for it, and only where the kernel does it
//! well: a server may ask how many bytes wait for it (`FIONREAD`, as nginx does), and older kernels do
//! not count those that came so.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{HashMap, SockHash},
    programs::{CgroupAttachMode, SkMsg, SockOps},
};
use nix::sys::socket::{setsockopt, sockopt};
use orch_common::{
    layout::{map, program},
    relay::{PRIORITY, Relay, RelayKey},
};
use rustix::io::ioctl_fionread;
use socket2::{Domain, Socket, Type};

use super::{
    Dataplane, DataplaneError, attach,
    load::typed,
    pin::{Pins, remove_pin},
};

/// How long a trial on loopback may take. It takes no time, or something is in its way.
const LIMIT: Duration = Duration::from_secs(1);

/// What was found out about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Relaying {
    /// Nothing yet; an earlier controller may have attached it.
    #[default]
    Unknown,
    /// Attached, and tried.
    On,
    /// Not attached.
    Off,
    /// This kernel cannot.
    Never,
}

/// A connection to a copy that the gateway makes to ask what has no body: the data plane may put what
/// both say straight into the other's socket. Elsewhere it is a connection as any other. Nonblocking,
/// and not connected yet.
pub fn relayed(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None)?;
    // Who may not is no gateway of a controller that runs.
    let _ = setsockopt(&socket, sockopt::Priority, &PRIORITY.cast_signed());
    Ok(socket)
}

impl Dataplane {
    /// Has it so, or not any more; whether it is now.
    pub fn relay(&mut self, wanted: bool) -> Result<bool, DataplaneError> {
        let Some(root) = self.sockets.root().filter(|_| self.relays) else {
            detach(&self.pins)?;
            if wanted {
                log::info!(
                    "the gateway reaches copies by TCP alone: the file says so, or there is no cgroup2"
                );
            }
            return Ok(false);
        };
        match (self.relaying, wanted) {
            (Relaying::On, true) => return Ok(true),
            (Relaying::Never, _) | (Relaying::Off, false) => return Ok(false),
            (_, false) => {
                detach(&self.pins)?;
                self.relaying = Relaying::Off;
                return Ok(false);
            }
            (_, true) => {}
        }
        let found = attach(&mut self.ebpf, &self.pins, root)
            .map_err(|error| error.to_string())
            .and_then(|()| {
                // On a busy host a stranger may have come between.
                try_out(&self.ebpf)
                    .or_else(|_| try_out(&self.ebpf))
                    .map_err(|error| error.to_string())
            });
        match found {
            Ok(()) => {
                self.relaying = Relaying::On;
                Ok(true)
            }
            Err(why) => {
                log::info!("the gateway reaches copies by TCP alone: {why}");
                detach(&self.pins)?;
                self.relaying = Relaying::Never;
                Ok(false)
            }
        }
    }
}

fn attach(ebpf: &mut Ebpf, pins: &Pins, cgroup: &Path) -> Result<(), DataplaneError> {
    let name = program::RELAY;
    let failed = |source| DataplaneError::program(name, map::RELAY_ENDS)(source);
    let ends = {
        let ends = ebpf.map(map::RELAY_ENDS);
        let ends = ends.and_then(|ends| SockHash::<_, RelayKey>::try_from(ends).ok());
        ends.and_then(|ends| ends.fd().try_clone().ok())
    };
    let ends = ends.ok_or(DataplaneError::Missing {
        name: map::RELAY_ENDS,
    })?;
    let relay: &mut SkMsg = typed(ebpf, name)?;
    if relay.fd().is_err() {
        relay.load().map_err(failed)?;
    }
    let id = relay.attach(&ends).map_err(failed)?;
    // Dropping the link would detach it, and the gateway outlives the controller.
    std::mem::forget(relay.take_link(id).map_err(failed)?);

    let name = program::JOIN;
    let place = cgroup.display().to_string();
    let failed = |source| DataplaneError::program(name, &place)(source);
    let root = File::open(cgroup).map_err(|source| DataplaneError::file(cgroup, source))?;
    let join: &mut SockOps = typed(ebpf, name)?;
    if join.fd().is_err() {
        join.load().map_err(failed)?;
    }
    let id = join
        .attach(&root, CgroupAttachMode::Single)
        .map_err(failed)?;
    let link = join.take_link(id).map_err(failed)?;
    attach::pin(link, &pins.link(name))
}

/// Connections that are open go on as they are.
fn detach(pins: &Pins) -> Result<(), DataplaneError> {
    remove_pin(&pins.link(program::JOIN))
}

/// Says a byte each way by such a connection on loopback.
fn try_out(ebpf: &Ebpf) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let socket = relayed(address)?;
    socket.set_nonblocking(false)?;
    socket.connect_timeout(&address.into(), LIMIT)?;
    let mut asks = TcpStream::from(socket);
    let (mut answers, peer) = listener.accept()?;
    if peer != asks.local_addr()? {
        return Err(io::Error::other(
            "somebody else came to the trial on loopback",
        ));
    }
    for stream in [&asks, &answers] {
        stream.set_read_timeout(Some(LIMIT))?;
    }
    asks.write_all(b"?")?;
    // Such a byte is there before the call has returned.
    if ioctl_fionread(&answers)? != 1 {
        return Err(io::Error::other(
            "this kernel does not count what waits in a socket of a sockmap (FIONREAD)",
        ));
    }
    answers.read_exact(&mut [0])?;
    answers.write_all(b"!")?;
    asks.read_exact(&mut [0])?;
    let known = ebpf
        .map(map::RELAYS)
        .map(HashMap::<_, RelayKey, Relay>::try_from);
    let own = asks.local_addr()?.port();
    let went = known.and_then(Result::ok).is_some_and(|relays| {
        relays.iter().flatten().any(|(key, relay)| {
            key.own_port == own && key.peer_port == address.port() && relay.answered > 0
        })
    });
    if went {
        Ok(())
    } else {
        Err(io::Error::other(
            "sockets of the host do not meet the sockops program",
        ))
    }
}
