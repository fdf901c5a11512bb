//! The machines of a measurement, each a network namespace: a host, a client outside, and the
//! host's containers, as Docker joins them.
//!
//! Every turn gets new ones. nginx closes first, so each measured connection leaves a `TIME_WAIT`
//! in the backend's namespace for a minute. A later client with the same port is let in there only
//! if its time stamp is newer, and the kernel starts the time stamps of a client at another offset
//! for each destination port (`secure_tcp_ts_off`). So what one way had left, from clients that
//! connect to port 80, refused half of the SYNs of the next way, whose clients connect to another
//! port: `TcpExtPAWSTimewait` grew exactly as `TcpExtTCPSynRetrans` did, and each such client stood
//! still for the second until its SYN was repeated.

use std::{
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use orch_tests::{netns::NetNs, server::ask};

use crate::{
    Result, docker,
    leftovers::{Child, remember},
};

/// The host's address, as the client outside knows it.
pub(crate) const HOST: &str = "10.9.0.1";
/// The port that every backend listens on, in its container.
pub(crate) const BACKEND: u16 = 80;
/// The port of the first slot: backend k is published on the host's port `SLOTS + k`.
pub(crate) const SLOTS: u16 = 8000;

/// Set in every namespace alike: ports and queues enough that none of them is what is measured.
/// Without `tcp_tw_reuse=1` a client that closes first cannot use a port again for a minute, but on
/// loopback: a way that leaves loopback would slow down by that alone.
const SYSCTLS: [&str; 8] = [
    "net.ipv4.ip_local_port_range=10240 65535",
    "net.ipv4.tcp_tw_reuse=1",
    "net.ipv4.tcp_max_tw_buckets=262144",
    "net.ipv4.tcp_max_syn_backlog=8192",
    "net.core.somaxconn=8192",
    "net.ipv4.tcp_syncookies=0",
    "net.ipv4.ip_forward=1",
    "net.bridge.bridge-nf-call-iptables=1",
];

/// A host, a client outside, and containers.
pub(crate) struct Topology {
    // What runs there ends before the namespaces go.
    running: Vec<Child>,
    /// Where the balancer is, and clients that are local.
    pub(crate) host: NetNs,
    /// Where clients from outside are.
    pub(crate) client: NetNs,
    /// Where the backends are.
    pub(crate) containers: Vec<Container>,
    /// For configurations and files.
    pub(crate) dir: PathBuf,
    _temporary: tempfile::TempDir,
}

/// A network namespace that a bridge joins to the host's.
pub(crate) struct Container {
    pub(crate) netns: NetNs,
    /// Its own address, on the bridge.
    pub(crate) address: Ipv4Addr,
}

impl Topology {
    /// A host without containers, and a client.
    pub(crate) fn new() -> Result<Self> {
        let temporary = tempfile::tempdir()?;
        remember(temporary.path().to_owned());
        let (host, client) = (NetNs::new(), NetNs::new());
        host.link("up0", &client, "far0");
        host.ip(&["addr", "add", &format!("{HOST}/24"), "dev", "up0"]);
        host.ip(&["addr", "add", "fd09::1/64", "dev", "up0", "nodad"]);
        client.ip(&["addr", "add", "10.9.0.2/24", "dev", "far0"]);
        client.ip(&["route", "add", "default", "via", HOST]);
        set_sysctls(&host);
        set_sysctls(&client);
        Ok(Self {
            running: Vec::new(),
            host,
            client,
            containers: Vec::new(),
            dir: temporary.path().to_owned(),
            _temporary: temporary,
        })
    }

    /// The same with so many containers, in each an nginx with so many workers, published as Docker
    /// publishes them. One program in all ways, so that the way is what differs.
    pub(crate) fn with_backends(count: usize, workers: usize) -> Result<Self> {
        let mut topology = Self::new()?;
        docker::bridge(&topology.host);
        for index in 0..count {
            let container = docker::container(&topology.host, index);
            set_sysctls(&container.netns);
            topology.containers.push(container);
        }
        std::fs::write(topology.dir.join("big"), vec![b'x'; 1 << 20])?;
        for index in 0..count {
            let server = topology.backend(index, workers)?;
            topology.running.push(server);
        }
        let proxies = docker::publish(&topology)?;
        topology.running.extend(proxies);
        for container in &topology.containers {
            let address = format!("{}:{BACKEND}", container.address);
            topology.client.within(|| answers(&address))?;
        }
        Ok(topology)
    }

    /// Names of its namespaces.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let containers = self.containers.iter().map(|container| &container.netns);
        let all = containers.chain([&self.host, &self.client]);
        all.map(|netns| netns.name.as_str())
    }

    /// Starts nginx in a container.
    fn backend(&self, index: usize, workers: usize) -> Result<Child> {
        let dir = self.dir.display();
        let text = format!(
            "user root;\nworker_processes {workers};\ndaemon off;\npid {dir}/backend{index}.pid;\n\
             error_log {dir}/backend{index}.log;\nevents {{ worker_connections 8192; }}\n\
             http {{\naccess_log off;\nsendfile on;\ntcp_nopush on;\ntcp_nodelay on;\n\
             keepalive_requests 1000000000;\ndefault_type text/plain;\n\
             server {{\nlisten {BACKEND} backlog=8192 reuseport;\n\
             location = / {{ return 200 \"ok\\n\"; }}\n\
             location = /ok {{ return 200 \"ok\\n\"; }}\n\
             location / {{ root {dir}; }}\n}}\n}}\n"
        );
        self.nginx(
            &self.containers[index].netns,
            &format!("backend{index}"),
            &text,
        )
    }

    /// Starts nginx in a namespace.
    pub(crate) fn nginx(&self, netns: &NetNs, name: &str, text: &str) -> Result<Child> {
        let file = self.dir.join(format!("{name}.conf"));
        std::fs::write(&file, text)?;
        let log = self.dir.join(format!("{name}.log"));
        let mut command = netns.command("nginx");
        command.arg("-e").arg(log).arg("-p").arg(&self.dir);
        Child::start(command.arg("-c").arg(&file))
    }
}

fn set_sysctls(netns: &NetNs) {
    // A kernel without one of them is measured as it is.
    let _ = netns
        .command("sysctl")
        .arg("-qw")
        .args(SYSCTLS)
        .stderr(Stdio::null())
        .status();
}

/// Waits until a request to this address is answered with 200.
pub(crate) fn answers(address: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = TcpStream::connect_timeout(&address.parse()?, Duration::from_secs(2))
            .and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(2)))?;
                ask(&mut stream, "/ok")
            });
        match answer {
            Ok((200, _)) => return Ok(()),
            Ok((status, _)) => return Err(format!("{address} answers {status}").into()),
            Err(error) if Instant::now() > end => return Err(format!("{address}: {error}").into()),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
