//! A host with backends in namespaces of their own, ports of a bridge as an engine makes them, with
//! nothing published and the engine's rules in place.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use orch::{
    config::{Local, ServiceConfig},
    dataplane::{Dataplane, Reach, Reading, SlotEntry},
};
use orch_common::{
    counter::Reason,
    layout::LAYOUT_VERSION,
    slot::{SlotKey, SlotState},
};
use orch_tests::{
    fixture,
    netns::{NetNs, run},
    server::Server,
    wait::until,
};

/// The port at which every backend listens.
pub(crate) const PORT: u16 = 8080;

/// What Docker puts in place: masquerading, a stateful FORWARD chain, and from version 28 on a rule
/// in `raw` that lets packets to a container's address in by its bridge only.
const ENGINE_RULES: &str = "
table ip engine {
    chain early {
        type filter hook prerouting priority raw;
        ip daddr 172.30.0.0/24 iifname != \"br0\" counter drop
    }
    chain through {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname \"br0\" oifname != \"br0\" accept
        iifname \"br0\" oifname \"br0\" accept
    }
    chain last {
        type nat hook postrouting priority srcnat;
        ip saddr 172.30.0.0/24 oifname != \"br0\" masquerade
    }
}
table ip6 engine {
    chain early {
        type filter hook prerouting priority raw;
        ip6 daddr fd30::/64 iifname != \"br0\" counter drop
    }
}
table inet watch {
    counter invalid {}
    chain first { type filter hook prerouting priority filter; ct state invalid counter name invalid; }
    chain out { type filter hook output priority filter; ct state invalid counter name invalid; }
}";

/// A backend in a namespace of its own.
pub(crate) struct Container {
    pub(crate) netns: NetNs,
    pub(crate) server: Server,
    pub(crate) address: IpAddr,
}

impl Container {
    pub(crate) fn new(host: &NetNs, bridge: &str, number: u8) -> Self {
        let netns = NetNs::new();
        let device = format!("{bridge}v{number}");
        host.link(&device, &netns, "eth0");
        host.ip(&["link", "set", &device, "master", bridge]);
        let address = format!("172.30.0.{number}");
        netns.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"]);
        let six = format!("fd30::{number}/64");
        netns.ip(&["addr", "add", &six, "dev", "eth0", "nodad"]);
        netns.ip(&["route", "add", "default", "via", "172.30.0.1"]);
        netns.ip(&["-6", "route", "add", "default", "via", "fd30::1"]);
        let server = netns.within(|| Server::start(PORT));
        Self {
            netns,
            server,
            address: address.parse().unwrap(),
        }
    }

    pub(crate) fn stop_listening(&self) {
        self.netns.within(|| self.server.stop());
    }

    pub(crate) fn entry(&self, slot: u16, generation: u32) -> SlotEntry {
        SlotEntry {
            address: SocketAddr::new(self.address, PORT),
            reach: Reach::Direct {
                netns: PathBuf::from("/run/netns").join(&self.netns.name),
            },
            pid: None,
            port: 8000 + slot,
            state: SlotState::Ready,
            generation,
        }
    }
}

/// A host with containers behind port 80, and a client outside.
pub(crate) struct World {
    pub(crate) dataplane: Option<Dataplane>,
    pub(crate) pin_dir: PathBuf,
    pub(crate) containers: Vec<Container>,
    pub(crate) host: NetNs,
    pub(crate) outside: NetNs,
}

impl World {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, &fixture::service())
    }

    pub(crate) fn with(name: &str, service: &ServiceConfig) -> Self {
        let (host, outside) = (NetNs::new(), NetNs::new());
        host.link("up0", &outside, "far0");
        for (netns, device, last) in [(&host, "up0", 1), (&outside, "far0", 2)] {
            netns.ip(&["addr", "add", &format!("10.9.0.{last}/24"), "dev", device]);
            let six = format!("fd09::{last}/64");
            netns.ip(&["addr", "add", &six, "dev", device, "nodad"]);
        }
        host.ip(&["link", "add", "br0", "type", "bridge"]);
        host.ip(&["addr", "add", "172.30.0.1/24", "dev", "br0"]);
        host.ip(&["addr", "add", "fd30::1/64", "dev", "br0", "nodad"]);
        host.ip(&["link", "set", "br0", "up"]);
        host.sysctl("net.ipv4.ip_forward", "1");
        host.sysctl("net.ipv6.conf.all.forwarding", "1");
        host.nft(ENGINE_RULES);
        let containers: Vec<Container> = (2..5)
            .map(|last| Container::new(&host, "br0", last))
            .collect();
        let config = fixture::dataplane(name, Local::Connect);
        let mut dataplane = host.within(|| {
            let mut dataplane = Dataplane::open(&config).unwrap();
            dataplane
                .set_services(std::slice::from_ref(service))
                .unwrap();
            dataplane
        });
        assert_eq!(dataplane.uplinks(), ["up0"]);
        host.within(|| {
            for (slot, container) in (0..).zip(&containers) {
                let key = SlotKey { service: 0, slot };
                dataplane.set_slot(key, &container.entry(slot, 1)).unwrap();
            }
            dataplane.set_ring(0, &[0, 1, 2]).unwrap();
        });
        Self {
            dataplane: Some(dataplane),
            pin_dir: config.pin_dir,
            containers,
            host,
            outside,
        }
    }

    pub(crate) fn plane(&mut self) -> &mut Dataplane {
        self.dataplane.as_mut().unwrap()
    }

    /// Another controller takes over.
    pub(crate) fn reopen(&mut self) {
        drop(self.dataplane.take());
        let mut config = fixture::dataplane("", Local::Connect);
        config.pin_dir.clone_from(&self.pin_dir);
        let opened = self.host.within(|| Dataplane::open(&config));
        self.dataplane = Some(opened.unwrap());
    }

    pub(crate) fn read(&self) -> Reading {
        self.dataplane.as_ref().unwrap().read().unwrap()
    }

    pub(crate) fn reason(&self, reason: Reason) -> u64 {
        self.read().reasons[reason as usize]
    }

    pub(crate) fn set_slot(&mut self, slot: u16, entry: &SlotEntry) {
        let Self {
            host, dataplane, ..
        } = self;
        let plane = dataplane.as_mut().unwrap();
        let key = SlotKey { service: 0, slot };
        host.within(|| plane.set_slot(key, entry)).unwrap();
    }

    /// Whether a program is attached to what is not an interface.
    pub(crate) fn has(&self, program: &str) -> bool {
        let links = format!("v{LAYOUT_VERSION}/links/{program}");
        self.pin_dir.join(links).exists()
    }

    /// Takes away an interface, and waits until no pin speaks of it.
    pub(crate) fn loses(&mut self, interface: &str) {
        let (host, name) = (&self.host, self.host.name.as_str());
        let shown = run("ip", &["-n", name, "-o", "link", "show", interface]).stdout;
        let index = String::from_utf8(shown).unwrap();
        let (index, _) = index.split_once(':').unwrap();
        host.ip(&["link", "del", interface]);
        let pins = self.pin_dir.join(format!("v{LAYOUT_VERSION}/links"));
        let plane = self.dataplane.as_mut().unwrap();
        until("its pins are gone", || {
            host.within(|| plane.sync_host()).unwrap();
            let names = std::fs::read_dir(&pins).unwrap().flatten();
            let left = names.filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.starts_with(&format!("if{index}-")) || *name == *format!("qdisc{index}")
            });
            (left.count() == 0).then_some(())
        });
    }

    pub(crate) fn requests(&self) -> Vec<u64> {
        let servers = self.containers.iter().map(|one| &one.server);
        servers.map(Server::requests).collect()
    }

    pub(crate) fn drained(&self) {
        until("every live count is 0", || {
            let slots = self.read().slots;
            slots.iter().all(|slot| slot.live == 0).then_some(())
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.dataplane.take().map(Dataplane::detach));
        let _ = std::fs::remove_dir(&self.pin_dir);
    }
}
