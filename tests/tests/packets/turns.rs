//! Who gets which turn, and which requests count.

use orch_common::{
    layout::program::{EGRESS, INGRESS},
    slot::SlotState,
};
use orch_tests::frame::{
    Tcp,
    flag::{ACK, PSH, SYN, URG},
};

use super::world::{PASS, World, at, client, coming_from, service, towards};

#[test]
fn round_robin_is_exact() {
    let mut world = World::new();
    let mut picks = [0_u32; 3];
    for port in 1000..11_000 {
        let trial = world.arrive(&Tcp::new(client(port), at(80), SYN));
        picks[usize::from(u16::from_be_bytes([trial.frame[36], trial.frame[37]]) - 8000)] += 1;
    }
    assert_eq!(picks, [3334, 3333, 3333]);
}

#[test]
fn a_full_ring_takes_turns_under_a_flood() {
    const SLOTS: u16 = 64;
    let mut config = service(false);
    config.scale.max = SLOTS;
    let mut world = World::with(&config);
    for slot in 3..SLOTS {
        world.slot(slot, SlotState::Ready, 1);
    }
    let all: Vec<u16> = (0..SLOTS).collect();
    world.plane().set_ring(0, &all).unwrap();
    for number in 0..20 * SLOTS {
        let mut syn = Tcp::new(client(1000 + number), at(80), SYN).numbers(u32::from(number), 0);
        syn.flags |= [0, PSH, URG, 0xc0][usize::from(number % 4)];
        let slot_port = 8000 + number % SLOTS;
        world.expect("SYN", INGRESS, &syn, PASS, &towards(&syn, slot_port));
    }
    assert_eq!(world.live(), vec![20; usize::from(SLOTS)]);
}

#[test]
fn requests_count_by_path() {
    let mut world = World::new();
    world.plane().set_ring(0, &[0]).unwrap();
    let long = format!("/api/{}", "x".repeat(300));
    let table = [
        ("/api/v1/acts", true),
        ("/api/", true),
        (long.as_str(), true),
        ("/", false),
        ("/apis", false),
        ("/api/_health", false),
        ("/api/_health?x=1", false),
        ("/api/_health/deep", false),
        ("/api/_healthy", true),
    ];
    let (mut requests, mut excluded) = (0, 0);
    for (number, (path, counts)) in table.iter().enumerate() {
        let port = 6000 + number as u16;
        world.connect(port, 1000);
        let line = format!("POST {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        let request = Tcp::new(client(port), at(80), ACK)
            .numbers(1001, 501)
            .payload(line.as_bytes());
        world.arrive(&request);
        world.arrive(&request);
        let answer = Tcp::new(at(8000), client(port), ACK).numbers(501, 1001 + line.len() as u32);
        world.leave(&answer.payload(b"HTTP/1.1 404 Not Found\r\n\r\n"));
        if *counts {
            requests += 1;
        } else {
            excluded += 1;
        }
        let counters = world.plane().read().unwrap().slots[0].counters;
        assert_eq!(
            (counters.requests, counters.excluded),
            (requests, excluded),
            "{path}"
        );
        assert_eq!(counters.responses[4], requests, "{path}");
    }
}

#[test]
fn a_request_that_comes_with_the_syn_is_counted() {
    let mut world = World::new();
    let request = b"GET /api/x HTTP/1.1\r\n\r\n";
    let mut syn = Tcp::new(client(7000), at(80), SYN).payload(request);
    syn.options = vec![34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];
    world.expect("SYN", INGRESS, &syn, PASS, &towards(&syn, 8000));
    world.expect("again", INGRESS, &syn, PASS, &towards(&syn, 8000));
    for acknowledged in [1001, 1001 + request.len() as u32] {
        let answer = Tcp::new(at(8000), client(7000), SYN | ACK).numbers(500, acknowledged);
        world.expect("SYN-ACK", EGRESS, &answer, PASS, &coming_from(&answer, 80));
    }
    let stale =
        Tcp::new(at(8000), client(7000), SYN | ACK).numbers(500, 1002 + request.len() as u32);
    world.expect("too much acknowledged", EGRESS, &stale, PASS, &stale);
    assert_eq!(world.plane().read().unwrap().slots[0].counters.requests, 1);
}
