//! Connections over delivery `port`, from the SYN to the end, whichever it is.

use orch_common::{
    address,
    counter::Reason,
    flow::{FlowKey, FlowState, HANDSHAKE_SWEEPS},
    layout::program::{EGRESS, GUARD, INGRESS},
    slot::{SlotKey, SlotState},
};
use orch_tests::frame::{
    Tcp,
    flag::{ACK, FIN, PSH, RST, SYN},
};

use super::world::{DROP, PASS, World, at, at6, client, client6, coming_from, service, towards};

#[test]
fn a_connection_from_syn_to_fin() {
    let mut world = World::new();
    let syn = Tcp::new(client(40000), at(80), SYN);
    world.expect("SYN", INGRESS, &syn, PASS, &towards(&syn, 8000));
    world.expect("SYN again", INGRESS, &syn, PASS, &towards(&syn, 8000));
    assert_eq!(world.reason(Reason::NewFlow), 1);
    assert_eq!(world.reason(Reason::SynAgain), 1);
    assert_eq!(world.live(), [1, 0, 0]);
    let steps = [
        (
            EGRESS,
            Tcp::new(at(8000), client(40000), SYN | ACK).numbers(500, 1001),
        ),
        (
            INGRESS,
            Tcp::new(client(40000), at(80), ACK).numbers(1001, 501),
        ),
        (
            INGRESS,
            Tcp::new(client(40000), at(80), ACK | PSH)
                .numbers(1001, 501)
                .payload(b"GET /api/x HTTP/1.1\r\n\r\n"),
        ),
        (
            EGRESS,
            Tcp::new(at(8000), client(40000), ACK | PSH)
                .numbers(501, 1024)
                .payload(b"HTTP/1.1 200 OK\r\n\r\n"),
        ),
        (
            EGRESS,
            Tcp::new(at(8000), client(40000), FIN | ACK).numbers(520, 1024),
        ),
        (
            INGRESS,
            Tcp::new(client(40000), at(80), FIN | ACK).numbers(1024, 521),
        ),
        (
            EGRESS,
            Tcp::new(at(8000), client(40000), ACK).numbers(521, 1025),
        ),
    ];
    for (program, input) in &steps {
        let output = if *program == INGRESS {
            towards(input, 8000)
        } else {
            coming_from(input, 80)
        };
        world.expect(&format!("{input:?}"), program, input, PASS, &output);
    }
    assert_eq!(world.live(), [0, 0, 0], "closed");
    let next = Tcp::new(client(40001), at(80), SYN);
    world.expect("next SYN", INGRESS, &next, PASS, &towards(&next, 8001));
    let reading = world.plane().read().unwrap();
    assert_eq!(reading.slots[0].counters.requests, 1);
    assert_eq!(reading.slots[0].counters.responses, [0, 0, 1, 0, 0, 0]);
    assert_eq!(reading.slots[0].connections, 1);
    let latency = world
        .plane()
        .latency(SlotKey {
            service: 0,
            slot: 0,
        })
        .unwrap();
    assert_eq!(latency.buckets.iter().sum::<u64>(), 1);
}

#[test]
fn the_same_over_ipv6() {
    let mut world = World::new();
    let syn = Tcp::new(client6(40000), at6(80), SYN);
    world.expect("SYN", INGRESS, &syn, PASS, &towards(&syn, 8000));
    let answer = Tcp::new(at6(8000), client6(40000), SYN | ACK).numbers(9, 1001);
    world.expect("SYN-ACK", EGRESS, &answer, PASS, &coming_from(&answer, 80));
    let data = Tcp::new(client6(40000), at6(80), ACK)
        .numbers(1001, 10)
        .payload(&[7; 1000]);
    world.expect("data", INGRESS, &data, PASS, &towards(&data, 8000));
    let reset = Tcp::new(client6(40000), at6(80), RST).numbers(2001, 0);
    world.expect("RST", INGRESS, &reset, PASS, &towards(&reset, 8000));
    assert_eq!(world.live(), [0, 0, 0]);
}

#[test]
fn options_are_carried_and_padding_is_kept() {
    let mut world = World::new();
    let mut syn = Tcp::new(client(40000), at(80), SYN);
    syn.options = vec![
        2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
    ];
    syn.ip_options = vec![0x94, 4, 0, 0];
    world.expect(
        "SYN with options",
        INGRESS,
        &syn,
        PASS,
        &towards(&syn, 8000),
    );
    syn.ip_options = vec![1; 40];
    syn.from = client(40001);
    world.expect("all IP options", INGRESS, &syn, PASS, &towards(&syn, 8001));
    let mut short = Tcp::new(client(40002), at(80), SYN);
    short.padding = 6;
    world.expect("padded", INGRESS, &short, PASS, &towards(&short, 8002));
}

#[test]
fn a_stale_flow_does_not_touch_a_direct_answer() {
    let mut world = World::new();
    assert_eq!(world.connect(5000, 1000), 8000);
    let reset = Tcp::new(client(5000), at(80), RST).numbers(1001, 0);
    world.expect("RST", INGRESS, &reset, PASS, &towards(&reset, 8000));
    let answer = Tcp::new(at(8000), client(5000), SYN | ACK).numbers(7, 77_777);
    world.expect("somebody else's SYN-ACK", EGRESS, &answer, PASS, &answer);
    let data = Tcp::new(at(8000), client(5000), ACK).numbers(8, 77_777);
    world.expect("and what follows", EGRESS, &data, PASS, &data);
    assert_eq!(world.reason(Reason::Stale), 1);
}

#[test]
fn a_new_sequence_number_is_a_new_connection() {
    let mut world = World::new();
    assert_eq!(world.connect(5000, 1000), 8000);
    world.leave(&Tcp::new(at(8000), client(5000), FIN | ACK).numbers(501, 1001));
    assert_eq!(world.connect(5000, 900_000), 8001);
    assert_eq!(world.live(), [0, 1, 0], "the old one is no longer counted");
    assert_eq!(world.reason(Reason::Reopened), 1);
}

#[test]
fn flows_of_a_removed_backend_are_dead() {
    let mut world = World::new();
    world.connect(5000, 1000);
    world.connect(5001, 1000);
    world.slot(0, SlotState::Starting, 2);
    let data = Tcp::new(client(5000), at(80), ACK)
        .numbers(1001, 501)
        .payload(b"x");
    world.expect("replaced", INGRESS, &data, PASS, &data);
    world
        .plane()
        .remove_slot(SlotKey {
            service: 0,
            slot: 1,
        })
        .unwrap();
    let data = Tcp::new(client(5001), at(80), ACK)
        .numbers(1001, 501)
        .payload(b"x");
    world.expect("removed", INGRESS, &data, PASS, &data);
    assert_eq!(world.reason(Reason::DeadBackend), 2);
    assert_eq!(world.live(), [0, 0]);
}

#[test]
fn the_sweep_frees_closed_flows() {
    let mut world = World::new();
    world.connect(5000, 1000);
    world.connect(5001, 1000);
    world.arrive(&Tcp::new(client(5000), at(80), RST).numbers(1001, 0));
    let key = |port| FlowKey {
        client: address::from_v4([10, 9, 0, 2]),
        local: address::from_v4([10, 9, 0, 1]),
        client_port: port,
        local_port: 80,
    };
    assert_eq!(
        world.plane().flow(&key(5000)).unwrap().unwrap().state,
        FlowState::Closed
    );
    for _ in 0..FlowState::Closed.patience() {
        assert_eq!(world.plane().sweep().unwrap(), 2);
    }
    assert_eq!(world.plane().sweep().unwrap(), 1);
    assert!(world.plane().flow(&key(5000)).unwrap().is_none());
    assert!(world.plane().flow(&key(5001)).unwrap().is_some());
    for _ in 0..=FlowState::Established.patience() {
        world.plane().sweep().unwrap();
    }
    assert_eq!(world.live(), [0, 0, 0], "a silent flow ends as well");
    assert_eq!(world.reason(Reason::Expired), 1);
}

/// A flood of SYNs must not keep a backend that is to go.
#[test]
fn a_draining_slot_does_not_wait_for_handshakes_that_nobody_completes() {
    let mut world = World::new();
    let slot = world.connect(5000, 1000) - 8000;
    for port in 6000..6006 {
        world.arrive(&Tcp::new(client(port), at(80), SYN).numbers(1000, 0));
    }
    assert_eq!(world.live().iter().sum::<u64>(), 7);
    let sweeps = |world: &mut World| {
        for _ in 0..=HANDSHAKE_SWEEPS {
            assert_eq!(world.plane().sweep().unwrap(), 7, "none is forgotten");
        }
    };
    sweeps(&mut world);
    assert_eq!(world.live().iter().sum::<u64>(), 7, "no slot drains");
    world.slot(slot, SlotState::Draining, 1);
    sweeps(&mut world);
    assert_eq!(world.live()[usize::from(slot)], 1, "the established one");
    assert_eq!(world.live().iter().sum::<u64>(), 5);
    assert_eq!(world.reason(Reason::Expired), 2);
    for _ in 0..=FlowState::SynSent.patience() {
        world.plane().sweep().unwrap();
    }
    assert_eq!(world.live().iter().sum::<u64>(), 1);
    assert_eq!(world.reason(Reason::Expired), 6, "none twice");
}

/// Its clients' packets come to nobody any more: what they have begun would count for hours.
#[test]
fn the_sweep_frees_flows_of_a_port_that_is_left() {
    let mut world = World::new();
    world.connect(5000, 1000);
    assert_eq!(world.plane().sweep().unwrap(), 1);
    let mut elsewhere = service(false);
    elsewhere.listen.port = 8080;
    world.plane().set_services(&[elsewhere]).unwrap();
    assert_eq!(world.plane().sweep().unwrap(), 0);
    assert_eq!(world.live(), [0, 0, 0]);
    assert_eq!(world.reason(Reason::Expired), 1);
}

/// What it is, the segments that end a connection, and its live count before and after the last.
type Ending = (
    &'static str,
    &'static [(orch_common::flow::Side, u8)],
    [u64; 2],
);

#[test]
fn every_way_to_close_brings_the_count_to_0() {
    use orch_common::flow::Side::{Client, Server};
    let ends: [Ending; 7] = [
        (
            "client first",
            &[(Client, FIN | ACK), (Server, FIN | ACK)],
            [1, 0],
        ),
        (
            "server first",
            &[(Server, FIN | ACK), (Client, FIN | ACK)],
            [1, 0],
        ),
        (
            "a FIN again",
            &[(Client, FIN | ACK), (Client, FIN | ACK)],
            [1, 1],
        ),
        ("client resets", &[(Client, RST)], [0, 0]),
        ("server resets", &[(Server, RST | ACK)], [0, 0]),
        (
            "server resets after a FIN",
            &[(Client, FIN | ACK), (Server, RST)],
            [1, 0],
        ),
        (
            "both reset",
            &[(Client, RST | ACK), (Server, RST | ACK)],
            [0, 0],
        ),
    ];
    let mut world = World::new();
    world.plane().set_ring(0, &[1]).unwrap();
    let mut left = 0;
    for (number, (what, segments, live)) in ends.iter().enumerate() {
        let port = 7000 + number as u16;
        assert_eq!(world.connect(port, 1000), 8001);
        for (step, &(side, flags)) in segments.iter().enumerate() {
            match side {
                Client => {
                    let input = Tcp::new(client(port), at(80), flags).numbers(1001, 501);
                    world.expect(what, INGRESS, &input, PASS, &towards(&input, 8001));
                }
                Server => {
                    let input = Tcp::new(at(8001), client(port), flags).numbers(501, 1001);
                    world.expect(what, EGRESS, &input, PASS, &coming_from(&input, 80));
                }
            }
            let expected = if step + 1 == segments.len() {
                live[1]
            } else {
                live[0]
            };
            assert_eq!(world.live(), [0, left + expected, 0], "{what}, step {step}");
        }
        left += live[1];
    }
}

#[test]
fn what_an_earlier_connection_left_is_reset_where_it_is() {
    let mut world = World::new();
    assert_eq!(world.connect(5000, 1000), 8000);
    world.arrive(&Tcp::new(client(5000), at(80), RST).numbers(1001, 0));
    assert_eq!(world.live(), [0, 0, 0]);
    let syn = Tcp::new(client(5000), at(80), SYN).numbers(900_000, 0);
    world.expect("SYN", INGRESS, &syn, PASS, &towards(&syn, 8001));
    let challenge = Tcp::new(at(8001), client(5000), ACK).numbers(77, 1234);
    world.expect(
        "the challenge of what is left there",
        EGRESS,
        &challenge,
        PASS,
        &coming_from(&challenge, 80),
    );
    let reset = Tcp::new(client(5000), at(80), RST).numbers(1234, 0);
    world.expect("RST", INGRESS, &reset, PASS, &towards(&reset, 8001));
    assert_eq!(world.live(), [0, 1, 0], "the new connection goes on");
    world.expect("SYN again", INGRESS, &syn, PASS, &towards(&syn, 8001));
    let reset = Tcp::new(client(5000), at(80), RST).numbers(900_001, 0);
    world.expect("its own RST", INGRESS, &reset, PASS, &towards(&reset, 8001));
    assert_eq!(world.live(), [0, 0, 0]);
}

#[test]
fn a_refused_syn_is_told_to_the_controller() {
    let mut world = World::new();
    world.arrive(&Tcp::new(client(5000), at(80), SYN));
    assert_eq!(world.refused(), []);
    let refusal = Tcp::new(at(8000), client(5000), RST | ACK).numbers(0, 1001);
    world.expect("RST", EGRESS, &refusal, PASS, &coming_from(&refusal, 80));
    let slot = SlotKey {
        service: 0,
        slot: 0,
    };
    assert_eq!(world.refused(), [(slot, 1)]);
    assert_eq!(world.refused(), [], "told once");
}

#[test]
fn what_comes_by_twice_is_balanced_once() {
    let mut world = World::new();
    let syn = Tcp::new(client(40_000), at(80), SYN);
    let balanced = towards(&syn, 8000);
    world.expect("at the parent", INGRESS, &syn, PASS, &balanced);
    for program in [INGRESS, GUARD] {
        world.expect("at the VLAN", program, &balanced, PASS, &balanced);
    }
    let other = balanced.clone().numbers(2000, 0);
    world.expect("another SYN", GUARD, &other, DROP, &other);
    let other = towards(&balanced, 8001);
    world.expect("another slot", GUARD, &other, DROP, &other);
    assert_eq!(world.live(), [1, 0, 0]);
}
