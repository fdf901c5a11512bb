//! Where services listen: addresses, families, ports, VLANs.

use std::{io::ErrorKind, net::TcpStream};

use orch::config::{Listen, ServiceConfig};
use orch_tests::{fixture, netns::NetNs};

use super::{World, answered_by};

fn service(name: &str, address: Option<&str>, port: u16, start_port: u16) -> ServiceConfig {
    ServiceConfig {
        name: name.to_owned(),
        listen: Listen {
            address: address.map(|address| address.parse().unwrap()),
            port,
        },
        start_port,
        ..fixture::service()
    }
}

fn refused(netns: &NetNs, address: &str) {
    let error = netns.within(|| TcpStream::connect(address).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
}

/// Which slot answers, as a whole turn of the ring shows it.
fn turn(netns: &NetNs, address: &str) -> Vec<String> {
    netns.within(|| (0..3).map(|_| answered_by(address)).collect())
}

#[test]
fn two_services_share_a_port_on_different_addresses() {
    let services = [
        service("one", Some("10.9.0.1"), 80, 8000),
        service("two", Some("10.9.0.3"), 80, 8100),
        service("three", None, 81, 8200),
    ];
    let mut world = World::serving("addresses", &services);
    world.host.ip(&["addr", "add", "10.9.0.3/24", "dev", "up0"]);
    world.host.ip(&["addr", "add", "10.9.0.4/24", "dev", "up0"]);
    world.sync();
    for netns in [&world.outside, &world.host] {
        assert_eq!(turn(netns, "10.9.0.1:80"), ["8000", "8001", "8002"]);
        assert_eq!(turn(netns, "10.9.0.3:80"), ["8100", "8101", "8102"]);
        assert_eq!(turn(netns, "10.9.0.4:81"), ["8200", "8201", "8202"]);
        assert_eq!(turn(netns, "[fd09::1]:81"), ["8200", "8201", "8202"]);
        refused(netns, "10.9.0.4:80");
        refused(netns, "[fd09::1]:80");
    }
    refused(&world.host, "127.0.0.1:80");
    world.drained();
}

#[test]
fn a_listener_of_one_family_is_of_one_family() {
    let services = [
        service("six", Some("::"), 80, 8000),
        service("four", Some("0.0.0.0"), 81, 8100),
    ];
    let mut world = World::serving("families", &services);
    for netns in [&world.outside, &world.host] {
        assert_eq!(turn(netns, "[fd09::1]:80"), ["8000", "8001", "8002"]);
        assert_eq!(turn(netns, "10.9.0.1:81"), ["8100", "8101", "8102"]);
        refused(netns, "10.9.0.1:80");
        refused(netns, "[fd09::1]:81");
    }
    for (own, other) in [("[::1]:80", "127.0.0.1:80"), ("[::]:80", "0.0.0.0:80")] {
        assert_eq!(turn(&world.host, own), ["8000", "8001", "8002"]);
        refused(&world.host, other);
    }
    for (own, other) in [("127.9.9.9:81", "[::1]:81"), ("0.0.0.0:81", "[::]:81")] {
        assert_eq!(turn(&world.host, own), ["8100", "8101", "8102"]);
        refused(&world.host, other);
    }
    world.drained();
}

#[test]
fn an_interface_on_top_of_an_uplink_is_balanced_once() {
    let mut world = World::new("macvlan");
    let upper = [
        "link", "add", "link", "up0", "name", "upper0", "type", "macvlan",
    ];
    world.host.ip(&upper);
    world
        .host
        .ip(&["addr", "add", "10.9.5.1/24", "dev", "upper0"]);
    world.host.ip(&["link", "set", "upper0", "up"]);
    world
        .outside
        .ip(&["addr", "add", "10.9.5.2/24", "dev", "far0"]);
    assert_eq!(world.sync(), ["upper0 is balanced"]);
    for address in ["10.9.5.1:80", "10.9.0.1:80"] {
        assert_eq!(turn(&world.outside, address), ["8000", "8001", "8002"]);
    }
    world.drained();
    for slot in world.read().slots {
        assert_eq!((slot.connections, slot.counters.requests), (2, 2));
        assert_eq!(slot.counters.responses[2], 2);
    }
}

/// The kernel takes the tag out of a frame before the uplink's program sees it.
#[test]
fn a_vlan_is_balanced_at_its_own_interface() {
    let mut world = World::new("vlan");
    let vlan = [
        "link", "add", "link", "up0", "name", "up0.7", "type", "vlan", "id", "7",
    ];
    let made = world.host.command("ip").args(vlan).output().unwrap();
    if !made.status.success() {
        println!("left out: this kernel has no VLANs (`cargo xtask test vm` has)");
        return;
    }
    world
        .host
        .ip(&["addr", "add", "10.9.7.1/24", "dev", "up0.7"]);
    world.host.ip(&["link", "set", "up0.7", "up"]);
    let other = [
        "link", "add", "link", "far0", "name", "far0.7", "type", "vlan", "id", "7",
    ];
    world.outside.ip(&other);
    world
        .outside
        .ip(&["addr", "add", "10.9.7.2/24", "dev", "far0.7"]);
    world.outside.ip(&["link", "set", "far0.7", "up"]);
    assert_eq!(world.sync(), ["up0.7 is balanced"]);
    for address in ["10.9.7.1:80", "10.9.0.1:80"] {
        assert_eq!(turn(&world.outside, address), ["8000", "8001", "8002"]);
    }
    world.drained();
    for slot in world.read().slots {
        assert_eq!((slot.connections, slot.counters.requests), (2, 2));
        assert_eq!(slot.counters.responses[2], 2);
    }
}
