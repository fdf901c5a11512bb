//! Sockets of this host whose backend ends between their choice and their SYN: nobody refuses them.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command},
    sync::mpsc::{self, Receiver},
    thread,
};

use orch::{
    dataplane::{HoldTerms, is_interface},
    hold::stand_in::{self, StandIn},
};
use orch_common::{
    counter::Reason,
    event::EventKind,
    hold::{HeldSyn, OF_SOCKET},
};
use orch_tests::{server::ask, wait::until};

use super::{
    connect,
    containers::{PORT, World},
    porch::{LONG, in_host, porch, soon},
};

/// Nothing gets to the backend from elsewhere.
const DEAF: &str = r#"
table inet deaf {
    chain in {
        type filter hook input priority filter; iifname "eth0" tcp dport 8080 drop
    }
}"#;

/// An engine has such a rule for each container, and takes it back with it: here it is one for all.
const RULES_GO: &str = "flush chain ip engine early
flush chain ip6 engine early";

/// A world with one copy, and a process that stands for the first of its processes.
struct Single {
    world: World,
    process: Child,
}

impl Single {
    fn new(name: &str) -> Self {
        let process = Command::new("sleep").arg("60").spawn().unwrap();
        let mut world = World::new(name);
        let mut entry = world.containers[0].entry(0, 1);
        entry.pid = Some(process.id());
        world.set_slot(0, &entry);
        world.plane().set_ring(0, &[0]).unwrap();
        Self { world, process }
    }

    fn holds(&mut self) {
        let terms = HoldTerms {
            limit: 100,
            listener: Some(1),
            bridge_listener: None,
        };
        self.world.plane().set_holding(0, Some(terms)).unwrap();
    }

    /// A client that is given to the copy, and whose SYN does not get there yet.
    fn dials(&self, address: &'static str) -> Receiver<io::Result<String>> {
        let netns = &self.world.containers[0].netns;
        netns.nft(DEAF);
        let connections = self.world.read().slots[0].connections;
        let (sender, receiver) = mpsc::channel();
        let inside = self.world.host.entry();
        thread::spawn(move || {
            inside.enter();
            let address: SocketAddr = address.parse().unwrap();
            let answer = TcpStream::connect_timeout(&address, LONG).and_then(|mut stream| {
                stream.set_read_timeout(Some(LONG))?;
                ask(&mut stream, "/api/x").map(|answer| answer.1)
            });
            let _ = sender.send(answer);
        });
        until("it has been given to the copy", || {
            (self.world.read().slots[0].connections > connections).then_some(())
        });
        receiver
    }

    /// The copy's listener closes, and its client's SYN gets there when it comes again.
    fn closes(&self) {
        self.world.containers[0].stop_listening();
        let netns = &self.world.containers[0].netns;
        netns.nft("delete table inet deaf");
    }

    fn dies(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let passed_by = self.world.read().slots[0].passed_by;
        assert_eq!(passed_by, Some(EventKind::Exited));
    }

    /// The socket that waits.
    fn orphan(&mut self) -> HeldSyn {
        let held = until("the kernel tells of the socket", || {
            self.world.plane().held().pop()
        });
        assert_eq!(held.len, OF_SOCKET);
        held
    }
}

impl Drop for Single {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_socket_whose_backend_has_just_ended_is_answered_by_another() {
    for round in 0..2 {
        let address = "127.0.0.1:80";
        let mut single = Single::new(&format!("orphan-{round}"));
        single.holds();
        let client = single.dials(address);
        single.dies();
        if round == 1 {
            // The slot has its next copy before the SYN comes.
            let next = single.world.containers[2].entry(0, 2);
            single.world.set_slot(0, &next);
        }
        // What was said before holds for five seconds.
        single.holds();
        single.closes();
        let orphan = single.orphan();
        assert!(single.world.reason(Reason::Held) >= 1);
        single.world.host.within(|| {
            assert!(is_interface(orphan.ifindex));
        });
        single.world.host.ip(&["link", "del", "br0v2"]);
        single.world.host.nft(RULES_GO);
        single.world.plane().set_ring(0, &[1]).unwrap();
        let pin_dir = single.world.pin_dir.clone();
        let backend = stand_in::backend(&orphan);
        let answer = in_host(&single.world, async move || {
            assert!(!is_interface(orphan.ifindex));
            let porch = porch();
            let stand_in = StandIn::open(&pin_dir, backend, &porch, || {}).unwrap();
            assert!(stand_in.is_idle());
            StandIn::open(&pin_dir, backend, &porch, || {}).unwrap_err();
            stand_in::send_again(&orphan).unwrap();
            let answer = soon(&client).await;
            while !stand_in.is_idle() {
                tokio::task::yield_now().await;
            }
            drop(stand_in);
            // The address is nobody's again, and may be taken anew.
            while StandIn::open(&pin_dir, backend, &porch, || {}).is_err() {
                tokio::task::yield_now().await;
            }
            answer
        });
        assert_eq!(answer.unwrap(), PORT.to_string(), "{address}");
        let requests = single.world.containers[1].server.requests();
        assert_eq!(requests, 1, "the other one has answered");
        single.world.drained();
    }
}

#[test]
fn who_came_by_an_address_hears_of_its_end() {
    let single = Single::new("orphan-cut");
    let world = &single.world;
    world.host.nft(RULES_GO);
    let pin_dir = world.pin_dir.clone();
    let backend: SocketAddr = "172.30.0.9:8080".parse().unwrap();
    in_host(world, async || {
        let porch = porch();
        let stand_in = StandIn::open(&pin_dir, backend, &porch, || {}).unwrap();
        let (sender, ended) = mpsc::channel();
        let inside = world.host.entry();
        let (ready, begun) = mpsc::channel();
        thread::spawn(move || {
            inside.enter();
            let mut stream = connect("172.30.0.9:8080");
            ready.send(ask(&mut stream, "/api/x").unwrap().0).unwrap();
            let read = io::Read::read(&mut stream, &mut [0]);
            sender.send(read.map_err(|error| error.kind())).unwrap();
        });
        assert_eq!(soon(&begun).await, 200);
        assert!(!stand_in.is_idle());
        drop(stand_in);
        let end = soon(&ended).await;
        assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
    });
}

/// A backend that lives has a reason to refuse, and where nobody would answer, waiting has no point.
#[test]
fn refusals_reach_sockets_that_nobody_else_can_answer() {
    let mut single = Single::new("orphan-lives");
    single.holds();
    let client = single.dials("127.0.0.1:80");
    single.closes();
    let error = client.recv_timeout(LONG).unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "it lives");

    let mut single = Single::new("orphan-v6");
    single.holds();
    let client = single.dials("[::1]:80");
    single.dies();
    single.closes();
    let error = client.recv_timeout(LONG).unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "IPv6");

    let mut single = Single::new("orphan-unheld");
    let client = single.dials("127.0.0.1:80");
    single.dies();
    single.closes();
    let error = client.recv_timeout(LONG).unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "no holding");
}

/// What a killed controller leaves ends with the next one.
#[test]
fn addresses_of_a_controller_that_was_killed_are_given_back() {
    let mut single = Single::new("orphan-left");
    let world = &mut single.world;
    let pin_dir = world.pin_dir.clone();
    let routes = |world: &World| {
        let mut command = world.host.command("ip");
        let output = command
            .args(["route", "show", "table", "local", "proto", "111"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for address in ["172.30.0.9:8080", "[fd30::9]:8080"] {
        in_host(world, async || {
            let porch = porch();
            let backend = address.parse().unwrap();
            let stand_in = StandIn::open(&pin_dir, backend, &porch, || {}).unwrap();
            std::mem::forget(stand_in);
        });
    }
    assert!(routes(world).contains("172.30.0.9"), "{}", routes(world));
    // Another controller's stay.
    world.host.ip(&[
        "route",
        "add",
        "local",
        "172.30.0.8/32",
        "dev",
        "lo",
        "proto",
        "111",
    ]);
    world.reopen();
    let left = routes(world);
    assert!(
        !left.contains("172.30.0.9") && left.contains("172.30.0.8"),
        "{left}"
    );
    let taken = world
        .host
        .within(|| TcpListener::bind(("172.30.0.9", PORT)).unwrap_err());
    assert_eq!(taken.kind(), io::ErrorKind::AddrNotAvailable);
}
