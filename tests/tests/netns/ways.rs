//! Ways to choose, for real connections of outside and local clients.

use std::net::TcpStream;

use orch::config::{Balance, ServiceConfig};
use orch_tests::{fixture, netns::NetNs};

use super::{VIP, VIP6, World, answered_by, connect};

fn world(name: &str, balance: Balance) -> World {
    let service = ServiceConfig {
        balance,
        ..fixture::service()
    };
    World::with(name, &service)
}

/// Who answers so many connections, one after the other.
fn answers(netns: &NetNs, addresses: &[&str], connections: usize) -> Vec<String> {
    let addresses = addresses.iter().cycle().take(connections);
    netns.within(|| addresses.map(|address| answered_by(address)).collect())
}

#[test]
fn a_source_stays_with_its_slot() {
    let world = world("source", Balance::SourceIp);
    for (netns, addresses) in [
        (&world.outside, &[VIP][..]),
        (&world.outside, &[VIP6][..]),
        (&world.host, &["127.0.0.1:80", "[::1]:80", VIP][..]),
    ] {
        let answers = answers(netns, addresses, 12);
        assert!(answers.iter().all(|by| *by == answers[0]), "{answers:?}");
    }
}

#[test]
fn a_slot_without_connections_gets_the_next() {
    let mut world = world("least", Balance::LeastConnections);
    let hold = |netns: &NetNs, count: usize| -> Vec<TcpStream> {
        netns.within(|| (0..count).map(|_| connect(VIP)).collect())
    };
    // Three of each kind: both are counted in one place.
    let outside = hold(&world.outside, 3);
    let local = hold(&world.host, 3);
    let live: Vec<u64> = world.read().slots.iter().map(|slot| slot.live).collect();
    assert_eq!(live, [2, 2, 2]);
    drop((outside, local));
    world.drained();
    // The end of one must not be on its way when the next one comes.
    let one = |world: &mut World| {
        let by = answers(&world.outside, &[VIP], 1);
        world.drained();
        by
    };
    let idle: Vec<_> = (0..6).flat_map(|_| one(&mut world)).collect();
    assert_eq!(idle[..3], idle[3..], "idle slots take turns");
}

#[test]
fn a_slot_with_a_part_of_its_share_has_fewer_turns() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections] {
        let mut world = world(&format!("slow-{balance:?}"), balance);
        world.plane().set_shares(0, &[(2, 1)].into()).unwrap();
        // Held, so that there are connections to compare.
        let held: Vec<TcpStream> = world
            .outside
            .within(|| (0..21).map(|_| connect(VIP)).collect());
        let live: Vec<u64> = world.read().slots.iter().map(|slot| slot.live).collect();
        assert_eq!(live, [10, 10, 1], "{balance:?}");
        drop(held);
        world.drained();
        world.plane().set_shares(0, &[].into()).unwrap();
        let mut answers = answers(&world.outside, &[VIP], 3);
        answers.sort();
        assert_eq!(answers, ["8000", "8001", "8002"], "{balance:?}");
    }
}
