//! Rescue: the RST by which a backend refuses a SYN becomes the client's SYN for another backend.

use orch_common::{counter::Reason, flow::FlowState, layout::program::VETH};
use orch_tests::frame::{
    Tcp,
    flag::{ACK, FIN, RST, SYN},
};

use super::world::{
    DROP, Family, PASS, REDIRECT, Talk, V4, V6, World, destination_options, service, slot,
};

const FAMILIES: [Family; 2] = [V4, V6];

/// The SYN that a second backend must get: the client's own, behind a plain IP header.
fn rescued(talk: &Talk, syn: &Tcp, slot: u16) -> Tcp {
    Tcp {
        to: (talk.family.backend)(slot),
        ip_options: Vec::new(),
        extensions: Vec::new(),
        payload: Vec::new(),
        padding: 0,
        fragment: 0x4000,
        id: 0,
        ..syn.clone()
    }
}

/// A backend's refusal of a SYN, as the kernel writes it.
fn refusal(talk: &Talk, slot: u16, syn: &Tcp) -> Tcp {
    let ack = syn.seq.wrapping_add(1 + syn.payload.len() as u32);
    talk.answers(slot, RST | ACK, 0, ack)
}

/// Has the slot 0 refuse a SYN and slot 1 take it; the client then gives up.
#[track_caller]
fn passes_on(world: &mut World, what: &str, talk: &Talk, syn: &Tcp) {
    world.plane().set_ring(0, &[0]).unwrap();
    world.goes(what, talk, syn, 0);
    world.plane().set_ring(0, &[1]).unwrap();
    let refusal = refusal(talk, 0, syn);
    world.expect(what, VETH, &refusal, REDIRECT, &rescued(talk, syn, 1));
    if syn.payload.is_empty() {
        world.expect("refused again", VETH, &refusal, DROP, &refusal);
    }
    assert_eq!(world.live(), [0, 1, 0]);
    let next = syn.seq.wrapping_add(1);
    let answer = talk.answers(1, SYN | ACK, 500, next);
    world.comes(what, talk, &answer);
    world.goes(what, talk, &talk.says(ACK, next, 501), 1);
    world.resets(talk, next, 1);
    assert_eq!(world.live(), [0, 0, 0]);
    world.direct_slot(0, 1);
}

#[test]
fn the_second_backend_gets_the_syn_of_the_client() {
    const ECN: u8 = 0xc0;
    let mut world = World::direct();
    let mut port = 10_000;
    for family in FAMILIES {
        for options in [0, 4, 20, 36, 40] {
            for (flags, reserved, tos) in [
                (SYN, 0, 0),
                (SYN | ECN, 0, 2),
                (SYN | ECN, 1, 0xb8),
                (SYN, 0xe, 0xff),
            ] {
                for (seq, window) in [(0, 0), (1000, 0x2000), (u32::MAX, u16::MAX)] {
                    port += 1;
                    let talk = Talk::new(family, port);
                    let mut syn = talk.says(flags, seq, port.into());
                    syn.options = (0..options).map(|at| 0x60 + at).collect();
                    (syn.reserved, syn.tos, syn.window) = (reserved, tos, window);
                    syn.urgent = port;
                    let what = format!("{talk:?}, {options} bytes of options, flags {flags:#x}");
                    passes_on(&mut world, &what, &talk, &syn);
                }
            }
        }
    }
    assert_eq!(world.reason(Reason::Rescued), u64::from(port - 10_000));
    assert_eq!(world.reason(Reason::Malformed), 0);
}

#[test]
fn what_the_link_and_ip_added_to_the_syn_is_left_out() {
    let mut world = World::direct();
    for family in FAMILIES {
        let talk = Talk::new(family, 40_000);
        let mut syn = talk.says(SYN, 1000, 0);
        syn.padding = 6;
        passes_on(&mut world, "padding", &talk, &syn);
        syn.seq = 900_000;
        syn.ip_options = vec![1; 40];
        syn.extensions = vec![destination_options(); 3];
        syn.options = vec![1; 40];
        passes_on(&mut world, "IP options", &talk, &syn);
    }
}

#[test]
fn data_that_came_with_the_syn_is_left_to_the_client() {
    let mut world = World::direct();
    for family in FAMILIES {
        for (at, options) in [0_u16, 12, 40].into_iter().enumerate() {
            let talk = Talk::new(family, 45_000 + at as u16);
            let mut syn = talk.says(SYN, 1000, 0).payload(b"some early data");
            syn.options = vec![1; options.into()];
            passes_on(&mut world, "all acknowledged", &talk, &syn);
            // A backend that does not take data with a SYN acknowledges the SYN alone.
            syn.seq = 900_000;
            world.plane().set_ring(0, &[0]).unwrap();
            world.goes("SYN", &talk, &syn, 0);
            world.plane().set_ring(0, &[1]).unwrap();
            let alone = talk.answers(0, RST | ACK, 0, 900_001);
            let output = rescued(&talk, &syn, 1);
            world.expect("the SYN alone", VETH, &alone, REDIRECT, &output);
            let too_much = talk.answers(1, SYN | ACK, 500, 900_016);
            world.expect("never sent there", VETH, &too_much, PASS, &too_much);
            world.comes("SYN-ACK", &talk, &talk.answers(1, SYN | ACK, 500, 900_001));
            let data = talk.says(ACK, 900_001, 501).payload(b"some early data");
            world.goes("again", &talk, &data, 1);
            world.resets(&talk, 900_016, 1);
            world.direct_slot(0, 1);
        }
    }
    assert_eq!(world.live(), [0, 0, 0]);
}

#[test]
fn after_three_moves_the_client_hears_the_refusal() {
    const SLOTS: u16 = 5;
    let mut world = World::direct_with(&service(false), SLOTS);
    let mut turn = 0;
    let mut connections = vec![0; usize::from(SLOTS)];
    for family in FAMILIES {
        let talk = Talk::new(family, 40_000);
        let syn = talk.says(SYN, 1000, 0);
        world.goes("SYN", &talk, &syn, turn % SLOTS);
        let mut told = Vec::new();
        for step in 0..4 {
            let at = turn % SLOTS;
            told.push((slot(at), 1));
            connections[usize::from(at)] += 1;
            let refusal = refusal(&talk, at, &syn);
            turn += 1;
            if step < 3 {
                let output = rescued(&talk, &syn, turn % SLOTS);
                world.expect("moved", VETH, &refusal, REDIRECT, &output);
                assert_eq!(world.live().iter().sum::<u64>(), 1);
            } else {
                world.comes("heard", &talk, &refusal);
            }
        }
        assert_eq!(world.live(), [0; SLOTS as usize]);
        assert_eq!(world.connections(), connections);
        assert_eq!(world.refused(), told, "each is told once");
        assert_eq!(world.flow(&talk).unwrap().state, FlowState::Closed);
        for number in 0..SLOTS {
            world.direct_slot(number, 1);
        }
    }
    assert_eq!(world.reason(Reason::Rescued), 6);
}

#[test]
fn a_refusal_with_wrong_numbers_is_somebody_elses() {
    let mut world = World::direct();
    for family in FAMILIES {
        let talk = Talk::new(family, 40_000);
        let syn = talk.says(SYN, 1000, 0);
        world.plane().set_ring(0, &[0]).unwrap();
        world.goes("SYN", &talk, &syn, 0);
        world.plane().set_ring(0, &[1]).unwrap();
        for ack in [0, 999, 1000, 1002, 0x8000_03e9, u32::MAX] {
            let other = talk.answers(0, RST | ACK, 0, ack);
            world.expect("acknowledges else", VETH, &other, PASS, &other);
        }
        assert_eq!(world.flow(&talk).unwrap().state, FlowState::SynSent);
        assert_eq!(world.live(), [1, 0, 0]);
        assert_eq!(world.refused(), []);
        let refusal = refusal(&talk, 0, &syn);
        let output = rescued(&talk, &syn, 1);
        world.expect("its own", VETH, &refusal, REDIRECT, &output);
        assert_eq!(world.refused().len(), 1);
        world.resets(&talk, 1001, 1);
        world.direct_slot(0, 1);
    }
    assert_eq!(world.reason(Reason::Stale), 12);
    assert_eq!(world.live(), [0, 0, 0]);
}

#[test]
fn what_is_more_than_a_refusal_reaches_the_client() {
    let mut world = World::direct();
    for family in FAMILIES {
        for case in 0..5 {
            let talk = Talk::new(family, 46_000 + case);
            let syn = talk.says(SYN, 1000, 0);
            world.plane().set_ring(0, &[0]).unwrap();
            world.goes("SYN", &talk, &syn, 0);
            // With another backend at hand, but for the last case.
            world.plane().set_ring(0, &[1]).unwrap();
            let mut refusal = refusal(&talk, 0, &syn);
            let mut early = true;
            match case {
                0 => refusal.payload = b"go away".to_vec(),
                1 => {
                    refusal.ip_options = vec![1; 4];
                    refusal.extensions = vec![destination_options()];
                }
                2 => refusal.options = vec![1; 4],
                3 => {
                    let answer = talk.answers(0, SYN | ACK, 500, 1001);
                    world.comes("SYN-ACK", &talk, &answer);
                    refusal.seq = 501;
                    early = false;
                }
                _ => world.plane().set_ring(0, &[0]).unwrap(),
            }
            world.comes(&format!("case {case}"), &talk, &refusal);
            assert_eq!(world.flow(&talk).unwrap().state, FlowState::Closed);
            assert_eq!(world.live(), [0, 0, 0], "case {case}");
            let told = world.refused();
            assert_eq!(told.len(), usize::from(early), "case {case}");
            world.direct_slot(0, 1);
        }
    }
    assert_eq!(world.reason(Reason::Rescued), 0);
}

#[test]
fn a_slot_port_is_its_own_backends() {
    let mut world = World::direct_with(&service(true), 3);
    for family in FAMILIES {
        let talk = Talk::new(family, 40_000).asking((family.at)(8001));
        let syn = talk.says(SYN, 1000, 0);
        world.goes("SYN", &talk, &syn, 1);
        world.comes("refused", &talk, &refusal(&talk, 1, &syn));
        assert_eq!(world.live(), [0, 0, 0]);
    }
    assert_eq!(world.reason(Reason::Rescued), 0);
}

#[test]
fn the_dead_are_passed_by_until_all_are() {
    let mut world = World::direct();
    let mut turn = 0_u16;
    for family in FAMILIES {
        world.plane().set_ring(0, &[1]).unwrap();
        let down = Talk::new(family, 40_000);
        let syn = down.says(SYN, 1000, 0);
        world.goes("SYN", &down, &syn, 1);
        world.comes("refused", &down, &refusal(&down, 1, &syn));
        // One turn for the SYN, and eight in search of another slot.
        turn += 1 + 8;
        world.plane().set_ring(0, &[0, 1, 2]).unwrap();
        let passed = world.reason(Reason::PassedBy);
        let mut expected = 0;
        for number in 0..12 {
            if turn % 3 == 1 {
                expected += 1;
                turn += 1;
            }
            let talk = Talk::new(family, 47_000 + number);
            world.opens(&talk, 1000, turn % 3);
            turn += 1;
        }
        assert_eq!(world.reason(Reason::PassedBy), passed + expected);
        assert_eq!(world.live(), [6, 0, 6]);
        for number in 0..12 {
            let client = Talk::new(family, 47_000 + number);
            world.arrive(&client.says(RST, 1001, 0));
        }
        // Everybody refuses.
        for number in [0, 2] {
            world.plane().set_ring(0, &[number]).unwrap();
            let talk = Talk::new(family, 48_000 + number);
            let syn = talk.says(SYN, 1000, 0);
            world.goes("SYN", &talk, &syn, number);
            world.comes("refused", &talk, &refusal(&talk, number, &syn));
            turn += 1 + 8;
        }
        world.plane().set_ring(0, &[0, 1, 2]).unwrap();
        let passed = world.reason(Reason::PassedBy);
        turn += 7;
        world.opens(&Talk::new(family, 49_000), 1000, turn % 3);
        world.resets(&Talk::new(family, 49_000), 1001, turn % 3);
        turn += 1;
        assert_eq!(world.reason(Reason::PassedBy), passed + 7);
        assert_eq!(world.live(), [0, 0, 0]);
        for number in 0..3 {
            world.direct_slot(number, 1);
        }
    }
}

/// The order of turns, as a person would keep it.
struct Turns {
    taken: usize,
    alive: [bool; 3],
}

impl Turns {
    /// Whose turn it is. `None` after eight tries.
    fn next(&mut self, but: Option<u16>) -> Option<u16> {
        for left in (0..8).rev() {
            let at = self.taken % 3;
            self.taken += 1;
            if (self.alive[at] || left == 0) && but != Some(at as u16) {
                return Some(at as u16);
            }
        }
        None
    }
}

#[test]
fn turns_stay_exact() {
    let mut world = World::direct();
    let mut turns = Turns {
        taken: 0,
        alive: [true; 3],
    };
    let (mut given, mut rescues, mut dice) = ([0; 3], 0, 7_u32);
    let mut roll = |sides: u32| {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (dice >> 16) % sides
    };
    for number in 0..3000 {
        let talk = Talk::new(FAMILIES[number % 2], 1000 + number as u16);
        let syn = talk.says(SYN, 1000, 0);
        let mut at = turns.next(None).unwrap();
        given[usize::from(at)] += 1;
        world.goes("SYN", &talk, &syn, at);
        if roll(3) == 0 {
            world.goes("SYN again", &talk, &syn, at);
        }
        let (mut moves, mut open) = (0, true);
        while roll(4) == 0 && open {
            let refusal = refusal(&talk, at, &syn);
            turns.alive[usize::from(at)] = false;
            let other = (moves < 3).then(|| turns.next(Some(at))).flatten();
            if let Some(other) = other {
                let output = rescued(&talk, &syn, other);
                world.expect("rescued", VETH, &refusal, REDIRECT, &output);
                given[usize::from(other)] += 1;
                (at, moves, rescues) = (other, moves + 1, rescues + 1);
            } else {
                world.comes("heard", &talk, &refusal);
                open = false;
            }
        }
        if open {
            let answer = talk.answers(at, SYN | ACK, 500, 1001);
            world.comes("SYN-ACK", &talk, &answer);
            world.goes("FIN", &talk, &talk.says(FIN | ACK, 1001, 501), at);
            world.comes("FIN", &talk, &talk.answers(at, FIN | ACK, 501, 1002));
        }
        if roll(2) == 0 {
            for number in 0..3 {
                world.direct_slot(number, 1);
            }
            turns.alive = [true; 3];
        }
    }
    assert_eq!(world.live(), [0, 0, 0]);
    assert_eq!(world.connections(), given);
    assert_eq!(world.reason(Reason::Rescued), rescues);
    assert!(rescues > 500, "{rescues}");
}
