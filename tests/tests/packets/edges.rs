//! What nearly went wrong: entries that outlive their flow, numbers of earlier connections, fragments.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use orch_common::{
    flow::FlowState,
    layout::program::{INGRESS, VETH},
};
use orch_tests::frame::flag::{ACK, FIN, RST, SYN};

use super::world::{PASS, REDIRECT, Talk, V4, World, service};

#[test]
fn a_sweep_leaves_the_replies_of_another_flow() {
    let mut world = World::direct();
    world.ip("addr add 10.9.0.7/24 dev lo\n");
    world.plane().sync_host().unwrap();
    world.plane().set_ring(0, &[0]).unwrap();
    let one = Talk::new(V4, 40_000);
    let two = one.asking("10.9.0.7:80".parse().unwrap());
    world.opens(&one, 1000, 0);
    world.resets(&one, 1001, 0);
    world.opens(&two, 5000, 0);
    for _ in 0..=FlowState::Closed.patience() {
        world.plane().sweep().unwrap();
    }
    assert!(world.flow(&one).is_none());
    assert!(world.flow(&two).is_some());
    let data = two.answers(0, ACK, 501, 5001).payload(b"x");
    world.comes("reply of the open one", &two, &data);
}

#[test]
fn a_sweep_leaves_the_replies_of_another_flow_to_a_slot() {
    let mut world = World::direct_with(&service(true), 3);
    world.plane().set_ring(0, &[0]).unwrap();
    let one = Talk::new(V4, 40_000);
    let two = one.asking((V4.at)(8000));
    world.opens(&one, 1000, 0);
    world.resets(&one, 1001, 0);
    world.opens(&two, 5000, 0);
    for _ in 0..=FlowState::Closed.patience() {
        world.plane().sweep().unwrap();
    }
    let data = two.answers(0, ACK, 501, 5001).payload(b"x");
    world.comes("reply of the open one", &two, &data);
}

#[test]
fn a_reset_without_ack_refuses_no_syn() {
    let mut world = World::direct();
    world.plane().set_ring(0, &[0]).unwrap();
    let talk = Talk::new(V4, 40_000);
    let syn = talk.says(SYN, 1000, 0);
    world.goes("SYN", &talk, &syn, 0);
    let reset = talk.answers(0, RST, 0x7000_0000, 0);
    let t = world.trial(VETH, &reset);
    println!("bare RST verdict {}", t.verdict);
    println!("{:?} {:?}", world.live(), world.flow(&talk).unwrap().state);
    assert_eq!(
        world.refused(),
        [],
        "RFC 9293, 3.10.7.3: such a segment is dropped"
    );
    assert_eq!(world.live(), [1, 0, 0]);
}

#[test]
fn a_reset_without_ack_refuses_no_syn_over_port() {
    let mut world = World::new();
    let syn = orch_tests::frame::Tcp::new(super::world::client(5000), super::world::at(80), SYN);
    world.arrive(&syn);
    let reset =
        orch_tests::frame::Tcp::new(super::world::at(8000), super::world::client(5000), RST)
            .numbers(0x7000_0000, 0);
    world.leave(&reset);
    assert_eq!(world.refused(), []);
    assert_eq!(world.live(), [1, 0, 0]);
}

#[test]
fn early_data_reaches_an_exposed_slot() {
    let mut world = World::direct_with(&service(true), 3);
    let talk = Talk::new(V4, 40_000).asking((V4.at)(8001));
    let syn = talk.says(SYN, 1000, 0).payload(b"hello");
    world.goes("SYN", &talk, &syn, 1);
    world.comes("SYN-ACK", &talk, &talk.answers(1, SYN | ACK, 500, 1006));
}

#[test]
fn a_first_fragment_back_is_left_alone() {
    let mut world = World::direct();
    world.plane().set_ring(0, &[0]).unwrap();
    let talk = Talk::new(V4, 40_000);
    world.opens(&talk, 1000, 0);
    let mut reply = talk.answers(0, ACK, 501, 1001).payload(&[7; 64]);
    reply.fragment = 0x2000;
    world.expect("first fragment", VETH, &reply, PASS, &reply);
}

#[test]
fn what_was_rescued_from_a_slot_does_not_occupy_it() {
    let mut world = World::direct();
    world.ip("addr add 10.9.0.7/24 dev lo\n");
    world.plane().sync_host().unwrap();
    world.plane().set_ring(0, &[0]).unwrap();
    let one = Talk::new(V4, 40_000);
    let two = one.asking("10.9.0.7:80".parse().unwrap());
    world.goes("SYN", &one, &one.says(SYN, 1000, 0), 0);
    world.plane().set_ring(0, &[1]).unwrap();
    let t = world.trial(VETH, &one.answers(0, RST | ACK, 0, 1001));
    assert_eq!(t.verdict, REDIRECT);
    world.comes("SYN-ACK", &one, &one.answers(1, SYN | ACK, 500, 1001));
    world.direct_slot(0, 1);
    world.plane().set_ring(0, &[0]).unwrap();
    world.opens(&two, 5000, 0);
}

#[test]
fn a_closed_flow_is_not_reopened_by_its_own_late_syn_ack() {
    // old backend's bare RST closes; then the true SYN-ACK comes
    let mut world = World::direct();
    world.plane().set_ring(0, &[0]).unwrap();
    let talk = Talk::new(V4, 40_000);
    let syn = talk.says(SYN, 1000, 0);
    world.goes("SYN", &talk, &syn, 0);
    world.trial(VETH, &talk.answers(0, RST, 0x7000_0000, 0));
    world.comes("SYN-ACK", &talk, &talk.answers(0, SYN | ACK, 500, 1001));
    world.goes("ACK", &talk, &talk.says(ACK, 1001, 501), 0);
    let _ = (FIN, INGRESS);
    assert_eq!(world.live(), [1, 0, 0], "an open connection");
}

#[test]
fn a_late_segment_of_an_earlier_connection_moves_no_numbers() {
    let mut world = World::direct();
    world.plane().set_ring(0, &[0]).unwrap();
    let talk = Talk::new(V4, 40_000);
    world.goes("SYN", &talk, &talk.says(SYN, 1000, 0), 0);
    world.goes(
        "late",
        &talk,
        &talk.says(ACK, 0x4000_0000, 7).payload(b"old"),
        0,
    );
    world.comes("SYN-ACK", &talk, &talk.answers(0, SYN | ACK, 500, 1001));
    world.goes("ACK", &talk, &talk.says(ACK, 1001, 501), 0);
    world.goes(
        "request",
        &talk,
        &talk
            .says(ACK, 1001, 501)
            .payload(b"GET /api/x HTTP/1.1\r\n\r\n"),
        0,
    );
    let counted = world.plane().read().unwrap().slots[0].counters.requests;
    println!("requests counted: {counted}");
    world.resets(&talk, 1024, 0);
    println!("live after the client's RST: {:?}", world.live());
    assert_eq!((counted, world.live()), (1, vec![0, 0, 0]));
}
