//! Slot ports: who may reach them from outside, and what hides from the guard.

use orch_common::{
    counter::Reason,
    layout::program::{EGRESS, GUARD, INGRESS},
};
use orch_tests::frame::{
    Tcp,
    flag::{ACK, SYN},
};

use super::world::{
    DROP, PASS, World, at, at6, client, client6, destination_options, service, towards,
};

#[test]
fn outsiders_stay_off_slot_ports() {
    let mut world = World::new();
    for port in [8000, 8001, 8009] {
        let syn = Tcp::new(client(1), at(port), SYN);
        world.expect("SYN to a slot", INGRESS, &syn, DROP, &syn);
        world.expect("SYN to a slot", GUARD, &syn, DROP, &syn);
    }
    assert_eq!(world.reason(Reason::SlotGuard), 6);
    let beyond = Tcp::new(client(1), at(8010), SYN);
    world.expect("SYN beyond the slots", INGRESS, &beyond, PASS, &beyond);
    let service_port = Tcp::new(client(1), at(80), SYN);
    world.expect(
        "the guard does not balance",
        GUARD,
        &service_port,
        PASS,
        &service_port,
    );
}

#[test]
fn one_client_port_for_balancer_and_slot() {
    let mut world = World::with(&service(true));
    let direct = Tcp::new(client(5000), at(8000), SYN);
    world.expect("direct SYN", INGRESS, &direct, PASS, &direct);
    let balanced = Tcp::new(client(5000), at(80), SYN);
    world.expect(
        "balanced SYN avoids slot 0",
        INGRESS,
        &balanced,
        PASS,
        &towards(&balanced, 8001),
    );
    let answer = Tcp::new(at(8000), client(5000), SYN | ACK).numbers(1, 1001);
    world.expect(
        "the direct answer is left alone",
        EGRESS,
        &answer,
        PASS,
        &answer,
    );
    let second = Tcp::new(client(5000), at(8001), SYN).numbers(77_000, 0);
    world.expect(
        "direct SYN to the balanced slot",
        INGRESS,
        &second,
        DROP,
        &second,
    );
    assert_eq!(world.reason(Reason::Collision), 1);
}

#[test]
fn a_slot_port_is_guarded_against_every_flag_that_could_open_it() {
    let mut world = World::new();
    for flags in 0..=255 {
        let input = Tcp::new(client(1), at(8000), flags);
        let input6 = Tcp::new(client6(1), at6(8000), flags);
        let opens = flags & (SYN | ACK) == SYN;
        let verdict = if opens { DROP } else { PASS };
        for program in [INGRESS, GUARD] {
            let what = format!("flags {flags:#04x}");
            world.expect(&what, program, &input, verdict, &input);
            world.expect(&what, program, &input6, verdict, &input6);
        }
    }
}

#[test]
fn a_slot_port_is_guarded_against_fragments() {
    let mut world = World::new();
    let mut whole = Tcp::new(client(1), at(8000), SYN);
    whole.options = vec![1; 40];
    whole.payload = vec![7; 64];
    whole.fragment = 0x2000;
    let frame = whole.frame();
    // A first fragment carries a multiple of eight bytes; the flags are in the second eight.
    for len in (14 + 20 + 8..frame.len()).step_by(8) {
        for flags in [SYN, ACK, 0] {
            let mut cut = frame[..len].to_vec();
            cut[16..18].copy_from_slice(&(len as u16 - 14).to_be_bytes());
            if len > 47 {
                cut[47] = flags;
            }
            for program in [INGRESS, GUARD] {
                let trial = world.plane().trial(program, &cut).unwrap();
                assert_eq!(trial.verdict, DROP, "{len} bytes, flags {flags}");
            }
        }
    }
    let mut elsewhere = whole.clone();
    elsewhere.to.set_ip("10.9.0.77".parse().unwrap());
    world.expect("not this host", GUARD, &elsewhere, PASS, &elsewhere);
    let mut six = Tcp::new(client6(1), at6(8000), ACK);
    six.extensions = vec![(44, vec![0, 0, 1, 0, 0, 0, 9])];
    world.expect("IPv6, more to come", INGRESS, &six, DROP, &six);
    six.extensions = vec![(44, vec![0, 0, 0, 0, 0, 0, 9])];
    world.expect("an ACK, atomic", INGRESS, &six, PASS, &six);
    six.flags = SYN;
    world.expect("a SYN, atomic", INGRESS, &six, DROP, &six);
    six.extensions = vec![(44, vec![0, 0, 8, 0, 0, 0, 9])];
    world.expect("a later fragment", INGRESS, &six, PASS, &six);
}

#[test]
fn extension_headers_hide_nothing() {
    let mut world = World::new();
    let kinds = [
        (0, vec![0, 1, 4, 0, 0, 0, 0]),
        (43, vec![0, 0, 0, 0, 0, 0, 0]),
        (44, vec![0, 0, 0, 0, 0, 0, 9]),
        (51, vec![1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]),
        destination_options(),
        (60, [vec![1, 1, 12], vec![0; 12]].concat()),
    ];
    for (at_most, kind) in kinds.iter().enumerate() {
        for chain in [
            vec![kind.clone()],
            vec![kind.clone(), destination_options()],
            kinds[..=at_most].to_vec(),
        ] {
            let mut syn = Tcp::new(client6(1), at6(8000), SYN);
            syn.extensions = chain.clone();
            world.expect(&format!("{chain:?}"), INGRESS, &syn, DROP, &syn);
            world.expect(&format!("{chain:?}"), GUARD, &syn, DROP, &syn);
            let mut other = Tcp::new(client6(1), at6(81), SYN);
            other.extensions = chain;
            world.expect("another port", INGRESS, &other, PASS, &other);
        }
    }
    for length in 7..20 {
        let mut syn = Tcp::new(client6(1), at6(8000), SYN);
        syn.extensions = vec![destination_options(); length];
        world.expect("longer than anybody needs", INGRESS, &syn, DROP, &syn);
        syn.to.set_ip("fd09::77".parse().unwrap());
        world.expect("not this host", INGRESS, &syn, PASS, &syn);
    }
    let mut syn = Tcp::new(client6(40_000), at6(80), SYN);
    syn.extensions = vec![destination_options()];
    world.expect("balanced", INGRESS, &syn, PASS, &towards(&syn, 8000));
}
