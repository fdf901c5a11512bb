//! Many established flows at once: none is lost, and what they take of memory is told.

use std::net::SocketAddr;

use orch_common::{counter::Reason, layout::program::INGRESS};
use orch_tests::frame::{
    Tcp,
    flag::{ACK, SYN},
};

use super::world::{PASS, World, at, towards};

/// How many, unless `ORCH_ESTABLISHED` says so.
const FLOWS: u32 = 50_000;

/// A client of its own address and port for each number.
fn client(number: u32) -> SocketAddr {
    let [_, a, b, c] = (number / 50_000).to_be_bytes();
    SocketAddr::from(([12, a, b, c], 10_000 + (number % 50_000) as u16))
}

/// Bytes that the kernel has for the hash maps of this process that forget the oldest.
fn memory() -> u64 {
    let files = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let infos = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    let number = |info: &str, key: &str| -> Option<u64> {
        let line = info.lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().last()?.parse().ok()
    };
    let mut maps: Vec<(u64, u64)> = infos
        .filter(|info| number(info, "map_type:") == Some(9))
        .filter_map(|info| Some((number(&info, "map_id:")?, number(&info, "memlock:")?)))
        .collect();
    maps.sort_unstable();
    maps.dedup();
    maps.iter().map(|(_, bytes)| bytes).sum()
}

#[test]
fn as_many_established_flows_as_were_asked_for() {
    let wanted = std::env::var("ORCH_ESTABLISHED").ok();
    let wanted = wanted.map_or(FLOWS, |number| number.parse().unwrap());
    let before = memory();
    // A third more than will be established: a quarter of the table is for half-open flows.
    let room = wanted + wanted / 3 + 65_536;
    let mut world = World::sized(room);
    for number in 0..wanted {
        let client = client(number);
        let syn = Tcp::new(client, at(80), SYN).numbers(1000, 0);
        assert_eq!(world.arrive(&syn).verdict, PASS);
        world.leave(&Tcp::new(at(8000), client, SYN | ACK).numbers(500, 1001));
        world.arrive(&Tcp::new(client, at(80), ACK).numbers(1001, 501));
    }
    assert_eq!(world.live(), [u64::from(wanted)]);
    assert_eq!(world.reason(Reason::Evicted), 0);
    for number in 0..wanted {
        let ack = Tcp::new(client(number), at(80), ACK).numbers(1001, 501);
        world.expect("established", INGRESS, &ack, PASS, &towards(&ack, 8000));
    }
    assert_eq!(world.reason(Reason::NoFlow), 0);
    // Other tests of this process have maps as well: only a process of its own tells the truth.
    println!(
        "{wanted} flows at once, room for {room}: {} bytes for each that there is room for",
        (memory() - before) / u64::from(room)
    );
}
