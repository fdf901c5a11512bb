//! Floods of SYNs from addresses that never answer: established flows stay, and others still connect.

use orch_common::{counter::Reason, flow::Queue, layout::program::INGRESS};
use orch_tests::{
    fixture,
    frame::{
        Tcp,
        flag::{ACK, SYN},
    },
};

use super::world::{PASS, Talk, V4, World, at, client, towards};

/// SYNs of the flood, unless `ORCH_FLOOD` says how many: more than the table has places.
const SYNS: u32 = 100_000;
/// After so many of them, somebody connects who means it.
const EACH: u32 = 1000;

fn syns() -> u32 {
    let number = std::env::var("ORCH_FLOOD").ok();
    number.map_or(SYNS, |number| number.parse().unwrap())
}

/// A SYN from the address with this number.
fn forged(frame: &mut [u8], number: u32) {
    let [a, b, c, d] = (number.wrapping_mul(0x9e37_79b1)).to_be_bytes();
    // 11.0.0.0/8 and the source port make 32 bits: no two are alike.
    frame[26..30].copy_from_slice(&[11, a, b, c]);
    frame[34..36].copy_from_slice(&[d, 1]);
}

fn places() -> u64 {
    let config = fixture::dataplane("flood", orch::config::Local::Off);
    u64::from(Queue::places(config.flows))
}

/// Live connections, all slots together.
fn live(world: &mut World) -> u64 {
    world.live().iter().sum()
}

#[test]
fn no_flood_of_syns_takes_the_place_of_an_established_flow() {
    let mut world = World::new();
    // As many as fit beside those that are half-open.
    let established: Vec<(u16, u16)> = (10_000..30_000)
        .map(|port| (port, world.connect(port, 1000)))
        .collect();
    let mut frame = Tcp::new(client(1), at(80), SYN).numbers(1000, 0).frame();
    let mut honest = Vec::new();
    let flood = syns();
    for number in 0..flood {
        forged(&mut frame, number);
        assert_eq!(world.plane().trial(INGRESS, &frame).unwrap().verdict, PASS);
        if number % EACH == 0 && honest.len() < 8000 {
            let port = 40_000 + honest.len() as u16;
            honest.push((port, world.connect(port, 1000)));
        }
    }

    let evicted = world.reason(Reason::Evicted);
    let half_open = u64::from(flood) - evicted;
    assert!(half_open <= places(), "{half_open} are half-open");
    assert!(half_open > places() - places() / 100, "{half_open}");
    let connected = (established.len() + honest.len()) as u64;
    assert_eq!(live(&mut world), connected + half_open);
    for (port, slot_port) in established.into_iter().chain(honest) {
        let ack = Tcp::new(client(port), at(80), ACK).numbers(1001, 501);
        world.expect(
            "established",
            INGRESS,
            &ack,
            PASS,
            &towards(&ack, slot_port),
        );
    }
}

#[test]
fn nor_with_backends_that_have_addresses_of_their_own() {
    let mut world = World::direct();
    let talks: Vec<Talk> = (10_000..12_000).map(|port| Talk::new(V4, port)).collect();
    for (slot, talk) in (0..3).cycle().zip(&talks) {
        world.opens(talk, 1000, slot);
    }
    let mut frame = Tcp::new(client(1), at(80), SYN).numbers(1000, 0).frame();
    let flood = 3 * places() as u32;
    for number in 0..flood {
        forged(&mut frame, number);
        world.plane().trial(INGRESS, &frame).unwrap();
    }
    let evicted = world.reason(Reason::Evicted);
    assert_eq!(evicted, u64::from(flood) - places());
    assert_eq!(live(&mut world), talks.len() as u64 + places());
    for (slot, talk) in (0..3).cycle().zip(&talks) {
        world.goes("established", talk, &talk.says(ACK, 1001, 501), slot);
        world.comes("reply", talk, &talk.answers(slot, ACK, 501, 1001));
    }
}

/// A flow that was half-open when its place came round keeps it once its handshake is complete.
#[test]
fn a_handshake_in_the_flood_is_completed() {
    let mut world = World::new();
    let mut frame = Tcp::new(client(1), at(80), SYN).numbers(1000, 0).frame();
    for number in 0..places() as u32 {
        forged(&mut frame, number);
        world.plane().trial(INGRESS, &frame).unwrap();
    }
    assert_eq!(world.reason(Reason::Evicted), 0, "all have a place");
    let slot_port = world.connect(20_000, 1000);
    assert_eq!(world.reason(Reason::Evicted), 1, "the oldest went");
    for number in 0..places() as u32 {
        forged(&mut frame, 1_000_000 + number);
        world.plane().trial(INGRESS, &frame).unwrap();
    }
    let ack = Tcp::new(client(20_000), at(80), ACK).numbers(1001, 501);
    world.expect(
        "established",
        INGRESS,
        &ack,
        PASS,
        &towards(&ack, slot_port),
    );
    assert_eq!(live(&mut world), 1 + places());
}

/// The quarter is of the table that is there, whatever the file says by now.
#[test]
fn another_number_in_the_file_does_not_change_a_table_that_is_there() {
    let mut world = World::sized(65_536);
    for flows in [262_144, 65_536] {
        world.taken_over(flows);
        let before = world.reason(Reason::Evicted);
        let mut frame = Tcp::new(client(1), at(80), SYN).numbers(1000, 0).frame();
        for number in 0..20_000 {
            forged(&mut frame, flows + number);
            world.plane().trial(INGRESS, &frame).unwrap();
        }
        let places = u64::from(Queue::places(65_536));
        assert_eq!(live(&mut world), places, "{flows}");
        let evicted = world.reason(Reason::Evicted) - before;
        assert!(evicted >= 20_000 - places, "{flows}: {evicted}");
    }
}
