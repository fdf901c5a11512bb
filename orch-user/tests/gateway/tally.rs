//! What is counted of connections to copies: bytes, and how they failed.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread::{self, JoinHandle},
    time::Duration,
};

use orch_common::counter::Failure;
use socket2::SockRef;

use crate::bench::{Copy, Gate, until};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
/// It is not sent twice: nobody knows how much of it a copy has done.
const POST: &str = "POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc";

/// A copy that takes one connection and one request on it, and gives how many bytes that had.
fn once(gate: &mut Gate, act: impl FnOnce(TcpStream) + Send + 'static) -> JoinHandle<u64> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let slot = &mut gate.service().slots[0];
    slot.address = listener.local_addr().unwrap();
    slot.generation += 1;
    gate.only(&[0]);
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"abc") {
            let mut piece = [0; 1024];
            let read = stream.read(&mut piece).unwrap();
            assert!(read > 0, "{request:?}");
            request.extend_from_slice(&piece[..read]);
        }
        act(stream);
        request.len() as u64
    })
}

fn reset(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

fn failures(gate: &Gate, kind: Failure) -> u64 {
    let report = gate.client.read().unwrap();
    report.services[0].slots[0].counts.failures[kind as usize]
}

#[test]
fn bytes_to_and_from_copies_are_counted_with_their_heads() {
    let copy = Copy::start("A");
    let mut gate = Gate::open("", &[&copy]);
    let (mut received, mut sent) = (0, 0);
    for _ in 0..3 {
        let copy = once(&mut gate, |mut stream| {
            stream.write_all(ANSWER.as_bytes()).unwrap();
        });
        let mut talk = gate.connect();
        talk.say(POST);
        assert_eq!(talk.answer("POST").text(), "hello");
        received += copy.join().unwrap();
        sent += ANSWER.len() as u64;
        let report = gate.client.read().unwrap();
        let counts = &report.services[0].slots[0].counts;
        assert_eq!((counts.received, counts.sent), (received, sent));
        assert_eq!(counts.failures, [0; Failure::COUNT]);
    }
    // Those of another protocol, too.
    let gate = Gate::open("", &[&copy]);
    let mut talk = gate.connect();
    talk.say("GET /api/chat HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n");
    assert_eq!(talk.answer("GET").status, 101);
    assert_eq!(talk.take(6), b"hello\n");
    let count = || {
        gate.client.read().unwrap().services[0].slots[0]
            .counts
            .clone()
    };
    let before = count();
    talk.say("some twenty-one bytes");
    assert_eq!(talk.take(21), b"some twenty-one bytes");
    let after = count();
    assert_eq!(after.received - before.received, 21);
    assert_eq!(after.sent - before.sent, 21);
}

type Act = fn(TcpStream);

#[test]
fn failed_connections_are_counted_by_kind() {
    let mut refusing = Copy::start("A");
    let mut gate = Gate::open("wait = \"0s\"\nanswer_timeout = \"100ms\"", &[&refusing]);
    refusing.crash();
    assert_eq!(gate.get("/api/who").status, 502);
    assert!(failures(&gate, Failure::Refused) >= 1);
    let acts: [(Failure, u16, Act); 3] = [
        (Failure::Closed, 502, drop),
        (Failure::Reset, 502, |stream| reset(&stream)),
        // The gateway gives up after `answer_timeout`.
        (Failure::Aborted, 504, |mut stream| {
            while stream.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
        }),
    ];
    for (kind, status, act) in acts {
        let copy = once(&mut gate, act);
        let mut talk = gate.connect();
        talk.say(POST);
        assert_eq!(talk.answer("POST").status, status, "{kind:?}");
        copy.join().unwrap();
        assert_eq!(failures(&gate, kind), 1, "{kind:?}");
    }
}

#[test]
fn a_client_that_leaves_is_not_the_copy_s_fault() {
    let copy = Copy::start("A");
    let gate = Gate::open("", &[&copy]);
    let mut talk = gate.connect();
    talk.say("GET /api/slow/60000 HTTP/1.1\r\nHost: t\r\n\r\n");
    until("it is in flight", || (gate.live() == 1).then_some(()));
    reset(&talk.stream);
    drop(talk);
    until("it is told", || {
        (failures(&gate, Failure::Aborted) == 1).then_some(())
    });
    let report = gate.client.read().unwrap();
    let counts = &report.services[0].slots[0].counts;
    assert_eq!(counts.failures.iter().sum::<u64>(), 1);
}
