//! Mode http beside `HAProxy` in mode http and nginx as an HTTP proxy that keeps its connections to
//! the backends: the same client, backends and number of threads, in turns within each pass.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use orch::{
    config::{CountConfig, Listen, Local, Mode},
    dataplane::Dataplane,
    http::{Client, ServiceTable, SlotTable, Table as GatewayTable},
};
use orch_tests::fixture;

use crate::{
    Result,
    compare::Plan,
    controller::on_host,
    installed::installed,
    leftovers::Child,
    load::{Kind, Sample},
    peers,
    report::{Table, bytes, median},
    rivals::lines,
    topology::{BACKEND, HOST, Topology, answers},
};

/// Copies behind each proxy.
const BACKENDS: usize = 3;
/// Connections that do nothing, for the memory of one.
const IDLE: usize = 2000;
/// How long they have done nothing when the memory is read.
const REST: Duration = Duration::from_millis(3500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proxy {
    Orch,
    /// What it says to copies goes by TCP.
    Plain,
    Haproxy,
    Nginx,
}

impl Proxy {
    const ALL: [Self; 4] = [Self::Orch, Self::Plain, Self::Haproxy, Self::Nginx];

    const fn name(self) -> &'static str {
        match self {
            Self::Orch => "orch, mode http",
            Self::Plain => "orch, mode http, relay off",
            Self::Haproxy => "HAProxy, mode http",
            Self::Nginx => "nginx, proxy_pass, keepalive",
        }
    }

    fn start(self, topology: &Topology, orch: &Path, threads: usize) -> Result<Running> {
        let (child, plane) = match self {
            Self::Orch | Self::Plain => {
                let mut plane = peers::orch_with(topology, Local::Auto, peers::direct, Mode::Http)?;
                let relay = topology.host.within(|| plane.relay(self == Self::Orch))?;
                if self == Self::Orch && !relay {
                    println!("this kernel cannot relay: both ways of orch are the same");
                }
                (gateway(topology, orch, relay)?, Some(plane))
            }
            Self::Haproxy => (haproxy(topology, threads)?, None),
            Self::Nginx => (nginx(topology, threads)?, None),
        };
        let address = format!("{HOST}:80");
        topology.client.within(|| answers(&address))?;
        Ok(Running { child, plane })
    }

    /// Whether this one is beside another, as what it is compared with.
    fn is_rival_of(self, other: Self) -> bool {
        let ours = |proxy| matches!(proxy, Self::Orch | Self::Plain);
        self != other && self != Self::Plain && !(ours(self) && ours(other))
    }
}

struct Running {
    child: Child,
    plane: Option<Box<Dataplane>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(plane) = self.plane.take()
            && let Err(error) = plane.detach()
        {
            eprintln!("bench: {error}");
        }
    }
}

struct Measured {
    proxy: Proxy,
    requests: Sample,
    connections: Sample,
    bulk: Sample,
    idle: f64,
}

/// Measures those whose name has one of these words, so many times, and gives the table.
pub(crate) fn measure(orch: &Path, plan: &Plan<'_>) -> Result<Table> {
    installed("haproxy", "haproxy")?;
    installed("nginx", "nginx-light")?;
    let Plan {
        passes,
        seconds,
        threads,
        ..
    } = *plan;
    let mut all = Vec::new();
    let mut proxies = Vec::from(Proxy::ALL);
    proxies.retain(|proxy| plan.names(proxy.name()));
    for pass in 0..passes {
        let turns = usize::from(!proxies.is_empty());
        proxies.rotate_left(turns);
        for &proxy in &proxies {
            eprintln!("mode http, pass {} of {passes}: {}", pass + 1, proxy.name());
            all.push(turn(proxy, orch, seconds, threads)?);
        }
    }
    Ok(table(&all, &proxies))
}

fn turn(proxy: Proxy, orch: &Path, seconds: u64, threads: usize) -> Result<Measured> {
    let topology = Topology::with_backends(BACKENDS, threads)?;
    let running = proxy.start(&topology, orch, threads)?;
    let idle = idle(&topology, running.child.id())?;
    let address = format!("{HOST}:80");
    let run = |kind: Kind| {
        let sample = kind.run(&topology.client, &topology, &address, seconds, threads)?;
        eprintln!(
            "  {kind:12?} {:14.0} p50 {:6.0} p99 {:6.0} CPU {:5.1} errors {}",
            sample.rate, sample.p50, sample.p99, sample.cpu, sample.errors
        );
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(sample)
    };
    Ok(Measured {
        proxy,
        requests: run(Kind::Requests)?,
        connections: run(Kind::Connections)?,
        bulk: run(Kind::Bulk)?,
        idle,
    })
}

/// Medians, and the median of the ratios to the better of the other two within a pass.
fn table(all: &[Measured], proxies: &[Proxy]) -> Table {
    let count = proxies.len().max(1);
    let head = [
        "three copies, client outside",
        "requests/s",
        "ratio",
        "p99 us",
        "connections/s",
        "ratio",
        "p99 us",
        "bulk Gbit/s",
        "CPU us/request",
        "idle connection",
    ];
    let mut table = Table::new(
        "Mode http (ratio: to the better of the others that are not orch's)",
        &head,
    );
    for &proxy in proxies {
        let of = |value: &dyn Fn(&Measured) -> f64| {
            let rows = all.iter().filter(|row| row.proxy == proxy);
            median(rows.map(value))
        };
        let ratio = |value: &dyn Fn(&Measured) -> f64| {
            let passes = all.chunks(count);
            let ratios = passes.filter_map(|pass| {
                let own = pass.iter().find(|row| row.proxy == proxy)?;
                let others = pass.iter().filter(|row| row.proxy.is_rival_of(proxy));
                Some(value(own) / others.map(value).reduce(f64::max)?)
            });
            let ratios: Vec<f64> = ratios.collect();
            if ratios.is_empty() {
                return "-".to_owned();
            }
            format!("{:.2}", median(ratios))
        };
        table.row(vec![
            proxy.name().to_owned(),
            format!("{:.0}", of(&|row| row.requests.rate)),
            ratio(&|row| row.requests.rate),
            format!("{:.0}", of(&|row| row.requests.p99)),
            format!("{:.0}", of(&|row| row.connections.rate)),
            ratio(&|row| row.connections.rate),
            format!("{:.0}", of(&|row| row.connections.p99)),
            format!("{:.2}", of(&|row| row.bulk.rate / 1e9)),
            format!("{:.1}", of(&|row| row.requests.cpu)),
            bytes(of(&|row| row.idle) as u64),
        ]);
    }
    table
}

/// Bytes of resident memory that one connection takes which has asked once and is kept.
fn idle(topology: &Topology, pid: u32) -> Result<f64> {
    let before = resident(pid)?;
    let kept = topology.client.within(|| {
        (0..IDLE)
            .map(|_| {
                let mut stream = TcpStream::connect((HOST, 80))?;
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                stream.write_all(b"GET /ok HTTP/1.1\r\nHost: t\r\n\r\n")?;
                // The answer comes in one piece.
                stream.read_exact(&mut [0; 12])?;
                Ok(stream)
            })
            .collect::<std::io::Result<Vec<_>>>()
    })?;
    let end = Instant::now() + REST;
    thread::sleep(end.saturating_duration_since(Instant::now()));
    let after = resident(pid)?;
    drop(kept);
    Ok(after.saturating_sub(before) as f64 / IDLE as f64)
}

/// Of a process and its children.
fn resident(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else {
            continue;
        };
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let own = field("Pid:") == Some(u64::from(pid)) || field("PPid:") == Some(u64::from(pid));
        if own {
            sum += field("VmRSS:").unwrap_or_default() * 1024;
        }
    }
    Ok(sum)
}

fn gateway(topology: &Topology, orch: &Path, relay: bool) -> Result<Child> {
    let socket = topology.dir.join("gw");
    let mut command = on_host(topology, orch);
    command.args(["gateway", "--socket"]).arg(&socket);
    let child = Child::start(command.stdin(Stdio::null()).stderr(Stdio::null()))?;
    let end = Instant::now() + Duration::from_secs(10);
    let client = loop {
        match Client::connect(&socket, Duration::from_secs(5)) {
            Ok(client) => break client,
            Err(error) if Instant::now() > end => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    };
    let mut http = fixture::http();
    http.routes = vec!["/".to_owned()];
    let slots = topology.containers.iter().zip(0..);
    let service = ServiceTable {
        name: "web".to_owned(),
        listen: Listen {
            address: Some(Ipv4Addr::UNSPECIFIED.into()),
            port: 80,
        },
        closed: false,
        http,
        count: CountConfig {
            prefix: "/".to_owned(),
            exclude: Vec::new(),
        },
        ring: (0..topology.containers.len() as u16).collect(),
        slots: slots
            .map(|(container, slot)| SlotTable {
                slot,
                address: (container.address, BACKEND).into(),
                generation: 1,
                direct: true,
                pardons: 0,
            })
            .collect(),
    };
    client.set(&GatewayTable {
        control: topology.dir.join("none"),
        relay,
        services: vec![service],
    })?;
    Ok(child)
}

fn haproxy(topology: &Topology, threads: usize) -> Result<Child> {
    let servers = lines(topology, |at| format!("    server {at} {at}"));
    let text = format!(
        "global\n    nbthread {threads}\n    maxconn 8192\n\
         defaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n\
         \u{20}   timeout server 60s\n    timeout http-keep-alive 60s\n    option forwardfor\n\
         \u{20}   http-reuse always\n\
         listen web\n    bind :80 backlog 8192\n    balance roundrobin\n{servers}\n"
    );
    let file = topology.dir.join("haproxy-http.cfg");
    fs::write(&file, text)?;
    let mut command = topology.host.command("haproxy");
    command.arg("-db").arg("-f").arg(file).stderr(Stdio::null());
    Child::start(&mut command)
}

fn nginx(topology: &Topology, threads: usize) -> Result<Child> {
    let servers = lines(topology, |at| format!("server {at};"));
    let dir = topology.dir.display();
    let text = format!(
        "user root;\nworker_processes {threads};\ndaemon off;\npid {dir}/http.pid;\n\
         error_log {dir}/http.log;\nevents {{ worker_connections 16384; }}\n\
         http {{\naccess_log off;\nkeepalive_requests 1000000000;\ntcp_nodelay on;\n\
         upstream web {{\n{servers}\nkeepalive 256;\nkeepalive_requests 1000000000;\n}}\n\
         server {{ listen 80 backlog=8192 reuseport; location / {{ proxy_pass http://web;\n\
         proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }}\n}}\n"
    );
    topology.nginx(&topology.host, "http", &text)
}
