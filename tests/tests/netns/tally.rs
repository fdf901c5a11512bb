//! Requests in flight and failures, with real TCP, from outside and on the host.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use orch::dataplane::SlotReading;
use orch_common::counter::Failure;
use orch_tests::wait::until;

use super::{VIP, World, connect};

const REQUEST: &[u8] = b"GET /api/x HTTP/1.1\r\n\r\n";
const LOCAL: &str = "127.0.0.1:80";
/// The slot under test: nobody is behind it but who listens at its port.
const SLOT: usize = 3;

impl World {
    /// A world in which all connections go to a slot without a server.
    fn bare(name: &str) -> Self {
        let mut world = Self::new(name);
        world.slot_of(0, 8000, SLOT as u16);
        world.plane().set_ring(0, &[SLOT as u16]).unwrap();
        world
    }

    fn listens(&self) -> TcpListener {
        let bind = || TcpListener::bind("[::]:8003").unwrap();
        self.host.within(bind)
    }

    /// A client outside and one on the host.
    fn both(&self) -> [TcpStream; 2] {
        [
            self.outside.within(|| connect(VIP)),
            self.host.within(|| connect(LOCAL)),
        ]
    }

    fn slot(&mut self) -> SlotReading {
        self.read().slots[SLOT]
    }

    /// Waits until so many have failed in this way, and nobody waits any more.
    #[track_caller]
    fn failed(&mut self, kind: Failure, count: u64) {
        until(kind.name(), || {
            let slot = self.slot();
            let failures = slot.counters.failures[kind as usize];
            (failures == count && slot.in_flight == 0).then_some(())
        });
    }
}

fn ask(streams: &mut [TcpStream]) {
    for stream in streams {
        stream.write_all(REQUEST).unwrap();
    }
}

fn take(listener: &TcpListener) -> TcpStream {
    let mut stream = listener.accept().unwrap().0;
    let mut request = [0; REQUEST.len()];
    stream.read_exact(&mut request).unwrap();
    stream
}

#[test]
fn clients_that_give_up_are_in_flight_no_longer() {
    let mut world = World::bare("aborted");
    let listener = world.listens();
    for abrupt in [true, false] {
        let mut streams = world.both();
        ask(&mut streams);
        let taken = [take(&listener), take(&listener)];
        assert_eq!(world.slot().in_flight, 2);
        if abrupt {
            for stream in &streams {
                let socket = socket2::SockRef::from(stream);
                socket.set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(streams);
            world.failed(Failure::Aborted, 2);
        } else {
            // A client that closes may still be answered, for all that anybody outside can see; one on
            // the host has no socket any more.
            drop(streams);
            drop(taken);
            world.drained();
            let failures = world.slot().counters.failures;
            assert_eq!(failures[Failure::Aborted as usize], 3);
            assert_eq!(failures[Failure::Closed as usize], 1);
            assert_eq!(world.slot().in_flight, 0);
        }
    }
}

/// One on the host has no socket any more for the answer that comes too late; one outside may have closed
/// no more than its own half.
#[test]
fn a_request_ends_in_one_way() {
    let mut world = World::bare("late");
    let listener = world.listens();
    let mut streams = world.both();
    ask(&mut streams);
    let taken = [take(&listener), take(&listener)];
    drop(streams);
    until("the one on the host has gone", || {
        (world.slot().in_flight == 1).then_some(())
    });
    for mut stream in taken {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
    }
    world.drained();
    let counters = world.slot().counters;
    assert_eq!(counters.requests, 2);
    assert_eq!(counters.responses, [0, 0, 1, 0, 0, 0]);
    assert_eq!(counters.failures[Failure::Aborted as usize], 1);
    assert_eq!(counters.failures.iter().sum::<u64>(), 1);
}

#[test]
fn backends_that_do_not_answer_are_counted_by_how() {
    let mut world = World::bare("unanswered");
    let listener = world.listens();
    let mut streams = world.both();
    ask(&mut streams);
    drop([take(&listener), take(&listener)]);
    world.failed(Failure::Closed, 2);
    drop(streams);
    world.drained();

    let mut streams = world.both();
    ask(&mut streams);
    until("both requests have been seen", || {
        (world.slot().in_flight == 2).then_some(())
    });
    // What is closed with something unread is reset.
    for _ in 0..2 {
        let stream = listener.accept().unwrap().0;
        stream.peek(&mut [0]).unwrap();
    }
    world.failed(Failure::Reset, 2);
    drop(streams);
    world.drained();
    let failures = world.slot().counters.failures;
    assert_eq!(failures.iter().sum::<u64>(), 4, "{failures:?}");
}

#[test]
fn refusals_and_silence_are_counted_for_every_client() {
    let mut world = World::bare("refusals");
    let address: SocketAddr = VIP.parse().unwrap();
    let tries = |world: &World| {
        thread::scope(|scope| {
            let limit = Duration::from_millis(1800);
            for netns in [&world.outside, &world.host] {
                scope.spawn(move || {
                    netns.within(|| TcpStream::connect_timeout(&address, limit).unwrap_err())
                });
            }
        });
    };
    tries(&world);
    world.failed(Failure::Refused, 2);
    drop(world);

    let mut world = World::bare("swallowed");
    world.host.nft(
        "table inet swallow { chain in { type filter hook input priority 0; tcp dport 8003 drop; }; }",
    );
    tries(&world);
    let failures = world.slot().counters.failures;
    assert!(failures[Failure::Timeout as usize] >= 2, "{failures:?}");
    assert_eq!(
        failures.iter().sum::<u64>(),
        failures[Failure::Timeout as usize]
    );
}
