//! Real TCP through the data plane: an outside client in its own namespace, and clients on the
//! host. The "host" is a namespace as well, so tests run beside each other and beside a real one.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use orch::{
    config::{Local, ServiceConfig},
    dataplane::{Dataplane, Reach, Reading, SlotEntry},
};
use orch_common::{
    counter::Reason,
    slot::{SlotKey, SlotState},
};
use orch_tests::{
    fixture,
    netns::NetNs,
    server::{Server, ask},
    wait::until,
};

mod attachment;
mod balance;
mod bulk;
mod containers;
mod direct;
mod engines;
mod firewall;
mod hold;
mod inside;
mod leftovers;
mod listen;
mod mixed;
mod mtu;
mod orphan;
mod porch;
mod probe;
mod relay;
mod reuse;
mod routes;
mod tally;
mod ways;

const VIP: &str = "10.9.0.1:80";
const VIP6: &str = "[fd09::1]:80";

/// A host with three backends behind port 80, and a client outside.
struct World {
    dataplane: Option<Dataplane>,
    pin_dir: PathBuf,
    servers: Vec<Server>,
    host: NetNs,
    outside: NetNs,
}

impl World {
    fn new(name: &str) -> Self {
        Self::with(name, &fixture::service())
    }

    fn with(name: &str, service: &ServiceConfig) -> Self {
        Self::serving(name, std::slice::from_ref(service))
    }

    /// Three ready slots for each of these services.
    fn serving(name: &str, services: &[ServiceConfig]) -> Self {
        let (host, outside) = (NetNs::new(), NetNs::new());
        host.link("up0", &outside, "far0");
        for (netns, device, last) in [(&host, "up0", 1), (&outside, "far0", 2)] {
            netns.ip(&["addr", "add", &format!("10.9.0.{last}/24"), "dev", device]);
            netns.ip(&[
                "addr",
                "add",
                &format!("fd09::{last}/64"),
                "dev",
                device,
                "nodad",
            ]);
        }
        let config = fixture::dataplane(name, Local::Connect);
        let (dataplane, servers) = host.within(|| {
            let mut dataplane = Dataplane::open(&config).unwrap();
            dataplane.set_services(services).unwrap();
            let ports = services
                .iter()
                .flat_map(|service| (0..3).map(|slot| service.start_port + slot));
            (dataplane, ports.map(Server::start).collect())
        });
        let pin_dir = config.pin_dir.clone();
        let mut world = Self {
            dataplane: Some(dataplane),
            pin_dir,
            servers,
            host,
            outside,
        };
        assert_eq!(world.plane().uplinks(), ["up0"]);
        for (index, service) in services.iter().enumerate() {
            for slot in 0..3 {
                world.slot_of(index as u16, service.start_port, slot);
            }
            world.plane().set_ring(index as u16, &[0, 1, 2]).unwrap();
        }
        world
    }

    fn plane(&mut self) -> &mut Dataplane {
        self.dataplane.as_mut().unwrap()
    }

    /// Makes a slot ready.
    fn slot_of(&mut self, service: u16, start_port: u16, slot: u16) {
        let port = start_port + slot;
        let entry = SlotEntry {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            reach: Reach::Port,
            pid: None,
            port,
            state: SlotState::Ready,
            generation: 1,
        };
        self.plane()
            .set_slot(SlotKey { service, slot }, &entry)
            .unwrap();
    }

    /// What the kernel has counted for a reason.
    fn reason(&mut self, reason: Reason) -> u64 {
        self.read().reasons[reason as usize]
    }

    fn read(&mut self) -> Reading {
        self.plane().read().unwrap()
    }

    fn sync(&mut self) -> Vec<String> {
        let Self {
            host, dataplane, ..
        } = self;
        let plane = dataplane.as_mut().unwrap();
        host.within(|| plane.sync_host()).unwrap()
    }

    /// Waits until no connection is open.
    fn drained(&mut self) {
        until("every live count is 0", || {
            self.read()
                .slots
                .iter()
                .all(|slot| slot.live == 0)
                .then_some(())
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.dataplane.take().map(Dataplane::detach));
        let _ = std::fs::remove_dir(&self.pin_dir);
    }
}

fn connect(address: &str) -> TcpStream {
    let stream =
        TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(10)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

/// The port that answers a new connection to this address.
fn answered_by(address: &str) -> String {
    let (status, body) = ask(&mut connect(address), "/api/x").unwrap();
    assert_eq!(status, 200);
    body
}

#[test]
fn outsiders_and_locals_take_turns() {
    let mut world = World::new("turns");
    let ports = ["8000", "8001", "8002"];
    for round in 0..4 {
        for (turn, port) in ports.iter().enumerate() {
            let address = [VIP, VIP6][(round + turn) % 2];
            assert_eq!(world.outside.within(|| answered_by(address)), *port);
        }
        for port in ports {
            let address = ["127.0.0.1:80", "[::1]:80", VIP][round % 3];
            assert_eq!(world.host.within(|| answered_by(address)), port);
        }
    }
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
}

#[test]
fn a_local_client_sees_the_address_it_asked_for() {
    let world = World::new("peer");
    world.host.within(|| {
        for address in ["127.0.0.1:80", "[::1]:80", VIP] {
            assert_eq!(
                connect(address).peer_addr().unwrap(),
                address.parse().unwrap()
            );
        }
    });
}

#[test]
fn many_requests_on_one_connection_are_all_counted() {
    let mut world = World::new("keepalive");
    let talk = |address: &str| {
        let mut stream = connect(address);
        for number in 0..50 {
            let path = if number % 5 == 0 {
                "/api/_health"
            } else {
                "/api/x"
            };
            assert_eq!(ask(&mut stream, path).unwrap().0, 200);
        }
        let body = vec![b'G'; 300_000];
        write!(
            stream,
            "POST /api/b HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .unwrap();
        stream.write_all(&body).unwrap();
        assert_eq!(orch_tests::server::answer(&mut stream).unwrap().0, 200);
    };
    world.outside.within(|| talk(VIP));
    world.host.within(|| talk("127.0.0.1:80"));
    world.servers[2].set_status(503);
    world
        .outside
        .within(|| assert_eq!(ask(&mut connect(VIP), "/api/x").unwrap().0, 503));
    world.drained();
    let slots = world.read().slots;
    for slot in &slots[..2] {
        assert_eq!((slot.counters.requests, slot.counters.excluded), (41, 10));
        assert_eq!(slot.counters.responses, [0, 0, 41, 0, 0, 0]);
    }
    assert_eq!(slots[2].counters.responses, [0, 0, 0, 0, 0, 1]);
}

#[test]
fn live_connections_are_counted_while_they_live() {
    let mut world = World::new("live");
    let mut streams: Vec<TcpStream> = Vec::new();
    for _ in 0..6 {
        streams.push(world.outside.within(|| connect(VIP)));
        streams.push(world.host.within(|| connect("127.0.0.1:80")));
    }
    let live: Vec<u64> = world.read().slots.iter().map(|slot| slot.live).collect();
    assert_eq!(live, [4, 4, 4]);
    for stream in &streams[..4] {
        // Aborted with RST instead of closed with FIN.
        socket2::SockRef::from(stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
    streams.clear();
    world.drained();
}

#[test]
fn outsiders_do_not_reach_slot_ports() {
    let world = World::new("guard");
    for port in [8000, 8001, 8002] {
        world.outside.within(|| {
            let address = SocketAddr::from(([10, 9, 0, 1], port));
            TcpStream::connect_timeout(&address, Duration::from_millis(300)).unwrap_err();
        });
        world
            .host
            .within(|| assert_eq!(answered_by(&format!("127.0.0.1:{port}")), port.to_string()));
    }
}

#[test]
fn with_nothing_ready_clients_are_refused_at_once() {
    let mut world = World::new("refused");
    world.plane().set_ring(0, &[]).unwrap();
    for (netns, address) in [
        (&world.outside, VIP),
        (&world.outside, VIP6),
        (&world.host, VIP),
        (&world.host, "127.0.0.1:80"),
    ] {
        let error = netns.within(|| TcpStream::connect(address).unwrap_err());
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionRefused,
            "{address}"
        );
    }
}

#[test]
fn clients_of_a_removed_backend_get_a_reset() {
    let mut world = World::new("removed");
    let mut stream = world.outside.within(|| connect(VIP));
    assert_eq!(ask(&mut stream, "/api/x").unwrap().1, "8000");
    world
        .plane()
        .remove_slot(SlotKey {
            service: 0,
            slot: 0,
        })
        .unwrap();
    stream.write_all(b"GET /api/x HTTP/1.1\r\n\r\n").unwrap();
    let error = stream.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_restart_of_the_controller_keeps_flows_and_ring() {
    let mut world = World::new("restart");
    let mut outside = world.outside.within(|| connect(VIP));
    let mut local = world.host.within(|| connect("127.0.0.1:80"));
    assert_eq!(ask(&mut outside, "/api/x").unwrap().1, "8000");
    assert_eq!(ask(&mut local, "/api/x").unwrap().1, "8001");
    drop(world.dataplane.take());
    assert_eq!(ask(&mut outside, "/api/x").unwrap().1, "8000");
    assert_eq!(
        world.outside.within(|| answered_by(VIP)),
        "8002",
        "without a controller"
    );
    let config = fixture::dataplane("restart", Local::Connect);
    let again = world.host.within(|| Dataplane::open(&config)).unwrap();
    world.dataplane = Some(again);
    world.plane().set_services(&[fixture::service()]).unwrap();
    assert_eq!(world.plane().ring(0), [0, 1, 2]);
    assert_eq!(ask(&mut outside, "/api/x").unwrap().1, "8000");
    assert_eq!(ask(&mut local, "/api/x").unwrap().1, "8001");
    assert_eq!(world.outside.within(|| answered_by(VIP)), "8000");
    assert_eq!(world.host.within(|| answered_by("127.0.0.1:80")), "8001");
    drop((outside, local));
    world.drained();
    assert_eq!(
        world
            .read()
            .slots
            .iter()
            .map(|slot| slot.counters.requests)
            .sum::<u64>(),
        8
    );
}

#[test]
fn an_interface_may_come_and_go() {
    let mut world = World::new("interface");
    world.host.ip(&["link", "del", "up0"]);
    let sentences = world.sync();
    assert_eq!(sentences, ["up0 is no longer balanced"]);
    world.host.link("up0", &world.outside, "far0");
    world.host.ip(&["addr", "add", "10.9.0.1/24", "dev", "up0"]);
    world
        .outside
        .ip(&["addr", "add", "10.9.0.2/24", "dev", "far0"]);
    let sentences = world.sync();
    assert_eq!(sentences, ["up0 is balanced"]);
    assert_eq!(world.outside.within(|| answered_by(VIP)), "8000");
}

#[test]
fn a_second_controller_is_refused() {
    let world = World::new("second");
    let config = fixture::dataplane("second", Local::Connect);
    let error = world
        .host
        .within(|| Dataplane::open(&config).err().unwrap());
    assert!(error.to_string().contains("another controller"), "{error}");
}

#[test]
fn a_service_keeps_its_copies_wherever_it_listens() {
    let mut world = World::new("elsewhere");
    assert_eq!(world.outside.within(|| answered_by(VIP)), "8000");
    let mut service = fixture::service();
    service.listen.port = 81;
    world.plane().set_services(&[service]).unwrap();
    let elsewhere = "10.9.0.1:81";
    assert_eq!(world.outside.within(|| answered_by(elsewhere)), "8001");
    assert_eq!(world.outside.within(|| answered_by(elsewhere)), "8002");
    assert_eq!(world.host.within(|| answered_by("127.0.0.1:81")), "8000");
}

#[test]
fn another_version_takes_over_from_another_layout() {
    let mut world = World::new("layout");
    drop(world.dataplane.take());
    let own = format!("v{}", orch_common::layout::LAYOUT_VERSION);
    let old = world.pin_dir.join("v0");
    let own = world.pin_dir.join(own);
    std::fs::rename(&own, &old).unwrap();
    let config = fixture::dataplane("layout", Local::Connect);
    let again = world.host.within(|| Dataplane::open(&config)).unwrap();
    world.dataplane = Some(again);
    assert!(!old.exists(), "what the old version left");
    world.plane().set_services(&[fixture::service()]).unwrap();
    for slot in 0..3 {
        world.slot_of(0, 8000, slot);
    }
    world.plane().set_ring(0, &[0, 1, 2]).unwrap();
    for port in ["8000", "8001", "8002"] {
        assert_eq!(world.outside.within(|| answered_by(VIP)), port);
    }
    assert_eq!(world.host.within(|| answered_by("127.0.0.1:80")), "8000");
    drop(world.dataplane.take());
    std::fs::rename(&own, &old).unwrap();

    // With the services known beforehand nobody is refused until their slots are.
    let services = [fixture::service()];
    let again = world
        .host
        .within(|| Dataplane::open_for(&config, &services))
        .unwrap();
    world.dataplane = Some(again);
    let local = world.host.within(|| answered_by("127.0.0.1:80"));
    assert!(local.starts_with("800"), "{local}: by the old version");
    let refused = world
        .outside
        .within(|| TcpStream::connect_timeout(&VIP.parse().unwrap(), Duration::from_millis(200)));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TimedOut, "it waits");
    assert_eq!(world.plane().held().len(), 1);
    assert!(old.exists());
    for slot in 0..3 {
        world.slot_of(0, 8000, slot);
    }
    world.plane().set_ring(0, &[0, 1, 2]).unwrap();
    assert!(!old.exists(), "it is needed no longer");
    assert_eq!(world.outside.within(|| answered_by(VIP)), "8000");
    assert_eq!(world.host.within(|| answered_by("127.0.0.1:80")), "8001");
    drop(world.dataplane.take());
    std::fs::rename(&own, &old).unwrap();
    world
        .host
        .within(|| Dataplane::remove(&world.pin_dir))
        .unwrap();
    assert!(!world.pin_dir.exists(), "nothing is left");
}
