//! What is counted beside requests and responses: bytes, requests in flight, connections that failed.

use std::net::SocketAddr;

use orch::dataplane::SlotReading;
use orch_common::{
    counter::{Failure, Reason},
    flow::FlowState,
    layout::program::{EGRESS, INGRESS, VETH},
    slot::SlotState,
};
use orch_tests::frame::{
    Tcp,
    flag::{ACK, FIN, RST, SYN},
};

use super::world::{PASS, Talk, V4, V6, World, at, client, slot};

const REQUEST: &[u8] = b"GET /api/x HTTP/1.1\r\n\r\n";
const EXCLUDED: &[u8] = b"GET /api/_health HTTP/1.1\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

impl World {
    fn counts(&mut self) -> SlotReading {
        self.plane().read().unwrap().slots[0]
    }

    fn in_flight(&mut self) -> u64 {
        self.counts().in_flight
    }

    /// Bytes in and out.
    fn bytes(&mut self) -> (u64, u64) {
        let bytes = self.counts().bytes;
        (bytes.received, bytes.sent)
    }

    fn failures(&mut self) -> [u64; Failure::COUNT] {
        self.counts().counters.failures
    }

    /// A connection to slot 0, with a request in flight.
    fn asking(&mut self, port: u16) -> Talk {
        let talk = Talk::new(V4, port);
        self.opens(&talk, 1000, 0);
        let before = self.in_flight();
        self.goes("request", &talk, &sent(&talk, 1001, REQUEST), 0);
        assert_eq!(self.in_flight(), before + 1);
        talk
    }
}

/// One slot, reached directly.
fn one_slot() -> World {
    let mut world = World::direct();
    world.plane().set_ring(0, &[0]).unwrap();
    world
}

fn sent(talk: &Talk, seq: u32, payload: &[u8]) -> Tcp {
    talk.says(ACK, seq, 501).payload(payload)
}

fn answer(talk: &Talk, seq: u32, payload: &[u8]) -> Tcp {
    talk.answers(0, ACK, seq, 1001).payload(payload)
}

#[test]
fn bytes_count_once_and_requests_are_in_flight_until_they_are_answered() {
    for family in [V4, V6] {
        let mut world = one_slot();
        let talk = Talk::new(family, 40_000);
        world.opens(&talk, 1000, 0);
        assert_eq!((world.in_flight(), world.bytes()), (0, (0, 0)));
        for _ in 0..2 {
            world.goes("request", &talk, &sent(&talk, 1001, REQUEST), 0);
            assert_eq!((world.in_flight(), world.bytes()), (1, (23, 0)));
        }
        for _ in 0..2 {
            world.comes("response", &talk, &answer(&talk, 501, RESPONSE));
            assert_eq!((world.in_flight(), world.bytes()), (0, (23, 19)));
        }
        // What came by with the handshake comes again.
        world.comes("SYN-ACK", &talk, &talk.answers(0, SYN | ACK, 500, 1001));
        // Of these, nine have been there, and eleven have not.
        world.comes("more", &talk, &answer(&talk, 511, &[7; 20]));
        assert_eq!(world.bytes(), (23, 30));
        world.goes("excluded", &talk, &sent(&talk, 1024, EXCLUDED), 0);
        assert_eq!(world.in_flight(), 1, "it is asked, if not counted");
        world.comes("response", &talk, &answer(&talk, 531, RESPONSE));
        world.resets(&talk, 1053, 0);
        assert_eq!(world.in_flight(), 0);
        assert_eq!(world.failures(), [0; Failure::COUNT]);
        assert_eq!(world.bytes(), (23 + 29, 30 + 19));
    }
}

#[test]
fn a_tunnel_goes_on_counting_bytes() {
    let mut world = one_slot();
    let talk = world.asking(40_000);
    let switch = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
    world.comes("switch", &talk, &answer(&talk, 501, switch));
    assert_eq!(world.in_flight(), 0);
    world.goes("frame", &talk, &sent(&talk, 1024, &[1; 100]), 0);
    world.comes("frame", &talk, &answer(&talk, 537, &[2; 1000]));
    assert_eq!(world.bytes(), (123, 1036));
}

/// A head of so many bytes, and another response behind it in the same segment.
fn interim_and_final(head: usize) -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 103 Early Hints\r\nLink: ".to_vec();
    bytes.resize(head - 4, b'x');
    bytes.extend(b"\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n");
    bytes
}

#[test]
fn a_final_response_is_seen_behind_an_interim_one_in_the_same_segment() {
    let mut world = one_slot();
    let mut port = 40_000;
    let twice = [
        b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(),
        interim_and_final(60),
    ]
    .concat();
    for response in [
        interim_and_final(38),
        interim_and_final(64),
        interim_and_final(500),
        twice,
    ] {
        port += 1;
        let talk = world.asking(port);
        let before = world.counts().counters.responses[4];
        world.comes("both", &talk, &answer(&talk, 501, &response));
        assert_eq!(world.in_flight(), 0, "{}", response.len());
        assert_eq!(world.counts().counters.responses[4], before + 1);
        world.resets(&talk, 1024, 0);
    }
    // Alone, it leaves the request waiting.
    let talk = world.asking(port + 1);
    let hints = interim_and_final(64);
    world.comes("hints", &talk, &answer(&talk, 501, &hints[..64]));
    assert_eq!(world.in_flight(), 1);
    world.comes("final", &talk, &answer(&talk, 565, &hints[64..]));
    assert_eq!(world.in_flight(), 0);
}

#[test]
fn a_request_counts_though_its_first_segment_comes_last() {
    let mut world = one_slot();
    let talk = Talk::new(V4, 40_000);
    world.opens(&talk, 1000, 0);
    let rest = 1001 + REQUEST.len() as u32;
    world.goes("rest", &talk, &sent(&talk, rest, b"GET is in its body"), 0);
    assert_eq!(
        (world.in_flight(), world.counts().counters.requests),
        (0, 0)
    );
    for _ in 0..2 {
        world.goes("first", &talk, &sent(&talk, 1001, REQUEST), 0);
        assert_eq!(
            (world.in_flight(), world.counts().counters.requests),
            (1, 1)
        );
    }
    let acked = talk.answers(0, ACK, 501, rest + 18);
    world.comes("response", &talk, &acked.payload(RESPONSE));
    assert_eq!(world.in_flight(), 0);
    world.goes("next", &talk, &sent(&talk, rest + 18, REQUEST), 0);
    assert_eq!(world.counts().counters.requests, 2);
}

/// What it is, who sends what, and which failure that is.
type Ending = (
    &'static str,
    &'static [(bool, u8, u32, &'static [u8])],
    Option<Failure>,
);

#[test]
fn whatever_ends_a_connection_ends_its_request_and_is_counted_by_kind() {
    const C: bool = true;
    const S: bool = false;
    let ends: [Ending; 8] = [
        (
            "the client resets",
            &[(C, RST, 1024, b"")],
            Some(Failure::Aborted),
        ),
        (
            "the backend resets",
            &[(S, RST, 501, b"")],
            Some(Failure::Reset),
        ),
        (
            "the backend closes",
            &[(S, FIN | ACK, 501, b"")],
            Some(Failure::Closed),
        ),
        (
            "half a status, then the end",
            &[(S, ACK, 501, b"HTTP/1.1"), (S, FIN | ACK, 509, b"")],
            Some(Failure::Closed),
        ),
        (
            "it answers and closes at once",
            &[(S, FIN | ACK, 501, RESPONSE)],
            None,
        ),
        (
            "the client has no more to say, and is answered",
            &[(C, FIN | ACK, 1024, b""), (S, FIN | ACK, 501, RESPONSE)],
            None,
        ),
        (
            "the end overtakes the answer",
            &[(S, FIN | ACK, 520, b""), (S, ACK, 501, RESPONSE)],
            None,
        ),
        (
            "answered, then reset",
            &[(S, ACK, 501, RESPONSE), (S, RST, 520, b"")],
            None,
        ),
    ];
    let mut world = one_slot();
    let (mut expected, mut answers) = ([0; Failure::COUNT], 0);
    for (number, (what, segments, failure)) in (0..).zip(ends) {
        let talk = world.asking(50_000 + number);
        for &(client, flags, seq, payload) in segments {
            let tcp = if client {
                talk.says(flags, seq, 501).payload(payload)
            } else {
                talk.answers(0, flags, seq, 1024).payload(payload)
            };
            let program = if client { INGRESS } else { VETH };
            world.trial(program, &tcp);
        }
        if let Some(failure) = failure {
            expected[failure as usize] += 1;
        }
        assert_eq!(world.failures(), expected, "{what}");
        assert_eq!(world.in_flight(), 0, "{what}");
        answers += u64::from(failure.is_none());
        let responses = world.counts().counters.responses;
        assert_eq!(responses.iter().sum::<u64>(), answers, "{what}");
        world.resets(&talk, 1024, 0);
    }
}

#[test]
fn requests_of_a_backend_that_is_gone_are_in_flight_no_longer() {
    let mut world = one_slot();
    let talks: Vec<Talk> = (0..3).map(|port| world.asking(50_000 + port)).collect();
    assert_eq!(world.in_flight(), 3);
    world.direct_slot(0, 2);
    assert_eq!((world.in_flight(), world.counts().live), (0, 0));
    let fresh = world.asking(60_000);
    // What comes late from the one before changes no count of the one that is there.
    world.comes("late", &talks[0], &answer(&talks[0], 501, RESPONSE));
    let more = sent(&talks[1], 1024, b"x");
    for what in ["dead", "and again"] {
        world.expect(what, INGRESS, &more, PASS, &more);
    }
    assert_eq!((world.in_flight(), world.counts().live), (1, 1));
    let mut expected = [0; Failure::COUNT];
    expected[Failure::Gone as usize] = 1;
    assert_eq!(world.failures(), expected);
    world.resets(&fresh, 1024, 0);
    assert_eq!(world.in_flight(), 0);
}

#[test]
fn a_slot_that_is_made_again_begins_at_0() {
    let mut world = World::new();
    world.plane().set_ring(0, &[0]).unwrap();
    world.connect(5000, 1000);
    let request = Tcp::new(client(5000), at(80), ACK).numbers(1001, 501);
    world.arrive(&request.payload(REQUEST));
    assert_eq!((world.in_flight(), world.bytes()), (1, (23, 0)));
    world.plane().remove_slot(slot(0)).unwrap();
    world.slot(0, SlotState::Ready, 2);
    assert_eq!((world.in_flight(), world.bytes()), (0, (0, 0)));
}

#[test]
fn a_refusal_counts_at_the_slot_that_refuses() {
    let mut world = World::new();
    world.plane().set_ring(0, &[0]).unwrap();
    world.arrive(&Tcp::new(client(5000), at(80), SYN));
    let refusal = Tcp::new(at(8000), client(5000), RST | ACK).numbers(0, 1001);
    world.trial(EGRESS, &refusal);
    let mut expected = [0; Failure::COUNT];
    expected[Failure::Refused as usize] = 1;
    assert_eq!(world.failures(), expected);
}

/// A client of its own address and port for each number.
fn many(number: u32) -> SocketAddr {
    let [_, a, b, c] = (number / 50_000).to_be_bytes();
    SocketAddr::from(([12, a, b, c], 10_000 + (number % 50_000) as u16))
}

/// A table that is full of established connections forgets some of them. What is counted as open is
/// what is there, as soon as it has been counted anew.
#[test]
fn a_full_table_does_not_spoil_the_counts() {
    const FLOWS: u32 = 80_000;
    let mut world = World::sized(65_536);
    for number in 0..FLOWS {
        let client = many(number);
        world.arrive(&Tcp::new(client, at(80), SYN));
        world.leave(&Tcp::new(at(8000), client, SYN | ACK).numbers(500, 1001));
        world.arrive(
            &Tcp::new(client, at(80), ACK)
                .numbers(1001, 501)
                .payload(REQUEST),
        );
    }
    let counts = world.counts();
    assert_eq!(counts.live, u64::from(FLOWS));
    let mut there = 0;
    for _ in 0..3 {
        there = world.plane().sweep().unwrap();
    }
    assert!(
        there <= 65_536 && counts.in_flight > there,
        "{there} {counts:?}"
    );
    let counts = world.counts();
    assert_eq!((counts.live, counts.in_flight), (there, there));
    assert_eq!(world.reason(Reason::Lost), u64::from(FLOWS) - there);
    for number in 0..FLOWS {
        world.arrive(&Tcp::new(many(number), at(80), RST).numbers(1024, 0));
    }
    let counts = world.counts();
    assert_eq!((counts.live, counts.in_flight), (0, 0));
    assert_eq!(counts.counters.failures[Failure::Aborted as usize], there);
    for _ in 0..=FlowState::Closed.patience() {
        world.plane().sweep().unwrap();
    }
    assert_eq!(world.reason(Reason::Lost), u64::from(FLOWS) - there);
    assert_eq!(world.counts().live, 0);
}
