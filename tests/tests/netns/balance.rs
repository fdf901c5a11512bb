//! Exact round robin over CPUs and kinds of client.

use std::{sync::Barrier, thread};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use orch_tests::server::Server;

use super::{VIP, VIP6, World, answered_by};

const CONNECTIONS: u64 = 10_000;
const CLIENTS: usize = 4;

#[test]
fn every_slot_gets_its_share_whoever_asks_on_whatever_cpu() {
    let mut world = World::new("share");
    let start = Barrier::new(CLIENTS);
    let each = CONNECTIONS / CLIENTS as u64;
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (netns, addresses) = if number < 2 {
                (&world.outside, [VIP, VIP6])
            } else {
                (&world.host, ["127.0.0.1:80", "[::1]:80"])
            };
            let start = &start;
            scope.spawn(move || {
                netns.within(|| {
                    on_cpu(number % 2);
                    start.wait();
                    for turn in 0..each {
                        answered_by(addresses[turn as usize % 2]);
                    }
                });
            });
        }
    });
    world.drained();
    let slots = world.read().slots;
    let given: Vec<u64> = slots.iter().map(|slot| slot.connections).collect();
    let asked: Vec<u64> = slots.iter().map(|slot| slot.counters.requests).collect();
    let accepted: Vec<u64> = world.servers.iter().map(Server::accepted).collect();
    assert_eq!(given.iter().sum::<u64>(), CONNECTIONS);
    assert!(
        given.iter().all(|&n| n.abs_diff(CONNECTIONS / 3) <= 1),
        "{given:?}"
    );
    assert_eq!((&asked, &accepted), (&given, &given));
}

/// Keeps the calling thread on one CPU, where the machine has it.
fn on_cpu(number: usize) {
    let mut set = CpuSet::new();
    set.set(number).unwrap();
    let _ = sched_setaffinity(Pid::from_raw(0), &set);
}
