//! Who is compared: a way from a client to the backends, on port 80 of the host.

use orch::{
    config::{CountConfig, DataplaneConfig, Local, Mode, ServiceConfig},
    dataplane::{Dataplane, DataplaneError, Reach, SlotEntry},
};
use orch_common::slot::{SlotKey, SlotState};
use orch_tests::{fixture, netns::NetNs};

use crate::{
    Result,
    installed::{installed, stream_module},
    leftovers::{Child, remember},
    rivals,
    topology::{BACKEND, Container, HOST, SLOTS, Topology, answers},
};

/// What stands between client and backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Nothing: the client goes to the first container's own address, through connection tracking,
    /// FORWARD and bridge.
    Straight,
    /// Ours: another port of this host, and Docker's rules or docker-proxy from there.
    Port,
    /// Ours: past bridge, connection tracking and docker-proxy.
    Direct,
    /// The same without the programs for local clients, which see every socket's packets.
    DirectAlone,
    /// The same with programs that look at no payload: what golden signals cost.
    DirectDeaf,
    /// DNAT by nftables.
    Nftables,
    /// `HAProxy`, mode tcp.
    Haproxy,
    /// nginx, stream.
    Nginx,
    /// The first container's published port.
    Docker,
}

/// Who asks whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scene {
    /// Whether the client is on the host.
    pub(crate) local: bool,
    /// How many backends there are.
    pub(crate) backends: usize,
}

/// What keeps a peer running; what it leaves in the namespaces goes with them.
pub(crate) enum Running {
    Nothing,
    Orch(Box<Dataplane>),
    Program(#[allow(dead_code, reason = "held until it is dropped")] Child),
}

impl Peer {
    /// The one that the others are compared with comes first.
    pub(crate) const ALL: [Self; 9] = [
        Self::Straight,
        Self::Direct,
        Self::DirectAlone,
        Self::DirectDeaf,
        Self::Port,
        Self::Nftables,
        Self::Haproxy,
        Self::Nginx,
        Self::Docker,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Straight => "no balancer",
            Self::Port => "orch, port",
            Self::Direct => "orch, direct",
            Self::DirectAlone => "orch, direct, local = off",
            Self::DirectDeaf => "orch, direct, no signals",
            Self::Nftables => "nftables DNAT",
            Self::Haproxy => "HAProxy, mode tcp",
            Self::Nginx => "nginx, stream",
            Self::Docker => "Docker's published port",
        }
    }

    /// Whether there is such a thing: Docker publishes one backend, and balances none; what serves
    /// clients outside alone has no local ones. What signals cost, one backend shows.
    pub(crate) const fn suits(self, scene: Scene) -> bool {
        match self {
            Self::Docker | Self::DirectDeaf => scene.backends == 1,
            Self::DirectAlone => !scene.local,
            _ => true,
        }
    }

    /// An error that says why this host cannot run it.
    pub(crate) fn available(self) -> Result<()> {
        match self {
            Self::Nftables => installed("nft", "nftables"),
            Self::Haproxy => installed("haproxy", "haproxy"),
            Self::Nginx => stream_module().map(drop),
            Self::Port | Self::Direct | Self::DirectDeaf
                if orch::dataplane::cgroup2_root()?.is_none() =>
            {
                Err("no cgroup2 hierarchy is mounted".into())
            }
            _ => Ok(()),
        }
    }

    /// Where the client connects to.
    pub(crate) fn address(self, scene: Scene, topology: &Topology) -> String {
        let container = topology.containers.first().map(|first| first.address);
        match (self, container) {
            (Self::Straight, Some(address)) => format!("{address}:{BACKEND}"),
            (Self::Docker, _) => format!("{}:{SLOTS}", scene.host()),
            // Rules could send a connection from 127.0.0.1 to a container only if the kernel were
            // told to route such packets, which opens the host's own services to its neighbours.
            (Self::Nftables, _) => format!("{HOST}:80"),
            _ => format!("{}:80", scene.host()),
        }
    }

    /// Starts it and waits until it answers.
    pub(crate) fn start(
        self,
        scene: Scene,
        topology: &Topology,
        threads: usize,
    ) -> Result<Running> {
        let running = match self {
            Self::Straight | Self::Docker => Running::Nothing,
            Self::Port => Running::Orch(orch(topology, Local::Auto, port)?),
            Self::Direct => Running::Orch(orch(topology, Local::Auto, direct)?),
            Self::DirectAlone => Running::Orch(orch(topology, Local::Off, direct)?),
            Self::DirectDeaf => Running::Orch(orch_deaf(topology, direct)?),
            Self::Nftables => {
                rivals::nftables(topology)?;
                Running::Nothing
            }
            Self::Haproxy => Running::Program(rivals::haproxy(topology, threads)?),
            Self::Nginx => Running::Program(rivals::nginx(topology, threads)?),
        };
        let address = self.address(scene, topology);
        scene.side(topology).within(|| answers(&address))?;
        Ok(running)
    }
}

impl Scene {
    pub(crate) const ALL: [Self; 4] = [
        Self::new(false, 1),
        Self::new(true, 1),
        Self::new(false, 3),
        Self::new(true, 3),
    ];

    const fn new(local: bool, backends: usize) -> Self {
        Self { local, backends }
    }

    /// The namespace of the client.
    pub(crate) const fn side(self, topology: &Topology) -> &NetNs {
        if self.local {
            &topology.host
        } else {
            &topology.client
        }
    }

    const fn host(self) -> &'static str {
        if self.local { "127.0.0.1" } else { HOST }
    }

    pub(crate) const fn title(self) -> &'static str {
        match (self.local, self.backends) {
            (false, 1) => "Client outside, one backend",
            (true, 1) => "Client on the host, one backend",
            (false, _) => "Client outside, three backends (no balancer: one of them)",
            (true, _) => "Client on the host, three backends (no balancer: one of them)",
        }
    }
}

impl Running {
    /// Stops it.
    pub(crate) fn stop(self, topology: &Topology) -> Result<()> {
        if let Self::Orch(dataplane) = self {
            topology.host.within(|| dataplane.detach())?;
            // Its parent stays behind.
            let _ = std::fs::remove_dir(fixture::dataplane("bench", Local::Off).pin_dir);
        }
        Ok(())
    }
}

/// A slot with a port of the host, and its container.
pub(crate) type Entry = fn(u16, &Container) -> SlotEntry;

/// How a slot with this port reaches its backend: delivery `port`.
pub(crate) fn port(slot: u16, _container: &Container) -> SlotEntry {
    SlotEntry {
        address: ([127, 0, 0, 1], slot).into(),
        reach: Reach::Port,
        pid: None,
        port: slot,
        state: SlotState::Ready,
        generation: 1,
    }
}

/// The same for delivery `direct`.
pub(crate) fn direct(slot: u16, container: &Container) -> SlotEntry {
    SlotEntry {
        address: (container.address, BACKEND).into(),
        reach: Reach::Direct {
            netns: format!("/run/netns/{}", container.netns.name).into(),
        },
        ..port(slot, container)
    }
}

/// A data plane with a ready slot per container.
pub(crate) fn orch(topology: &Topology, local: Local, entry: Entry) -> Result<Box<Dataplane>> {
    orch_with(topology, local, entry, Mode::Tcp)
}

/// The same, with programs that look at no payload.
pub(crate) fn orch_deaf(topology: &Topology, entry: Entry) -> Result<Box<Dataplane>> {
    orch_by(
        topology,
        Local::Auto,
        entry,
        Mode::Tcp,
        Dataplane::open_deaf,
    )
}

/// The same for a service of this mode.
pub(crate) fn orch_with(
    topology: &Topology,
    local: Local,
    entry: Entry,
    mode: Mode,
) -> Result<Box<Dataplane>> {
    orch_by(topology, local, entry, mode, Dataplane::open)
}

fn orch_by(
    topology: &Topology,
    local: Local,
    entry: Entry,
    mode: Mode,
    open: fn(&DataplaneConfig) -> std::result::Result<Dataplane, DataplaneError>,
) -> Result<Box<Dataplane>> {
    let config = fixture::dataplane("bench", local);
    remember(config.pin_dir.clone());
    let service = ServiceConfig {
        mode,
        count: CountConfig {
            prefix: "/".to_owned(),
            exclude: Vec::new(),
        },
        ..fixture::service()
    };
    topology.host.within(|| {
        let mut dataplane = open(&config)?;
        dataplane.set_services(&[service])?;
        let mut ring = Vec::new();
        for (slot, container) in (0..).zip(&topology.containers) {
            let entry = entry(SLOTS + slot, container);
            dataplane.set_slot(SlotKey { service: 0, slot }, &entry)?;
            ring.push(slot);
        }
        dataplane.set_ring(0, &ring)?;
        Ok(Box::new(dataplane))
    })
}
