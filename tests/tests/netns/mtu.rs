//! Ways to clients that are narrower than a backend's own link: what it sends too large must come
//! back to it as an ICMP error, or its replies are lost for good (RFC 1191, RFC 8201).

use std::time::Duration;

use orch_common::counter::Reason;
use orch_tests::{
    netns::NetNs,
    server::{BULK, ask},
};

use super::{VIP, VIP6, connect, containers::World};

/// Fetches what is larger than any packet from each backend, by both families.
fn fetch(client: &NetNs) {
    for address in [VIP, VIP6] {
        for _ in 0..3 {
            let length = client.within(|| {
                let mut stream = connect(address);
                stream
                    .set_read_timeout(Some(Duration::from_secs(30)))
                    .unwrap();
                ask(&mut stream, "/bulk").map(|(_, body)| body.len())
            });
            assert_eq!(length.unwrap(), BULK, "{address}");
        }
    }
}

#[test]
fn an_uplink_that_is_narrower_than_the_backends_links() {
    let world = World::new("mtu-uplink");
    world.host.ip(&["link", "set", "up0", "mtu", "1300"]);
    fetch(&world.outside);
    // One for each backend and family at the least: until it knows the way, it fills its own link.
    let told = world.reason(Reason::TooLarge);
    assert!(told >= 6, "{told}");
}

#[test]
fn a_router_on_the_way_that_is_narrower() {
    let world = World::new("mtu-router");
    let beyond = NetNs::new();
    let router = &world.outside;
    router.link("far1", &beyond, "end0");
    for (netns, device, last) in [(router, "far1", 1), (&beyond, "end0", 2)] {
        netns.ip(&["addr", "add", &format!("10.10.0.{last}/24"), "dev", device]);
        let six = format!("fd10::{last}/64");
        netns.ip(&["addr", "add", &six, "dev", device, "nodad"]);
    }
    // The client does not know it: its SYN offers to take more.
    router.ip(&["link", "set", "far1", "mtu", "1300"]);
    router.sysctl("net.ipv4.ip_forward", "1");
    router.sysctl("net.ipv6.conf.all.forwarding", "1");
    world
        .host
        .ip(&["route", "add", "10.10.0.0/24", "via", "10.9.0.2"]);
    world
        .host
        .ip(&["-6", "route", "add", "fd10::/64", "via", "fd09::2"]);
    beyond.ip(&["route", "add", "10.9.0.0/24", "via", "10.10.0.1"]);
    beyond.ip(&["-6", "route", "add", "fd09::/64", "via", "fd10::1"]);
    fetch(&beyond);
    let led = world.reason(Reason::Icmp);
    assert!(led >= 6, "{led}");
    assert_eq!(world.reason(Reason::TooLarge), 0, "the uplink is wide");
}
