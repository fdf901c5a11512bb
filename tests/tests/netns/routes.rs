//! Clients that are reached another way than before, while their connections are open.

use orch_tests::{netns::NetNs, server::ask, wait::until};

use super::{connect, containers::World};

/// Addresses of the service and of its client that belong to none of the links between them.
const SERVICE: &str = "10.99.0.1";
const CLIENT: &str = "10.99.0.2";

/// A world whose client has a second link to the host, and the routes both have.
struct Routed {
    world: World,
}

impl Routed {
    fn new(name: &str) -> Self {
        let mut world = World::new(name);
        world.host.link("up1", &world.outside, "far1");
        for (netns, device, last) in [(&world.host, "up1", 1), (&world.outside, "far1", 2)] {
            let address = format!("10.10.0.{last}/24");
            netns.ip(&["addr", "add", &address, "dev", device]);
        }
        for (netns, address) in [(&world.host, SERVICE), (&world.outside, CLIENT)] {
            netns.ip(&["addr", "add", &format!("{address}/32"), "dev", "lo"]);
            netns.ip(&["link", "set", "lo", "up"]);
        }
        // Nobody finds the client at a link but by its route.
        world.outside.sysctl("net.ipv4.conf.all.arp_ignore", "1");
        let (host, plane) = (&world.host, world.dataplane.as_mut().unwrap());
        host.within(|| plane.sync_host()).unwrap();
        assert_eq!(plane.uplinks(), ["up0", "up1"]);
        let routed = Self { world };
        routed.comes_by(0);
        routed.goes_by(0);
        routed
    }

    /// What the client sends takes this link from now on.
    fn comes_by(&self, link: u8) {
        route(
            &self.world.outside,
            SERVICE,
            &format!("10.{}.0.1", 9 + link),
            CLIENT,
        );
    }

    /// What the host sends to the client does.
    fn goes_by(&self, link: u8) {
        route(
            &self.world.host,
            CLIENT,
            &format!("10.{}.0.2", 9 + link),
            SERVICE,
        );
    }

    fn arrived(&self, device: &str) -> u64 {
        let file = format!("/sys/class/net/{device}/statistics/rx_packets");
        let shown = self
            .world
            .outside
            .command("cat")
            .arg(file)
            .output()
            .unwrap();
        let text = String::from_utf8(shown.stdout).unwrap();
        text.trim().parse().unwrap()
    }
}

fn route(netns: &NetNs, to: &str, via: &str, from: &str) {
    netns.ip(&["route", "replace", to, "via", via, "src", from]);
}

#[test]
fn open_connections_follow_their_clients_to_another_link() {
    let routed = Routed::new("routes-both");
    let world = &routed.world;
    let address = format!("{SERVICE}:80");
    let mut streams: Vec<_> = (0..6)
        .map(|_| world.outside.within(|| connect(&address)))
        .collect();
    let mut all_answer = || {
        for stream in &mut streams {
            assert_eq!(ask(stream, "/api/x").unwrap().0, 200);
        }
    };
    all_answer();
    world.host.ip(&["link", "set", "up0", "down"]);
    routed.comes_by(1);
    routed.goes_by(1);
    let before = routed.arrived("far1");
    all_answer();
    assert!(routed.arrived("far1") >= before + 6);
}

#[test]
fn replies_follow_the_hosts_own_routes() {
    let mut routed = Routed::new("routes-back");
    let address = format!("{SERVICE}:80");
    let mut stream = routed.world.outside.within(|| connect(&address));
    assert_eq!(ask(&mut stream, "/api/x").unwrap().0, 200);
    routed.goes_by(1);
    until("replies come by the other link", || {
        routed.world.plane().sweep().unwrap();
        let before = routed.arrived("far1");
        for _ in 0..20 {
            assert_eq!(ask(&mut stream, "/api/x").unwrap().0, 200);
        }
        (routed.arrived("far1") >= before + 20).then_some(())
    });
}

/// The next sweep is far: what the kernel tells of routes is enough, of the first change and of the next.
#[test]
fn replies_follow_the_hosts_own_routes_at_once() {
    let mut routed = Routed::new("routes-news");
    let address = format!("{SERVICE}:80");
    let mut stream = routed.world.outside.within(|| connect(&address));
    assert_eq!(ask(&mut stream, "/api/x").unwrap().0, 200);
    for (link, device) in [(1, "far1"), (0, "far0"), (1, "far1")] {
        routed.goes_by(link);
        until("replies come by the other link", || {
            routed.world.plane().hear().unwrap();
            let before = routed.arrived(device);
            for _ in 0..20 {
                assert_eq!(ask(&mut stream, "/api/x").unwrap().0, 200);
            }
            (routed.arrived(device) >= before + 20).then_some(())
        });
    }
}

/// A SYN comes while the route to its client is another one for a moment.
#[test]
fn a_handshake_that_was_answered_the_wrong_way_is_answered_again() {
    let routed = Routed::new("routes-syn");
    let world = &routed.world;
    // Where it leads, nobody is.
    let nowhere = [
        "route",
        "replace",
        CLIENT,
        "via",
        "10.10.0.9",
        "src",
        SERVICE,
    ];
    world.host.ip(&nowhere);
    let address = format!("{SERVICE}:80");
    let stream = std::thread::scope(|scope| {
        let client = scope.spawn(|| world.outside.within(|| connect(&address)));
        until("its SYN has come", || {
            let slots = world.read().slots;
            slots.iter().any(|slot| slot.connections > 0).then_some(())
        });
        routed.goes_by(0);
        client.join().unwrap()
    });
    drop(stream);
    world.drained();
}
