//! Who is compared: each started on port 80 of the host for its turn alone, and stopped after it.

use std::process::Stdio;

use orch::{
    config::{CountConfig, Local, ServiceConfig},
    dataplane::{Dataplane, Reach, SlotEntry},
};
use orch_common::slot::{SlotKey, SlotState};
use orch_tests::fixture;

use crate::{
    Result,
    leftovers::{Child, remember},
    topology::{HOST, PORTS, Topology, answers, installed, lines, stream_module},
};

/// A way from the client to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The client goes to a backend's port itself.
    Direct,
    /// Our TC programs, and the cgroup programs of local clients beside them, as by default.
    Orch,
    /// Our TC programs alone.
    OrchOutside,
    /// DNAT by nftables.
    Nftables,
    /// `HAProxy`, mode tcp.
    Haproxy,
    /// nginx, stream.
    Nginx,
    /// A client on the host goes to a backend's port itself.
    LocalDirect,
    /// A client on the host, by our connect hook.
    LocalOrch,
}

/// What keeps a peer running.
pub(crate) enum Running {
    Nothing,
    Orch(Box<Dataplane>),
    Nftables,
    Program(#[allow(dead_code, reason = "held until it is dropped")] Child),
}

impl Peer {
    pub(crate) const ALL: [Self; 8] = [
        Self::Direct,
        Self::Orch,
        Self::OrchOutside,
        Self::Nftables,
        Self::Haproxy,
        Self::Nginx,
        Self::LocalDirect,
        Self::LocalOrch,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "no balancer",
            Self::Orch => "orch",
            Self::OrchOutside => "orch, local = off",
            Self::Nftables => "nftables DNAT",
            Self::Haproxy => "HAProxy, mode tcp",
            Self::Nginx => "nginx, stream",
            Self::LocalDirect => "no balancer, on the host",
            Self::LocalOrch => "orch, on the host",
        }
    }

    /// Whether the client is on the host.
    pub(crate) const fn is_local(self) -> bool {
        matches!(self, Self::LocalDirect | Self::LocalOrch)
    }

    /// The peer that this one is compared with.
    pub(crate) const fn baseline(self) -> Self {
        if self.is_local() {
            Self::LocalDirect
        } else {
            Self::Direct
        }
    }

    /// Where the client connects to.
    pub(crate) fn address(self) -> String {
        let host = if self.is_local() { "127.0.0.1" } else { HOST };
        let port = match self {
            Self::Direct | Self::LocalDirect => PORTS[0],
            _ => 80,
        };
        format!("{host}:{port}")
    }

    /// An error that says why this host cannot run it.
    pub(crate) fn available(self) -> Result<()> {
        match self {
            Self::Nftables => installed("nft", "nftables"),
            Self::Haproxy => installed("haproxy", "haproxy"),
            Self::Nginx => stream_module().map(drop),
            Self::LocalOrch => match orch::dataplane::cgroup2_root()? {
                Some(_) => Ok(()),
                None => Err("no cgroup2 hierarchy is mounted".into()),
            },
            _ => Ok(()),
        }
    }

    /// Starts it and waits until it answers.
    pub(crate) fn start(self, topology: &Topology, threads: usize) -> Result<Running> {
        let running = match self {
            Self::Direct | Self::LocalDirect => Running::Nothing,
            Self::Orch | Self::LocalOrch => Running::Orch(orch(topology, Local::Auto)?),
            Self::OrchOutside => Running::Orch(orch(topology, Local::Off)?),
            Self::Nftables => nftables(topology)?,
            Self::Haproxy => haproxy(topology, threads)?,
            Self::Nginx => nginx(topology, threads)?,
        };
        let side = if self.is_local() {
            &topology.host
        } else {
            &topology.client
        };
        side.within(|| answers(&self.address()))?;
        Ok(running)
    }
}

impl Running {
    /// Stops it and leaves nothing of it.
    pub(crate) fn stop(self, topology: &Topology) -> Result<()> {
        match self {
            Self::Orch(dataplane) => {
                topology.host.within(|| dataplane.detach())?;
                // Its parent stays behind.
                let _ = std::fs::remove_dir(fixture::dataplane("bench", Local::Off).pin_dir);
                Ok(())
            }
            Self::Nftables => nft(topology, "flush ruleset\n"),
            Self::Nothing | Self::Program(_) => Ok(()),
        }
    }
}

/// A data plane whose slots are all ready.
pub(crate) fn orch(topology: &Topology, local: Local) -> Result<Box<Dataplane>> {
    let config = fixture::dataplane("bench", local);
    remember(config.pin_dir.clone());
    let service = ServiceConfig {
        count: CountConfig {
            prefix: "/".to_owned(),
            exclude: Vec::new(),
        },
        ..fixture::service()
    };
    let mut dataplane = topology.host.within(|| Dataplane::open(&config))?;
    dataplane.set_services(&[service])?;
    for (slot, port) in (0..).zip(PORTS) {
        let entry = SlotEntry {
            address: ([127, 0, 0, 1], port).into(),
            reach: Reach::Port,
            pid: None,
            port,
            state: SlotState::Ready,
            generation: 1,
        };
        dataplane.set_slot(SlotKey { service: 0, slot }, &entry)?;
    }
    let ring: Vec<u16> = (0..PORTS.len() as u16).collect();
    dataplane.set_ring(0, &ring)?;
    Ok(Box::new(dataplane))
}

fn nftables(topology: &Topology) -> Result<Running> {
    let targets: Vec<String> = (0..)
        .zip(PORTS)
        .map(|(turn, port): (u32, u16)| format!("{turn} : {HOST} . {port}"))
        .collect();
    let rules = format!(
        "table ip bench {{\nchain in {{\ntype nat hook prerouting priority dstnat; policy accept;\n\
         tcp dport 80 dnat ip to numgen inc mod {} map {{ {} }}\n}}\n}}\n",
        PORTS.len(),
        targets.join(", ")
    );
    nft(topology, &rules)?;
    Ok(Running::Nftables)
}

fn nft(topology: &Topology, rules: &str) -> Result<()> {
    let file = topology.dir.join("rules.nft");
    std::fs::write(&file, rules)?;
    let output = topology.host.command("nft").arg("-f").arg(file).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr)).into())
}

fn haproxy(topology: &Topology, threads: usize) -> Result<Running> {
    let servers = lines(|port| format!("    server s{port} 127.0.0.1:{port}"));
    let text = format!(
        "global\n    nbthread {threads}\n    maxconn 8192\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 60s\n\
         \u{20}   timeout server 60s\n\
         listen web\n    bind :80 backlog 8192\n    balance roundrobin\n{servers}\n"
    );
    let file = topology.dir.join("haproxy.cfg");
    std::fs::write(&file, text)?;
    let mut command = topology.host.command("haproxy");
    command.arg("-db").arg("-f").arg(file).stderr(Stdio::null());
    Child::start(&mut command).map(Running::Program)
}

fn nginx(topology: &Topology, threads: usize) -> Result<Running> {
    let module = stream_module()?
        .map(|path| format!("load_module {};\n", path.display()))
        .unwrap_or_default();
    let servers = lines(|port| format!("server 127.0.0.1:{port};"));
    let dir = topology.dir.display();
    let text = format!(
        "{module}user root;\nworker_processes {threads};\ndaemon off;\npid {dir}/stream.pid;\n\
         error_log {dir}/stream.log;\nevents {{ worker_connections 16384; }}\n\
         stream {{\nupstream web {{\n{servers}\n}}\n\
         server {{ listen 80 backlog=8192 reuseport; tcp_nodelay on; proxy_pass web; }}\n}}\n"
    );
    topology.nginx("stream", &text).map(Running::Program)
}
