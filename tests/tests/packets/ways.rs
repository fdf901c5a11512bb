//! Ways to choose a slot: the fewest connections, the client's address, weights.

use std::net::SocketAddr;

use orch::config::{Balance, ServiceConfig};
use orch_common::slot::SlotState;
use orch_tests::frame::{
    Tcp,
    flag::{ACK, RST, SYN},
};

use super::world::{World, at, client, service};

fn balanced(balance: Balance, weights: &[u8]) -> ServiceConfig {
    ServiceConfig {
        balance,
        weights: weights.to_vec(),
        ..service(false)
    }
}

/// Where clients begin to count their bytes.
const SEQ: u32 = 1000;

/// Opens a connection and gives the number of its slot.
fn slot_of(world: &mut World, from: SocketAddr) -> u16 {
    let trial = world.arrive(&Tcp::new(from, at(80), SYN).numbers(SEQ, 0));
    u16::from_be_bytes([trial.frame[36], trial.frame[37]]) - 8000
}

fn slots_of(world: &mut World, ports: std::ops::Range<u16>) -> Vec<u16> {
    ports.map(|port| slot_of(world, client(port))).collect()
}

/// The backend has answered, and the client ends it.
fn end(world: &mut World, port: u16, slot: u16) {
    world.leave(&Tcp::new(at(8000 + slot), client(port), SYN | ACK).numbers(500, SEQ + 1));
    world.arrive(&Tcp::new(client(port), at(80), RST).numbers(SEQ + 1, 0));
}

/// A client outside with an address of its own.
fn from(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 9, (number >> 8) as u8 + 1, number as u8], 5000))
}

/// The slot's backend refuses a connection: it is passed by from then on.
fn refuse(world: &mut World, slot: u16) {
    let port = (40_000..41_000).find(|port| slot_of(world, client(*port)) == slot);
    let port = port.unwrap();
    world.leave(&Tcp::new(at(8000 + slot), client(port), RST | ACK).numbers(0, SEQ + 1));
}

#[test]
fn fewest_connections_and_idle_slots_in_turn() {
    let mut world = World::with(&balanced(Balance::LeastConnections, &[]));
    for port in 1000..1006 {
        let expected = (port - 1000) % 3;
        assert_eq!(slot_of(&mut world, client(port)), expected, "all are idle");
        end(&mut world, port, expected);
    }
    assert_eq!(slots_of(&mut world, 2000..2006), [0, 1, 2, 0, 1, 2]);
    // Two of slot 1's connections end: it is given the next two.
    end(&mut world, 2001, 1);
    end(&mut world, 2004, 1);
    assert_eq!(world.live(), [2, 0, 2]);
    assert_eq!(slots_of(&mut world, 3000..3002), [1, 1]);
    assert_eq!(world.live(), [2, 2, 2]);
}

#[test]
fn fewest_connections_for_their_weight() {
    let mut world = World::with(&balanced(Balance::LeastConnections, &[4, 1]));
    slots_of(&mut world, 1000..1060);
    assert_eq!(world.live(), [40, 10, 10]);
}

#[test]
fn idle_slots_take_turns_by_their_weight() {
    let mut world = World::with(&balanced(Balance::LeastConnections, &[1, 2, 3]));
    let mut given = [0; 3];
    for port in 1000..1060 {
        let slot = slot_of(&mut world, client(port));
        given[usize::from(slot)] += 1;
        end(&mut world, port, slot);
    }
    assert_eq!(given, [10, 20, 30]);
}

#[test]
fn weights_give_turns() {
    let mut world = World::with(&balanced(Balance::RoundRobin, &[3, 1, 2]));
    slots_of(&mut world, 1000..1600);
    assert_eq!(world.live(), [300, 100, 200]);
    assert_eq!(world.plane().ring(0), [0, 2, 1], "each slot once");
    // Weights that a reload changes hold at once, with the ring as it is.
    let even = balanced(Balance::RoundRobin, &[]);
    world.plane().set_services(&[even]).unwrap();
    slots_of(&mut world, 2000..2600);
    assert_eq!(world.live(), [500, 300, 400]);
}

#[test]
fn one_address_one_slot() {
    let mut world = World::with(&balanced(Balance::SourceIp, &[]));
    let own = slot_of(&mut world, client(1000));
    assert!(
        slots_of(&mut world, 1001..1100)
            .iter()
            .all(|slot| *slot == own)
    );

    let before: Vec<u16> = (0..600).map(|n| slot_of(&mut world, from(n))).collect();
    for slot in 0..3 {
        let share = before.iter().filter(|of| **of == slot).count();
        assert!(
            (140..260).contains(&share),
            "slot {slot} has {share} of 600"
        );
    }
    // Slot 1 goes: its clients move, and hardly any other.
    world.plane().set_ring(0, &[0, 2]).unwrap();
    let again = |n| SocketAddr::new(from(n).ip(), 6000);
    let after: Vec<u16> = (0..600).map(|n| slot_of(&mut world, again(n))).collect();
    let moved = |(before, after): &(&u16, &u16)| **before != 1 && before != after;
    let moved = before.iter().zip(&after).filter(moved).count();
    assert!(!after.contains(&1));
    assert!(moved <= 600 * 2 / 100, "{moved} of the others moved");
    // And back: everybody is where they were.
    world.plane().set_ring(0, &[0, 1, 2]).unwrap();
    let back = |n| SocketAddr::new(from(n).ip(), 7000);
    let back: Vec<u16> = (0..600).map(|n| slot_of(&mut world, back(n))).collect();
    assert_eq!(before, back);
}

#[test]
fn a_dead_slot_is_passed_by_in_every_way() {
    for balance in [
        Balance::RoundRobin,
        Balance::LeastConnections,
        Balance::SourceIp,
    ] {
        // A ring in which the dead slot has twenty turns in a row.
        let mut world = World::with(&balanced(balance, &[1, 100, 1]));
        refuse(&mut world, 1);
        let picked: Vec<u16> = (0..60).map(|n| slot_of(&mut world, from(n))).collect();
        assert!(!picked.contains(&1), "{balance:?}: {picked:?}");
        assert!(picked.contains(&0) && picked.contains(&2), "{balance:?}");
        world.slot(1, SlotState::Ready, 2);
        slots_of(&mut world, 3000..3060);
        assert!(world.live()[1] > 0, "{balance:?}: back again");
    }
}
