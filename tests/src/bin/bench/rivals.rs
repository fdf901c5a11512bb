//! The other balancers, each with every container as a backend.

use std::process::Stdio;

use crate::{
    Result,
    installed::stream_module,
    leftovers::Child,
    topology::{BACKEND, HOST, Topology},
};

/// DNAT ahead of Docker's rules, whose FORWARD rules let it pass.
pub(crate) fn nftables(topology: &Topology) -> Result<()> {
    let count = topology.containers.len();
    let targets: Vec<String> = topology
        .containers
        .iter()
        .enumerate()
        .map(|(turn, container)| format!("{turn} : {} . {BACKEND}", container.address))
        .collect();
    let targets = targets.join(", ");
    let chain = |hook: &str| {
        format!(
            "chain {hook} {{\ntype nat hook {hook} priority -101; policy accept;\n\
             ip daddr {HOST} tcp dport 80 dnat ip to numgen inc mod {count} map {{ {targets} }}\n}}\n"
        )
    };
    let rules = format!(
        "table ip bench {{\n{}{}}}\n",
        chain("prerouting"),
        chain("output")
    );
    let file = topology.dir.join("rules.nft");
    std::fs::write(&file, rules)?;
    let output = topology.host.command("nft").arg("-f").arg(file).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// `HAProxy`, which does not look into what it carries.
pub(crate) fn haproxy(topology: &Topology, threads: usize) -> Result<Child> {
    let servers = lines(topology, |at| format!("    server {at} {at}"));
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
    Child::start(&mut command)
}

/// nginx with its stream module.
pub(crate) fn nginx(topology: &Topology, threads: usize) -> Result<Child> {
    let module = stream_module()?
        .map(|path| format!("load_module {};\n", path.display()))
        .unwrap_or_default();
    let servers = lines(topology, |at| format!("server {at};"));
    let dir = topology.dir.display();
    let text = format!(
        "{module}user root;\nworker_processes {threads};\ndaemon off;\npid {dir}/stream.pid;\n\
         error_log {dir}/stream.log;\nevents {{ worker_connections 16384; }}\n\
         stream {{\nupstream web {{\n{servers}\n}}\n\
         server {{ listen 80 backlog=8192 reuseport; tcp_nodelay on; proxy_pass web; }}\n}}\n"
    );
    topology.nginx(&topology.host, "stream", &text)
}

/// A line of a configuration for every backend.
pub(crate) fn lines(topology: &Topology, line: impl Fn(String) -> String) -> String {
    let lines: Vec<String> = topology
        .containers
        .iter()
        .map(|container| line(format!("{}:{BACKEND}", container.address)))
        .collect();
    lines.join("\n")
}
