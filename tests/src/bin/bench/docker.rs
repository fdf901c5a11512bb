//! What a Docker engine makes of its host's network, made by hand in the benchmark's namespace: the
//! bridge, the containers' cables, the rules (those of Docker 20.10, as `iptables-save` prints them)
//! and one docker-proxy per published port. In a namespace of its own, Docker's way is measured
//! under the same conditions as the others, and the engine of this machine is left alone.

use std::{fmt::Write, net::Ipv4Addr};

use orch_tests::netns::NetNs;

use crate::{
    Result,
    leftovers::Child,
    topology::{BACKEND, Container, SLOTS, Topology},
};

const BRIDGE: &str = "docker0";
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
/// The address of the first container; the others follow.
pub(crate) const FIRST: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);

/// Makes the bridge.
pub(crate) fn bridge(host: &NetNs) {
    host.ip(&["link", "add", BRIDGE, "type", "bridge"]);
    host.ip(&["addr", "add", &format!("{GATEWAY}/16"), "dev", BRIDGE]);
    host.ip(&["link", "set", BRIDGE, "up"]);
}

/// Makes a namespace and joins it to the bridge.
pub(crate) fn container(host: &NetNs, index: usize) -> Container {
    let netns = NetNs::new();
    let address = Ipv4Addr::from(u32::from(FIRST) + index as u32);
    let port = format!("veth{index}");
    host.link(&port, &netns, "eth0");
    host.ip(&["link", "set", &port, "master", BRIDGE]);
    netns.ip(&["addr", "add", &format!("{address}/16"), "dev", "eth0"]);
    netns.ip(&["route", "add", "default", "via", &GATEWAY.to_string()]);
    Container { netns, address }
}

/// Sets the rules and starts the proxies.
pub(crate) fn publish(topology: &Topology) -> Result<Vec<Child>> {
    let file = topology.dir.join("rules.iptables");
    std::fs::write(&file, rules(&topology.containers))?;
    let restored = topology
        .host
        .command("iptables-restore")
        .arg(&file)
        .output()?;
    if !restored.status.success() {
        let why = String::from_utf8_lossy(&restored.stderr);
        return Err(format!("iptables-restore: {why}").into());
    }
    let log = topology.dir.join("proxies.log");
    (SLOTS..)
        .zip(&topology.containers)
        .map(|(port, container)| {
            // It tells the engine by descriptor 3 that it listens, and closes that.
            let line = format!(
                "exec docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port {port} \
                 -container-ip {} -container-port {BACKEND} 3>/dev/null >>{} 2>&1",
                container.address,
                log.display()
            );
            Child::start(topology.host.command("sh").args(["-c", &line]))
        })
        .collect()
}

fn rules(containers: &[Container]) -> String {
    let (mut nat, mut filter) = (String::new(), String::new());
    for (slot, container) in (SLOTS..).zip(containers) {
        let address = container.address;
        // Writing to a string does not fail.
        let _ = writeln!(
            nat,
            "-A POSTROUTING -s {address}/32 -d {address}/32 -p tcp -m tcp --dport {BACKEND} -j MASQUERADE\n\
             -A DOCKER ! -i {BRIDGE} -p tcp -m tcp --dport {slot} -j DNAT --to-destination {address}:{BACKEND}"
        );
        let _ = writeln!(
            filter,
            "-A DOCKER -d {address}/32 ! -i {BRIDGE} -o {BRIDGE} -p tcp -m tcp --dport {BACKEND} -j ACCEPT"
        );
    }
    format!(
        "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o {BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o {BRIDGE} -j DOCKER
-A FORWARD -i {BRIDGE} ! -o {BRIDGE} -j ACCEPT
-A FORWARD -i {BRIDGE} -o {BRIDGE} -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i {BRIDGE} ! -o {BRIDGE} -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o {BRIDGE} -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
{filter}COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o {BRIDGE} -j MASQUERADE
-A DOCKER -i {BRIDGE} -j RETURN
{nat}COMMIT
"
    )
}
