//! What is believed of whom: segments that were forged, lost or came late.

use orch_common::{
    counter::Reason,
    flow::{FlowState, LINGER_SWEEPS},
    layout::program::{EGRESS, INGRESS},
};
use orch_tests::frame::{
    Tcp,
    flag::{ACK, FIN, PSH, RST, SYN},
};

use super::world::{PASS, World, at, client, coming_from, flow_key, towards};

#[test]
fn a_blind_reset_ends_nothing() {
    let mut world = World::new();
    world.connect(5000, 1000);
    let blind = Tcp::new(client(5000), at(80), RST).numbers(0x7000_0000, 0);
    world.expect("blind RST", INGRESS, &blind, PASS, &towards(&blind, 8000));
    assert_eq!(world.live(), [1, 0, 0]);
    // The backend believes none but the exact one, once it has taken what the client has said, too.
    let request = Tcp::new(client(5000), at(80), ACK | PSH)
        .numbers(1001, 501)
        .payload(b"GET /api/x HTTP/1.1\r\n\r\n");
    world.arrive(&request);
    world.leave(&Tcp::new(at(8000), client(5000), ACK).numbers(501, 1024));
    let mut reset = |seq, live: [u64; 3]| {
        let reset = Tcp::new(client(5000), at(80), RST).numbers(seq, 0);
        world.expect("RST", INGRESS, &reset, PASS, &towards(&reset, 8000));
        assert_eq!(world.live(), live, "{seq}");
    };
    for wrong in [1001, 1023, 1025, 1524] {
        reset(wrong, [1, 0, 0]);
    }
    reset(1024, [0, 0, 0]);
}

/// Whatever was lost on the way: the number that the backend has said is the one that it believes.
#[test]
fn a_reset_at_what_was_acknowledged_ends_the_connection() {
    let request = b"POST /api/x HTTP/1.1\r\nContent-Length: 3000\r\n\r\n";
    for (port, segments, acked) in [
        // The second segment and the last are lost.
        (5000, &[(1001, 47), (2048, 1000)][..], 1048),
        // One byte too many for its window.
        (5001, &[(1001, 47), (1048, 1)][..], 1048),
        // A stray one.
        (5002, &[(1001, 47), (1001 + (1 << 24), 10)][..], 1048),
    ] {
        let mut world = World::new();
        world.connect(port, 1000);
        for (seq, len) in segments {
            let mut payload = request.to_vec();
            payload.resize(*len, b'x');
            let data = Tcp::new(client(port), at(80), ACK).numbers(*seq, 501);
            world.arrive(&data.payload(&payload));
        }
        world.leave(&Tcp::new(at(8000), client(port), ACK).numbers(501, acked));
        assert_eq!(world.live(), [1, 0, 0]);
        world.arrive(&Tcp::new(client(port), at(80), RST).numbers(acked, 0));
        assert_eq!(world.live(), [0, 0, 0], "{port}");
        let slot = world.plane().read().unwrap().slots.remove(0);
        assert_eq!(slot.in_flight, 0, "{port}");
    }
    // What came with the SYN is not taken.
    let mut world = World::new();
    let syn = Tcp::new(client(5000), at(80), SYN).numbers(1000, 0);
    world.arrive(&syn.payload(request));
    world.leave(&Tcp::new(at(8000), client(5000), SYN | ACK).numbers(500, 1001));
    world.arrive(&Tcp::new(client(5000), at(80), ACK).numbers(1001, 501));
    assert_eq!(world.live(), [1, 0, 0]);
    world.arrive(&Tcp::new(client(5000), at(80), RST).numbers(1001, 0));
    assert_eq!(world.live(), [0, 0, 0]);
}

/// A backend that tells of gaps takes what lies beyond one, and a RST there.
#[test]
fn a_reset_at_the_end_of_what_came_beyond_a_gap_ends_the_connection() {
    let mut world = World::new();
    let says = |flags, seq| Tcp::new(client(5000), at(80), flags).numbers(seq, 501);
    world.connect(5000, 1000);
    let head = b"POST /api/x HTTP/1.1\r\nContent-Length: 99999\r\n\r\n";
    world.arrive(&says(ACK, 1001).payload(head));
    let next = 1001 + head.len() as u32;
    world.leave(&Tcp::new(at(8000), client(5000), ACK).numbers(501, next));
    // Two gaps; the further end comes first. What is too far away for any window is nothing.
    let far = next + (9 << 20);
    for seq in [next + 4200, next + 1400, far] {
        world.arrive(&says(ACK, seq).payload(&[b'x'; 1400]));
    }
    for wrong in [next + 1, next + 2800, next + 5599, next + 5601, far + 1400] {
        world.arrive(&says(RST, wrong));
        assert_eq!(world.live(), [1, 0, 0], "{wrong}");
    }
    world.arrive(&says(RST | ACK, next + 5600));
    assert_eq!(world.live(), [0, 0, 0]);
    let slot = world.plane().read().unwrap().slots.remove(0);
    assert_eq!((slot.counters.requests, slot.in_flight), (1, 0));
    assert_eq!(slot.bytes.received, head.len() as u64);
}

/// Once the gap is closed, the number that comes next counts again.
#[test]
fn a_gap_that_is_closed_is_forgotten() {
    let mut world = World::new();
    let says = |flags, seq| Tcp::new(client(5000), at(80), flags).numbers(seq, 501);
    world.connect(5000, 1000);
    // What is ahead of a method in pieces leaves those alone.
    world.arrive(&says(ACK, 1001).payload(b"GE"));
    world.arrive(&says(ACK, 1006).payload(b"pi/x HTTP/1.1\r\n\r\n"));
    world.arrive(&says(ACK, 1003).payload(b"T /api/x HTTP/1.1\r\n\r\n"));
    let slot = world.plane().read().unwrap().slots.remove(0);
    assert_eq!(slot.counters.requests, 1);
    world.arrive(&says(ACK, 1124).payload(&[b'x'; 100]));
    world.arrive(&says(ACK, 1024).payload(&[b'x'; 100]));
    world.leave(&Tcp::new(at(8000), client(5000), ACK).numbers(501, 1224));
    world.arrive(&says(ACK, 1224).payload(&[b'x'; 100]));
    world.leave(&Tcp::new(at(8000), client(5000), ACK).numbers(501, 1324));
    world.arrive(&says(RST, 1224));
    assert_eq!(world.live(), [1, 0, 0], "the end of what lay beyond it");
    world.arrive(&says(RST, 1324));
    assert_eq!(world.live(), [0, 0, 0]);
}

#[test]
fn a_stray_segment_ahead_changes_no_count() {
    let mut world = World::new();
    world.connect(5000, 1000);
    let request = b"GET /api/x HTTP/1.1\r\n\r\n";
    let answer = b"HTTP/1.1 204 No\r\n\r\n";
    let (mut seq, mut back) = (1001, 501);
    for round in 1..=3 {
        let says = |seq| Tcp::new(client(5000), at(80), ACK).numbers(seq, back);
        world.arrive(&says(seq + (1 << 24)).payload(b"forged"));
        world.arrive(&Tcp::new(client(5000), at(80), FIN | ACK).numbers(seq + (1 << 30), back));
        world.arrive(&says(seq).payload(request));
        seq += request.len() as u32;
        let reply = Tcp::new(at(8000), client(5000), ACK).numbers(back, seq);
        world.leave(&reply.payload(answer));
        back += answer.len() as u32;
        let slot = world.plane().read().unwrap().slots.remove(0);
        let responses: u64 = slot.counters.responses.iter().sum();
        assert_eq!((slot.counters.requests, responses), (round, round));
        assert_eq!(slot.bytes.received, round * request.len() as u64);
    }
    assert_eq!(world.live(), [1, 0, 0]);
    let syn = Tcp::new(client(5000), at(80), SYN).numbers(77, 0);
    world.expect("still open", INGRESS, &syn, PASS, &towards(&syn, 8000));
}

/// Nobody completes a handshake, or ends it, who does not know what the backend has said.
#[test]
fn a_handshake_is_completed_by_who_has_seen_the_syn_ack() {
    let mut world = World::new();
    let syn = Tcp::new(client(5000), at(80), SYN).numbers(1000, 0);
    let says = |flags, seq, ack| Tcp::new(client(5000), at(80), flags).numbers(seq, ack);
    let is_in = |world: &mut World, what: &str, state| {
        let key = flow_key(client(5000), at(80));
        assert_eq!(
            world.plane().flow(&key).unwrap().unwrap().state,
            state,
            "{what}"
        );
    };
    world.arrive(&syn);
    world.arrive(&says(FIN | ACK, 1001, 501));
    is_in(&mut world, "FIN before the SYN-ACK", FlowState::SynSent);
    world.leave(&Tcp::new(at(8000), client(5000), SYN | ACK).numbers(500, 1001));
    for (what, flags, seq, ack) in [
        ("ACK of something else", ACK, 1001, 0x7000_0000),
        ("FIN with it", FIN | ACK, 1001, 0x7000_0000),
        ("FIN far ahead", FIN | ACK, 0x7000_0000, 501),
    ] {
        world.arrive(&says(flags, seq, ack));
        is_in(&mut world, what, FlowState::SynReceived);
    }
    let refusal = Tcp::new(at(8000), client(5000), RST).numbers(0x7000_0000, 0);
    world.leave(&refusal);
    is_in(&mut world, "its refusal", FlowState::SynReceived);
    world.arrive(&says(ACK, 1001, 501));
    is_in(&mut world, "its own ACK", FlowState::Established);
    assert_eq!(world.live(), [1, 0, 0]);
}

/// The first of many segments is lost, and the FIN comes once.
#[test]
fn a_fin_far_behind_a_hole_is_believed() {
    let mut world = World::new();
    world.connect(5000, 1000);
    let fin = Tcp::new(client(5000), at(80), FIN | ACK).numbers(1001 + (5 << 20), 501);
    world.arrive(&fin);
    let all = 1002 + (5 << 20);
    world.leave(&Tcp::new(at(8000), client(5000), FIN | ACK).numbers(501, all));
    assert_eq!(world.live(), [0, 0, 0]);
}

/// A client that has finished and waits for its answer has as much to lose as any.
#[test]
fn a_stray_syn_takes_no_answer_from_who_has_finished() {
    let mut world = World::new();
    world.connect(5000, 1000);
    let request = Tcp::new(client(5000), at(80), FIN | ACK).numbers(1001, 501);
    world.arrive(&request.payload(b"GET /api/x HTTP/1.1\r\n\r\n"));
    let syn = Tcp::new(client(5000), at(80), SYN).numbers(77, 0);
    world.expect("SYN", INGRESS, &syn, PASS, &towards(&syn, 8000));
    let answer = Tcp::new(at(8000), client(5000), ACK).numbers(501, 1025);
    let answer = answer.payload(b"HTTP/1.1 204 No\r\n\r\n");
    let seen = coming_from(&answer, 80);
    world.expect("answer", EGRESS, &answer, PASS, &seen);
    world.expect("SYN", INGRESS, &syn, PASS, &towards(&syn, 8000));
    world.leave(&Tcp::new(at(8000), client(5000), FIN | ACK).numbers(522, 1025));
    world.expect("over", INGRESS, &syn, PASS, &towards(&syn, 8001));
}

/// What the client has not acknowledged comes again, after ever longer pauses.
#[test]
fn a_closed_flow_stays_for_what_the_client_has_not_acknowledged() {
    let mut world = World::new();
    for (port, acknowledges) in [(5000, false), (5001, true)] {
        world.connect(port, 1000);
        let slot = 8000 + u16::from(acknowledges);
        world.arrive(&Tcp::new(client(port), at(80), FIN | ACK).numbers(1001, 501));
        world.leave(&Tcp::new(at(slot), client(port), FIN | ACK).numbers(501, 1002));
        assert_eq!(world.live(), [0, 0, 0]);
        if acknowledges {
            world.arrive(&Tcp::new(client(port), at(80), ACK).numbers(1002, 502));
        }
    }
    for _ in 0..=FlowState::Closed.patience() {
        world.plane().sweep().unwrap();
    }
    let again = |port, slot| Tcp::new(at(slot), client(port), FIN | ACK).numbers(501, 1002);
    let late = again(5001, 8001);
    world.expect("acknowledged", EGRESS, &late, PASS, &late);
    let again = again(5000, 8000);
    world.expect("again", EGRESS, &again, PASS, &coming_from(&again, 80));
    for _ in 0..LINGER_SWEEPS {
        assert_eq!(world.plane().sweep().unwrap(), 1);
    }
    assert_eq!(world.plane().sweep().unwrap(), 0);
}

/// Whoever knows both ends of a connection could cut it otherwise.
#[test]
fn a_stray_syn_goes_to_the_backend_of_the_open_connection() {
    let mut world = World::new();
    assert_eq!(world.connect(5000, 1000), 8000);
    let stray = Tcp::new(client(5000), at(80), SYN).numbers(900_000, 0);
    world.expect("SYN", INGRESS, &stray, PASS, &towards(&stray, 8000));
    let loaded = Tcp::new(client(5000), at(80), SYN)
        .numbers(1001, 0)
        .payload(b"GET /api/x HTTP/1.1\r\n\r\n");
    world.expect("with data", INGRESS, &loaded, PASS, &towards(&loaded, 8000));
    let challenge = Tcp::new(at(8000), client(5000), ACK).numbers(501, 1001);
    let seen = coming_from(&challenge, 80);
    world.expect("challenge", EGRESS, &challenge, PASS, &seen);
    assert_eq!(world.reason(Reason::SynAgain), 2);
    let request = Tcp::new(client(5000), at(80), ACK | PSH)
        .numbers(1001, 501)
        .payload(b"GET /api/x HTTP/1.1\r\n\r\n");
    world.expect("request", INGRESS, &request, PASS, &towards(&request, 8000));
    let slots = world.plane().read().unwrap().slots;
    let requests: Vec<_> = slots.iter().map(|slot| slot.counters.requests).collect();
    assert_eq!(requests, [1, 0, 0], "the data of the SYN was none");
    // A client that has the connection no more answers the challenge with RST.
    world.arrive(&Tcp::new(client(5000), at(80), RST).numbers(1024, 0));
    assert_eq!(world.live(), [0, 0, 0]);
    world.expect("SYN", INGRESS, &stray, PASS, &towards(&stray, 8001));
}

/// The backend has lost that one without a word.
#[test]
fn a_syn_ack_begins_anew_where_another_connection_was_open() {
    let mut world = World::new();
    assert_eq!(world.connect(5000, 1000), 8000);
    let syn = Tcp::new(client(5000), at(80), SYN).numbers(900_000, 0);
    world.expect("SYN", INGRESS, &syn, PASS, &towards(&syn, 8000));
    let answer = Tcp::new(at(8000), client(5000), SYN | ACK).numbers(77, 900_001);
    let seen = coming_from(&answer, 80);
    world.expect("its answer", EGRESS, &answer, PASS, &seen);
    assert_eq!(world.live(), [1, 0, 0]);
    assert_eq!(world.connections(), [2, 0, 0]);
    let request = Tcp::new(client(5000), at(80), ACK)
        .numbers(900_001, 78)
        .payload(b"GET /api/x HTTP/1.1\r\n\r\n");
    let sent = towards(&request, 8000);
    world.expect("request", INGRESS, &request, PASS, &sent);
    let slot = world.plane().read().unwrap().slots.remove(0);
    assert_eq!((slot.counters.requests, slot.in_flight), (1, 1));
    let reset = Tcp::new(client(5000), at(80), RST).numbers(900_024, 0);
    world.expect("RST", INGRESS, &reset, PASS, &towards(&reset, 8000));
    assert_eq!(world.live(), [0, 0, 0]);
}
