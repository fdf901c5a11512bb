//! Delivery `direct`: backends in namespaces of their own, ports of a bridge as an engine makes
//! them, with nothing published and the engine's rules in place.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use orch::{
    config::{Local, Mode, ServiceConfig},
    dataplane::Dataplane,
};
use orch_common::{counter::Reason, event::EventKind, slot::SlotKey};
use orch_tests::{fixture, server::ask, wait::until};

use super::{
    VIP, VIP6, connect,
    containers::{Container, World},
};

/// One request on a connection of its own.
fn once(address: &str, path: &str) -> String {
    let (status, body) = ask(&mut connect(address), path).unwrap();
    assert_eq!(status, 200);
    body
}

#[test]
fn outsiders_and_locals_take_turns_past_the_bridge() {
    let world = World::new("direct-turns");
    for round in 0..12 {
        let address = [VIP, VIP6][round % 2];
        world.outside.within(|| once(address, "/api/x"));
        let address = ["127.0.0.1:80", "[::1]:80", VIP, VIP6][round % 4];
        world.host.within(|| once(address, "/api/x"));
    }
    assert_eq!(world.requests(), [8, 8, 8]);
    world.drained();
    let reading = world.read();
    for slot in &reading.slots {
        assert_eq!(
            (slot.connections, slot.counters.requests),
            (8, 8),
            "{reading:?}"
        );
        assert_eq!(slot.counters.responses, [0, 0, 8, 0, 0, 0]);
    }
    assert_eq!(world.host.counter("watch", "invalid"), 0);
}

#[test]
fn it_does_not_matter_whether_bridges_ask_the_firewall() {
    let world = World::new("direct-bridge");
    for value in ["1", "0"] {
        world
            .host
            .sysctl("net.bridge.bridge-nf-call-iptables", value);
        world
            .host
            .sysctl("net.bridge.bridge-nf-call-ip6tables", value);
        for _ in 0..3 {
            world.outside.within(|| once(VIP, "/api/x"));
            world.outside.within(|| once(VIP6, "/api/x"));
            world.host.within(|| once("127.0.0.1:80", "/api/x"));
        }
    }
    assert_eq!(world.requests(), [6, 6, 6]);
    assert_eq!(world.host.counter("watch", "invalid"), 0);
}

#[test]
fn the_clients_address_reaches_the_backend() {
    let world = World::new("direct-peer");
    for _ in 0..3 {
        assert_eq!(world.outside.within(|| once(VIP, "/peer")), "10.9.0.2");
        assert_eq!(world.outside.within(|| once(VIP6, "/peer")), "fd09::2");
    }
    world.host.within(|| {
        for address in ["127.0.0.1:80", "[::1]:80", VIP, VIP6, "127.0.0.1:8001"] {
            let peer = connect(address).peer_addr().unwrap();
            assert_eq!(peer, address.parse().unwrap());
        }
    });
}

#[test]
fn a_slots_port_is_answered_on_this_host_alone() {
    let world = World::new("direct-ports");
    for slot in 0..3 {
        let port = 8000 + slot;
        for address in ["127.0.0.1", "[::1]", "10.9.0.1"] {
            world
                .host
                .within(|| once(&format!("{address}:{port}"), "/api/x"));
        }
        world.outside.within(|| {
            let address = SocketAddr::from(([10, 9, 0, 1], port));
            TcpStream::connect_timeout(&address, Duration::from_millis(300)).unwrap_err();
        });
    }
    assert_eq!(world.requests(), [3, 3, 3]);
    world.drained();
    let counted: Vec<u64> = world
        .read()
        .slots
        .iter()
        .map(|slot| slot.counters.requests)
        .collect();
    assert_eq!(counted, [0, 0, 0], "what goes past the balancer");
}

#[test]
fn outsiders_reach_a_slots_port_where_the_file_says_so() {
    let service = ServiceConfig {
        expose_slots: true,
        ..fixture::service()
    };
    let world = World::with("direct-exposed", &service);
    for port in [8000, 8001, 8002] {
        let address = format!("10.9.0.1:{port}");
        world.outside.within(|| once(&address, "/api/x"));
        let address = format!("[fd09::1]:{port}");
        world.outside.within(|| once(&address, "/api/x"));
    }
    assert_eq!(world.requests(), [2, 2, 2]);
    world.drained();
}

#[test]
fn a_replacement_takes_the_slot_and_the_old_ones_clients_get_a_reset() {
    let mut world = World::new("direct-replace");
    let mut outside = world.outside.within(|| connect(VIP));
    assert_eq!(ask(&mut outside, "/api/x").unwrap().0, 200);
    assert_eq!(world.requests(), [1, 0, 0]);
    let spare = Container::new(&world.host, "br0", 9);
    let entry = spare.entry(0, 2);
    let plane = world.dataplane.as_mut().unwrap();
    let prepared = world
        .host
        .within(|| plane.prepare(&entry.reach, entry.address));
    prepared.unwrap();
    world.set_slot(0, &entry);
    let error = ask(&mut outside, "/api/x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    for _ in 0..3 {
        world.outside.within(|| once(VIP, "/api/x"));
    }
    world.host.within(|| once("127.0.0.1:8000", "/api/x"));
    assert_eq!(spare.server.requests(), 2);
    assert_eq!(world.requests(), [1, 1, 1]);
    world.loses("br0v2");
}

/// A container that ends takes its interface down before it is gone: its replies are still rewritten, and
/// nobody is told that somebody has detached what was ours.
#[test]
fn an_interface_that_is_down_keeps_its_programs() {
    let mut world = World::new("direct-down");
    let (host, plane) = (&world.host, world.dataplane.as_mut().unwrap());
    let mut synced = || host.within(|| plane.sync_host()).unwrap();
    synced();
    host.ip(&["link", "set", "br0v2", "down"]);
    // What is not ours goes whenever another interface comes.
    host.link("up1", &world.outside, "far1");
    let told = synced();
    let of_it = |sentence: &String| sentence.starts_with("up1 is ");
    assert!(!told.is_empty() && told.iter().all(of_it), "{told:?}");
    host.ip(&["link", "set", "br0v2", "up"]);
    assert_eq!(synced(), Vec::<String>::new());
    for _ in 0..3 {
        world.outside.within(|| once(VIP, "/api/x"));
    }
    assert_eq!(world.requests(), [1, 1, 1]);
}

#[test]
fn a_vanished_interface_is_passed_by() {
    let mut world = World::new("direct-gone");
    let plane = world.dataplane.as_mut().unwrap();
    let rings = |bell: &OwnedFd, within: u16| {
        let mut bells = [PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
        poll(&mut bells, PollTimeout::from(within)).unwrap() == 1
    };
    let bell = plane.link_bell().unwrap();
    // The kernel may have something to say yet of links that are new.
    until("nothing happens to links", || {
        plane.hear().unwrap();
        (!rings(&bell, 200)).then_some(())
    });
    let plane = world.dataplane.as_ref().unwrap();
    let cut_off = || world.host.within(|| plane.cut_off());
    assert_eq!(cut_off(), []);
    world.host.ip(&["link", "del", "br0v3"]);
    until("the bell", || rings(&bell, 0).then_some(()));
    let key = SlotKey {
        service: 0,
        slot: 1,
    };
    assert_eq!(cut_off(), [key]);
    for _ in 0..8 {
        world.outside.within(|| once(VIP, "/api/x"));
        world.outside.within(|| once(VIP6, "/api/x"));
    }
    assert_eq!(world.requests(), [8, 0, 8]);
    assert!(world.reason(Reason::PassedBy) >= 8);
}

#[test]
fn one_client_port_to_two_addresses_of_the_host() {
    let mut world = World::new("direct-collision");
    world.host.ip(&["addr", "add", "10.9.0.7/24", "dev", "up0"]);
    let plane = world.dataplane.as_mut().unwrap();
    world.host.within(|| plane.sync_host()).unwrap();
    // The second one's turn would be the first one's backend.
    plane.set_ring(0, &[0]).unwrap();
    let from = |target: &str| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        let own: SocketAddr = "10.9.0.2:45000".parse().unwrap();
        socket.bind(&own.into()).unwrap();
        let target: SocketAddr = target.parse().unwrap();
        socket.connect(&target.into()).unwrap();
        TcpStream::from(socket)
    };
    let mut one = world.outside.within(|| from(VIP));
    let plane = world.dataplane.as_mut().unwrap();
    plane.set_ring(0, &[0, 0, 0, 1]).unwrap();
    let mut two = world.outside.within(|| from("10.9.0.7:80"));
    for _ in 0..3 {
        assert_eq!(ask(&mut one, "/api/x").unwrap().0, 200);
        assert_eq!(ask(&mut two, "/api/x").unwrap().0, 200);
    }
    assert_eq!(world.requests(), [3, 3, 0], "never the same backend");
}

/// What mode http leaves alone, mode tcp has to attach before it balances.
#[test]
fn a_service_that_was_in_mode_http_has_no_slot_before_it_is_ready() {
    let http = ServiceConfig {
        mode: Mode::Http,
        ..fixture::service()
    };
    let mut world = World::with("direct-mode", &http);
    world.reopen();
    let plane = world.plane();
    plane.set_services(&[fixture::service()]).unwrap();
    assert!(plane.ring(0).is_empty());
    for slot in 0..3 {
        let entry = world.containers[usize::from(slot)].entry(slot, 1);
        world.set_slot(slot, &entry);
    }
    world.plane().set_ring(0, &[0, 1, 2]).unwrap();
    for _ in 0..3 {
        world.outside.within(|| once(VIP, "/api/x"));
    }
    assert_eq!(world.requests(), [1, 1, 1]);
    world.reopen();
    world.plane().set_services(&[fixture::service()]).unwrap();
    assert_eq!(world.plane().ring(0), [0, 1, 2], "an upgrade keeps it");
}

#[test]
fn a_controller_that_comes_back_finds_replies_flowing() {
    let mut world = World::new("direct-restart");
    let mut outside = world.outside.within(|| connect(VIP));
    assert_eq!(ask(&mut outside, "/api/x").unwrap().0, 200);
    drop(world.dataplane.take());
    assert_eq!(ask(&mut outside, "/api/x").unwrap().0, 200);
    let config = fixture::dataplane("direct-restart", Local::Connect);
    let again = world.host.within(|| Dataplane::open(&config)).unwrap();
    world.dataplane = Some(again);
    assert_eq!(ask(&mut outside, "/api/x").unwrap().0, 200);
    let plane = world.dataplane.as_mut().unwrap();
    plane.set_services(&[fixture::service()]).unwrap();
    assert_eq!(ask(&mut outside, "/api/x").unwrap().0, 200);
    for slot in 0..3 {
        let entry = world.containers[usize::from(slot)].entry(slot, 1);
        world.set_slot(slot, &entry);
    }
    assert_eq!(ask(&mut outside, "/api/x").unwrap().0, 200);
    world.outside.within(|| once(VIP, "/api/x"));
    assert_eq!(world.requests().iter().sum::<u64>(), 6);
}

#[test]
fn a_refused_connection_is_given_to_another_backend() {
    let mut world = World::new("direct-rescue");
    let (down, entry) = (&world.containers[1], world.containers[1].entry(1, 1));
    down.stop_listening();
    for round in 1..=10 {
        for _ in 0..3 {
            let address = [VIP, VIP6][round % 2];
            world.outside.within(|| once(address, "/api/x"));
        }
        assert_eq!(world.reason(Reason::Rescued), round as u64);
        // As the controller does when it finds nothing wrong.
        world.set_slot(1, &entry);
    }
    let requests = world.requests();
    assert_eq!((requests[0] + requests[2], requests[1]), (30, 0));
    world.drained();
    assert_eq!(world.host.counter("watch", "invalid"), 0);
}

#[test]
fn a_rescued_connection_is_as_good_as_any() {
    const SIZE: usize = 20_000_000;
    let world = World::new("direct-rescued");
    world.containers[0].stop_listening();
    world.outside.within(|| {
        let mut stream = connect(VIP);
        write!(
            stream,
            "POST /api/b HTTP/1.1\r\nContent-Length: {SIZE}\r\n\r\n"
        )
        .unwrap();
        stream.write_all(&vec![b'x'; SIZE]).unwrap();
        assert_eq!(orch_tests::server::answer(&mut stream).unwrap().0, 200);
        for _ in 0..20 {
            assert_eq!(ask(&mut stream, "/api/x").unwrap().0, 200);
        }
    });
    assert_eq!(world.reason(Reason::Rescued), 1);
    assert_eq!(world.requests(), [0, 21, 0]);
    world.drained();
    let slots = world.read().slots;
    assert_eq!(slots[1].counters.responses, [0, 0, 21, 0, 0, 0]);
    let connections: Vec<u64> = slots.iter().map(|slot| slot.connections).collect();
    assert_eq!(connections, [1, 1, 0], "given, and given again");
}

#[test]
fn where_nobody_listens_the_client_is_refused() {
    let world = World::new("direct-refused");
    for container in &world.containers {
        container.stop_listening();
    }
    for address in [VIP, VIP6, "127.0.0.1:80"] {
        let netns = if address == "127.0.0.1:80" {
            &world.host
        } else {
            &world.outside
        };
        let error = netns.within(|| TcpStream::connect(address).unwrap_err());
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    world.drained();
}

#[test]
fn a_backend_whose_process_has_ended_is_passed_by() {
    let mut world = World::new("direct-exit");
    let mut process = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let mut entry = world.containers[1].entry(1, 1);
    entry.pid = Some(process.id());
    world.set_slot(1, &entry);
    for _ in 0..3 {
        world.outside.within(|| once(VIP, "/api/x"));
    }
    assert_eq!(world.requests(), [1, 1, 1]);
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(world.read().slots[1].passed_by, Some(EventKind::Exited));
    assert_eq!(world.reason(Reason::Exited), 1);
    for _ in 0..4 {
        world.outside.within(|| once(VIP, "/api/x"));
        world.host.within(|| once("127.0.0.1:80", "/api/x"));
    }
    assert_eq!(world.requests(), [5, 1, 5]);
    let told = world.dataplane.as_mut().unwrap().alarms();
    assert_eq!(told, [], "nobody was refused");
}

#[test]
fn a_backend_that_others_tell_to_end_is_passed_by_while_it_lives() {
    let mut world = World::new("direct-told");
    // One ignores the wish, one takes note of it, and the third is not asked.
    let mut ends = vec![
        Stubborn::new("''"),
        Stubborn::new("true"),
        Stubborn::new("true"),
    ];
    for (slot, process) in (0..).zip(&ends) {
        let mut entry = world.containers[usize::from(slot)].entry(slot, 1);
        entry.pid = Some(process.0.id());
        world.set_slot(slot, &entry);
    }
    ends[0].signal(Signal::SIGTERM);
    ends[1].signal(Signal::SIGCHLD);
    let passed_by = |world: &World| {
        world
            .read()
            .slots
            .iter()
            .map(|slot| slot.passed_by)
            .collect()
    };
    let seen: Vec<Option<EventKind>> = passed_by(&world);
    assert_eq!(seen, [None; 3]);
    ends[1].signal(Signal::SIGTERM);
    let seen: Vec<Option<EventKind>> = passed_by(&world);
    assert_eq!(seen, [None, Some(EventKind::Signalled), None]);
    assert!(ends[1].0.try_wait().unwrap().is_none(), "it has not ended");
    assert_eq!(world.reason(Reason::Signalled), 1);
    let told = world.dataplane.as_mut().unwrap().alarms();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].kind, told[0].slot.slot), (EventKind::Signalled, 1));
    for _ in 0..4 {
        world.outside.within(|| once(VIP, "/api/x"));
        world.host.within(|| once("127.0.0.1:80", "/api/x"));
    }
    assert_eq!(world.requests(), [4, 0, 4]);
}

/// A process that does something else than to end when it is sent SIGTERM.
struct Stubborn(Child);

impl Stubborn {
    fn new(trap: &str) -> Self {
        let script = format!("trap {trap} TERM; echo; while :; do sleep 60 & wait $!; done");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).stdout(Stdio::piped());
        // A group of its own, so that what it has started ends with it.
        let mut process = shell.process_group(0).spawn().unwrap();
        let mut trapped = [0];
        let mut said = process.stdout.take().unwrap();
        said.read_exact(&mut trapped).unwrap();
        Self(process)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }
}

impl Drop for Stubborn {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}
