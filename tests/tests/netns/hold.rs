//! SYNs held and let in again, with real TCP: the sums that a veth leaves to nobody, and answers.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use orch::{
    dataplane::{HoldTerms, Injected},
    hold::frame,
};
use orch_common::{
    counter::Reason,
    hold::{HeldSyn, Release},
};
use orch_tests::{server::ask, wait::until};

use super::{VIP, VIP6, World};

/// A client's first repetition comes after a second.
const REPETITION: Duration = Duration::from_millis(900);

impl World {
    /// Connections wait from now on.
    fn hold(&mut self) {
        self.plane().set_ring(0, &[]).unwrap();
        let terms = HoldTerms {
            limit: 4096,
            listener: None,
            bridge_listener: None,
        };
        self.plane().set_holding(0, Some(terms)).unwrap();
    }

    /// Connects from outside; the answer comes once there is one.
    fn dial(&self, address: &str) -> mpsc::Receiver<io::Result<TcpStream>> {
        let (sender, receiver) = mpsc::channel();
        let inside = self.outside.entry();
        let address: SocketAddr = address.parse().unwrap();
        thread::spawn(move || {
            inside.enter();
            let limit = Duration::from_secs(10);
            let _ = sender.send(TcpStream::connect_timeout(&address, limit));
        });
        receiver
    }

    fn send_on(&mut self, held: &[HeldSyn], release: Release) {
        let Self {
            host, dataplane, ..
        } = self;
        let plane = dataplane.as_mut().unwrap();
        host.within(|| {
            for syn in held {
                let frame = frame::of(syn).expect("not damaged");
                let done = plane.inject(syn.ifindex, &frame, release).unwrap();
                assert_eq!(done, Injected::Arrived);
            }
        });
    }

    fn wait_held(&mut self, count: usize) -> Vec<HeldSyn> {
        let mut held = Vec::new();
        until("SYNs are held", || {
            held.extend(self.plane().held());
            (held.len() >= count).then_some(())
        });
        held
    }
}

#[test]
fn a_held_syn_arrives_as_if_it_had_just_come() {
    let mut world = World::new("held");
    for (address, slot) in [(VIP, 1), (VIP6, 2)] {
        world.hold();
        let answer = world.dial(address);
        let held = world.wait_held(1);
        assert!(answer.try_recv().is_err(), "it waits");
        world.plane().set_ring(0, &[slot]).unwrap();
        let released = Instant::now();
        world.send_on(&held, Release::Arrive);
        let mut stream = answer.recv().unwrap().unwrap();
        let took = released.elapsed();
        assert!(took < REPETITION, "{address}: {took:?}");
        println!("{address}: connected {took:?} after its SYN was sent on");
        let (status, body) = ask(&mut stream, "/api/x").unwrap();
        assert_eq!((status, body), (200, format!("{}", 8000 + slot)));
    }
    assert_eq!(world.reason(Reason::Resumed), 2);
    world.drained();
}

#[test]
fn a_syn_that_is_let_go_is_refused_at_once() {
    let mut world = World::new("let-go");
    for address in [VIP, VIP6] {
        world.hold();
        let answer = world.dial(address);
        let held = world.wait_held(1);
        let released = Instant::now();
        world.send_on(&held, Release::LetGo);
        let error = answer.recv().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
        assert!(released.elapsed() < REPETITION, "{address}");
    }
}

#[test]
fn many_wait_and_all_get_in() {
    const CLIENTS: usize = 100;
    let mut world = World::new("many");
    world.hold();
    let answers: Vec<_> = (0..CLIENTS).map(|_| world.dial(VIP)).collect();
    let held = world.wait_held(CLIENTS);
    world.plane().set_ring(0, &[0, 1, 2]).unwrap();
    let released = Instant::now();
    world.send_on(&held, Release::Arrive);
    let streams: Vec<_> = answers
        .iter()
        .map(|answer| answer.recv().unwrap().unwrap())
        .collect();
    println!(
        "{CLIENTS} clients connected {:?} after the release",
        released.elapsed()
    );
    let slots = world.read().slots;
    let mut connections: Vec<_> = slots.iter().map(|slot| slot.connections).collect();
    connections.sort_unstable();
    assert_eq!(connections, [33, 33, 34], "in turns");
    drop(streams);
    world.drained();
}
