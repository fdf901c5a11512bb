//! Clients of this host at backends' own addresses: counted at the backends' interfaces, so that nobody
//! else's sockets pay for it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use orch::dataplane::{Reach, SlotEntry, SlotReading};
use orch_common::{
    counter::{Failure, Reason},
    layout::program,
    slot::{SlotKey, SlotState},
};
use orch_tests::{server::ask, wait::until};

use super::{
    VIP, connect,
    containers::{PORT, World},
};

const REQUEST: &[u8] = b"GET /api/x HTTP/1.1\r\n\r\n";
const LOCAL: &str = "127.0.0.1:80";
const LOCAL6: &str = "[::1]:80";

impl World {
    fn slot(&self) -> SlotReading {
        self.read().slots[0]
    }

    /// Waits until so many have failed in this way, and nobody waits any more.
    #[track_caller]
    fn failed(&self, kind: Failure, count: u64) {
        let right = || {
            let slot = self.slot();
            let failures = slot.counters.failures[kind as usize];
            (failures == count && slot.in_flight == 0).then_some(())
        };
        let before = self.slot();
        until(&format!("{count} {} after {before:?}", kind.name()), right);
    }

    /// Has nobody but who listens there behind port 80.
    fn bare(&mut self) -> TcpListener {
        self.containers[0].stop_listening();
        self.plane().set_ring(0, &[0]).unwrap();
        let bind = || TcpListener::bind(("::", PORT)).unwrap();
        self.containers[0].netns.within(bind)
    }

    fn local(&self) -> TcpStream {
        self.host.within(|| connect(LOCAL))
    }
}

fn take(listener: &TcpListener) -> TcpStream {
    let mut stream = listener.accept().unwrap().0;
    stream.read_exact(&mut [0; REQUEST.len()]).unwrap();
    stream
}

#[test]
fn sockets_are_looked_at_only_where_slots_are_reached_by_ports() {
    let mut world = World::new("inside-hooks");
    assert!(world.has(program::DIAL) && !world.has(program::SENT) && !world.has(program::RECEIVED));
    let direct = world.containers[1].entry(1, 1);
    let port = SlotEntry {
        address: SocketAddr::from(([127, 0, 0, 1], 8001)),
        reach: Reach::Port,
        generation: 2,
        ..direct.clone()
    };
    world.set_slot(1, &port);
    assert!(world.has(program::DIAL) && world.has(program::SENT) && world.has(program::RECEIVED));
    let direct = SlotEntry {
        generation: 3,
        ..direct
    };
    world.set_slot(1, &direct);
    assert!(world.has(program::DIAL) && !world.has(program::SENT) && !world.has(program::RECEIVED));
}

/// A socket may have been given the only copy just before that ended, and send its SYN just after. So
/// the loss of a copy changes nothing in how sockets are looked at.
#[test]
fn sockets_are_looked_at_as_before_while_a_slot_has_no_backend() {
    let mut world = World::new("inside-lost");
    world.plane().set_ring(0, &[]).unwrap();
    for slot in 1..=2 {
        let key = SlotKey { service: 0, slot };
        world.plane().remove_slot(key).unwrap();
    }
    let direct = world.containers[0].entry(0, 1);
    let by_port = |state| SlotEntry {
        address: SocketAddr::from(([127, 0, 0, 1], 8000)),
        reach: Reach::Port,
        state,
        ..direct.clone()
    };
    for state in SlotState::ALL
        .iter()
        .filter(|state| **state != SlotState::Ready)
    {
        world.set_slot(0, &by_port(*state));
        assert!(
            world.has(program::DIAL) && !world.has(program::SENT),
            "{state:?}"
        );
    }
    world.set_slot(0, &by_port(SlotState::Ready));
    assert!(!world.has(program::DIAL) && world.has(program::SENT));
    world.set_slot(0, &by_port(SlotState::Failed));
    assert!(!world.has(program::DIAL) && world.has(program::SENT));
}

#[test]
fn a_connection_is_counted_from_its_first_request_to_its_last() {
    let mut world = World::new("inside-kept");
    for (round, address) in [LOCAL, LOCAL6, VIP].into_iter().enumerate() {
        let mut stream = world.host.within(|| connect(address));
        let slot = &mut world.containers[round].server;
        for count in 1..=5 {
            assert_eq!(ask(&mut stream, "/api/x").unwrap().0, 200);
            assert_eq!(slot.requests(), count);
        }
        let slot = world.read().slots[round];
        assert_eq!((slot.live, slot.in_flight), (1, 0));
        assert_eq!(slot.counters.requests, 5);
        assert_eq!(slot.counters.responses, [0, 0, 5, 0, 0, 0]);
        assert!(slot.bytes.received > 5 * 16 && slot.bytes.sent > 5 * 16);
    }
    // Straight to a backend is none of a service's business.
    let backend = world.containers[0].entry(0, 1).address.to_string();
    let mut stream = world.host.within(|| connect(&backend));
    assert_eq!(ask(&mut stream, "/api/x").unwrap().0, 200);
    drop(stream);
    world.drained();
    assert_eq!(world.slot().counters.requests, 5);
    assert_eq!(world.slot().connections, 1);
    world.plane().sweep().unwrap();
}

#[test]
fn what_fails_is_counted_by_how() {
    let mut world = World::new("inside-failures");
    let listener = world.bare();

    let mut stream = world.local();
    stream.write_all(REQUEST).unwrap();
    let taken = take(&listener);
    assert_eq!(world.slot().in_flight, 1);
    drop(taken);
    world.failed(Failure::Closed, 1);
    drop(stream);

    let mut stream = world.local();
    stream.write_all(REQUEST).unwrap();
    let _taken = take(&listener);
    let socket = socket2::SockRef::from(&stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    world.failed(Failure::Aborted, 1);

    let mut stream = world.local();
    stream.write_all(REQUEST).unwrap();
    until("the request has been seen", || {
        (world.slot().in_flight == 1).then_some(())
    });
    let taken = listener.accept().unwrap().0;
    taken.peek(&mut [0]).unwrap();
    drop(taken);
    world.failed(Failure::Reset, 1);
    drop(stream);
    world.drained();

    drop(listener);
    world.host.within(|| TcpStream::connect(LOCAL).unwrap_err());
    world.failed(Failure::Refused, 1);
    let slot = world.slot();
    assert_eq!(slot.counters.failures.iter().sum::<u64>(), 4);
    assert!(slot.passed_by.is_some(), "its backend is to be probed");
    world.drained();
}

#[test]
fn an_answer_that_comes_after_its_client_has_gone_counts_no_more() {
    let mut world = World::new("inside-late");
    let listener = world.bare();
    let mut stream = world.local();
    stream.write_all(REQUEST).unwrap();
    let mut taken = take(&listener);
    drop(stream);
    world.failed(Failure::Aborted, 1);
    taken
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    until("the reset of the one that has gone", || {
        taken.write_all(b" ").err().map(|_| ())
    });
    assert_eq!(world.slot().counters.responses, [0; 6]);
    world.drained();
}

#[test]
fn a_silent_backend_is_a_timeout() {
    let mut world = World::new("inside-silent");
    let _listener = world.bare();
    let swallow = format!(
        "table inet swallow {{ chain in {{ type filter hook input priority 0; tcp dport {PORT} drop; }}; }}"
    );
    world.containers[0].netns.nft(&swallow);
    let address: SocketAddr = VIP.parse().unwrap();
    let limit = Duration::from_millis(1800);
    let tries = || TcpStream::connect_timeout(&address, limit).unwrap_err();
    world.host.within(tries);
    world.failed(Failure::Timeout, 1);
    world.drained();
    assert_eq!(world.reason(Reason::LocalConnect), 1);
}
