//! Where connections of the host and its containers wait.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use orch::{
    config::Listen,
    dataplane::HoldTerms,
    hold::porch::{Porch, Rules},
};
use orch_tests::{netns::Entry, server::ask};
use socket2::{Domain, Socket, Type};

use super::containers::World;

/// Longer than a socket takes for its first repetitions (RFC 6298, 2): one after a second, one after
/// two more.
pub(super) const LONG: Duration = Duration::from_secs(8);

/// What waits at a porch of the service; others of its copies are there.
pub(super) fn porch() -> Porch {
    let rules = Rules {
        listen: Listen {
            address: None,
            port: 80,
        },
        hold: LONG,
        limit: 10,
    };
    let porch = Porch::open(rules, || {}).unwrap();
    porch.ready();
    porch
}

/// Runs in the host's namespace, with the runtime that the controller has.
pub(super) fn in_host<T: Send>(world: &World, body: impl AsyncFnOnce() -> T + Send) -> T {
    world.host.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(body())
    })
}

pub(super) async fn soon<T>(receiver: &Receiver<T>) -> T {
    for _ in 0..1000 {
        if let Ok(value) = receiver.try_recv() {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no answer")
}

/// Connects from there, and asks.
fn asks(from: Entry, address: String) -> Receiver<io::Result<String>> {
    let (sender, answer) = mpsc::channel();
    thread::spawn(move || {
        from.enter();
        let asked = TcpStream::connect(address).and_then(|mut stream| {
            stream.set_read_timeout(Some(LONG))?;
            ask(&mut stream, "/api/x").map(|answer| answer.1)
        });
        let _ = sender.send(asked);
    });
    answer
}

#[test]
fn containers_wait_at_their_bridge_and_nobody_else_does() {
    let world = World::new("porch-bridge");
    let plane = world.dataplane.as_ref().unwrap();
    let bridges = plane.bridges().to_vec();
    let names: Vec<_> = bridges.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["br0"], "the uplink is none");
    in_host(&world, async || {
        let mut porch = porch();
        porch.not_ready();
        assert_eq!(porch.bridge_port(), None);
        porch.follow(&bridges, || {});
        let port = porch.bridge_port().unwrap();
        porch.follow(&bridges, || {});
        assert_eq!(porch.bridge_port(), Some(port), "nothing new");
        // By each of the host's addresses.
        let addresses = ["172.30.0.1", "10.9.0.1", "[fd30::1]", "[fd09::1]"];
        let container = &world.containers[0].netns;
        let answers = addresses.map(|ip| asks(container.entry(), format!("{ip}:{port}")));
        for _ in 0..1000 {
            if porch.waiting() == addresses.len() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(porch.waiting(), addresses.len());
        for stranger in [&world.outside, &world.host] {
            let refused = soon(&asks(stranger.entry(), format!("10.9.0.1:{port}"))).await;
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
        assert!(answers.iter().all(|answer| answer.try_recv().is_err()));
        porch.ready();
        for answer in answers {
            soon(&answer).await.unwrap();
        }
        porch.follow(&[], || {});
        assert_eq!(porch.bridge_port(), None);
        let late = soon(&asks(container.entry(), format!("172.30.0.1:{port}"))).await;
        assert!(late.is_err(), "nobody listens there any more");
    });
    assert_eq!(world.requests().iter().sum::<u64>(), 4);
    world.drained();
}

/// A socket that is bound to the loopback cannot reach a container's address, and what listens on this
/// host's ports it can.
#[test]
fn one_that_is_bound_to_the_loopback_is_served_by_way_of_the_controller() {
    let mut world = World::new("porch-bound");
    let mut plane = world.dataplane.take().unwrap();
    in_host(&world, async || {
        let porch = porch();
        let terms = HoldTerms {
            limit: 10,
            listener: Some(porch.port),
            bridge_listener: None,
        };
        plane.set_holding(0, Some(terms)).unwrap();
        for (from, to) in [
            ("127.0.0.1:0", "127.0.0.1:80"),
            ("127.0.0.2:0", "10.9.0.1:80"),
            ("[::1]:0", "[::1]:80"),
        ] {
            let host = world.host.entry();
            let (sender, answer) = mpsc::channel();
            thread::spawn(move || {
                host.enter();
                let _ = sender.send(asks_from(from, to));
            });
            soon(&answer)
                .await
                .unwrap_or_else(|error| panic!("{from}: {error}"));
        }
        assert_eq!(porch.waiting(), 0);
    });
    world.dataplane = Some(plane);
    assert_eq!(world.requests().iter().sum::<u64>(), 3);
    world.drained();
}

fn asks_from(from: &str, to: &str) -> io::Result<String> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let socket = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
    socket.bind(&from.into())?;
    socket.connect(&to.into())?;
    let mut stream = TcpStream::from(socket);
    assert_eq!(stream.peer_addr()?, to, "as it has asked");
    stream.set_read_timeout(Some(LONG))?;
    ask(&mut stream, "/api/x").map(|answer| answer.1)
}
