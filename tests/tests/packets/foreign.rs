//! What is not ours, or cannot be ours: it passes untouched.

use std::net::SocketAddr;

use orch_common::{
    counter::Reason,
    layout::program::{EGRESS, ENTRY, GUARD, INGRESS},
};
use orch_tests::frame::{
    Tcp,
    flag::{ACK, SYN},
    tagged,
};

use super::world::{PASS, World, at, at6, client, client6, destination_options, hex};

#[test]
fn what_is_not_ours_passes_untouched() {
    let mut world = World::new();
    let elsewhere = |port| SocketAddr::new("10.9.0.77".parse().unwrap(), port);
    let mut second_fragment = Tcp::new(client(1), at(80), SYN);
    second_fragment.fragment = 100;
    let table = [
        ("another port", INGRESS, Tcp::new(client(1), at(81), SYN)),
        (
            "another host's port 80",
            INGRESS,
            Tcp::new(client(1), elsewhere(80), SYN),
        ),
        (
            "another host's slot port",
            INGRESS,
            Tcp::new(client(1), elsewhere(8000), SYN),
        ),
        ("a later fragment", INGRESS, second_fragment),
        (
            "an answer from a port 80 elsewhere",
            INGRESS,
            Tcp::new(client(80), at(40000), SYN | ACK),
        ),
        (
            "a slot's answer that no flow knows",
            EGRESS,
            Tcp::new(at(8000), client(1), ACK),
        ),
        (
            "what leaves by another port",
            EGRESS,
            Tcp::new(at(22), client(1), ACK),
        ),
        (
            "established traffic to a slot",
            INGRESS,
            Tcp::new(client(1), at(8000), ACK),
        ),
    ];
    for (what, program, input) in &table {
        world.expect(what, program, input, PASS, input);
    }
    assert_eq!(world.live(), [0, 0, 0]);
}

#[test]
fn what_is_ours_but_cannot_be_balanced_is_counted() {
    let mut world = World::new();
    let stray = Tcp::new(client(1), at(80), ACK);
    world.expect("no flow", INGRESS, &stray, PASS, &stray);
    assert_eq!(world.reason(Reason::NoFlow), 1);
    let mut fragment = Tcp::new(client(1), at(80), SYN);
    fragment.fragment = 0x2000;
    world.expect("first fragment", INGRESS, &fragment, PASS, &fragment);
    assert_eq!(world.reason(Reason::Fragment), 1);
    world.plane().set_ring(0, &[]).unwrap();
    let syn = Tcp::new(client(1), at(80), SYN);
    world.expect("no backend", INGRESS, &syn, PASS, &syn);
    assert_eq!(world.reason(Reason::NoBackend), 1);
}

#[test]
fn headers_cut_off_anywhere_pass_untouched() {
    let mut world = World::new();
    for (whole, shortest) in [
        (Tcp::new(client(1), at(80), SYN).frame(), 34),
        (Tcp::new(client6(1), at6(80), SYN).frame(), 54),
    ] {
        for len in shortest..whole.len() {
            for program in [INGRESS, EGRESS, GUARD, ENTRY] {
                let trial = world.plane().trial(program, &whole[..len]).unwrap();
                assert_eq!(trial.verdict, PASS, "{len} bytes");
                assert_eq!(hex(&trial.frame), hex(&whole[..len]), "{len} bytes");
            }
        }
    }
    let mut lying = Tcp::new(client(1), at(80), SYN).frame();
    lying[46] = 0xf0;
    let trial = world.plane().trial(INGRESS, &lying).unwrap();
    assert_eq!(
        (trial.verdict, hex(&trial.frame)),
        (PASS, hex(&lying)),
        "data offset beyond the end"
    );
    assert_eq!(world.live(), [0, 0, 0]);
}

#[test]
fn ipv6_cut_off_anywhere_passes_untouched() {
    let mut world = World::new();
    let mut syn = Tcp::new(client6(1), at6(80), SYN);
    for chain in [vec![], vec![destination_options(); 2]] {
        syn.extensions = chain;
        for port in [80, 8000, 81] {
            syn.to.set_port(port);
            let whole = syn.frame();
            for len in 54..whole.len() {
                for program in [INGRESS, EGRESS, GUARD, ENTRY] {
                    let trial = world.plane().trial(program, &whole[..len]).unwrap();
                    assert_eq!(trial.verdict, PASS, "{len} bytes to {port}");
                    assert_eq!(hex(&trial.frame), hex(&whole[..len]), "{len} to {port}");
                }
            }
        }
    }
    assert_eq!(world.live(), [0, 0, 0]);
}

#[test]
fn other_protocols_pass_untouched() {
    let mut world = World::new();
    let syn = Tcp::new(client(1), at(80), SYN).frame();
    let mut udp = syn.clone();
    udp[23] = 17;
    let mut version = syn.clone();
    version[14] = 0x65;
    let mut arp = syn.clone();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let mut six_as_four = Tcp::new(client6(1), at6(80), SYN).frame();
    six_as_four[14] = 0x40;
    let slot = Tcp::new(client(1), at(8000), SYN).frame();
    let table = [
        ("UDP to port 80", udp),
        ("a version that is none", version),
        ("ARP", arp),
        ("IPv4 in an IPv6 frame", six_as_four),
        ("tagged", tagged(&syn, 5)),
        ("tagged, to a slot", tagged(&slot, 5)),
        ("tagged twice", tagged(&tagged(&slot, 5), 6)),
    ];
    for (what, frame) in &table {
        for program in [INGRESS, EGRESS, GUARD, ENTRY] {
            let trial = world.plane().trial(program, frame).unwrap();
            assert_eq!(
                (trial.verdict, hex(&trial.frame)),
                (PASS, hex(frame)),
                "{what}"
            );
        }
    }
    assert_eq!(world.live(), [0, 0, 0]);
}
