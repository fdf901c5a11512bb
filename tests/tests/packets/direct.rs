//! Delivery `direct`: a client's packets go to the backend's own address, and the backend's come
//! back as from the host. What is redirected has its verdict and its bytes here; where it ends up
//! is in the tests with real namespaces.

use nix::net::if_::if_nametoindex;
use orch_common::{
    counter::Reason,
    event::EventKind,
    flow::FlowState,
    layout::program::{GUARD, INGRESS, VETH},
};
use orch_tests::{
    frame::{
        Tcp,
        flag::{ACK, FIN, PSH, RST, SYN},
    },
    wait::until,
};

use super::world::{
    DROP, Family, PASS, REDIRECT, Talk, V4, V6, World, destination_options, sent_to, service, slot,
};

/// The families, and a slot for each.
pub(crate) const FAMILIES: [(Family, u16); 2] = [(V4, 0), (V6, 2)];

#[test]
fn a_connection_from_syn_to_fin() {
    let mut world = World::direct();
    for (family, number) in FAMILIES {
        world.plane().set_ring(0, &[number]).unwrap();
        let talk = Talk::new(family, 40_000);
        let syn = talk.says(SYN, 1000, 0);
        world.goes("SYN", &talk, &syn, number);
        world.plane().set_ring(0, &[1]).unwrap();
        world.goes("SYN again", &talk, &syn, number);
        let answer = talk.answers(number, SYN | ACK, 500, 1001);
        world.comes("SYN-ACK", &talk, &answer);
        world.comes("SYN-ACK again", &talk, &answer);
        world.goes("ACK", &talk, &talk.says(ACK, 1001, 501), number);
        let flow = world.flow(&talk).unwrap();
        let device = format!("h{number}");
        assert_eq!(flow.state, FlowState::Established);
        assert_eq!(flow.ifindex, if_nametoindex(device.as_str()).unwrap());
        let request = talk.says(ACK | PSH, 1001, 501);
        let request = request.payload(b"GET /api/x HTTP/1.1\r\n\r\n");
        world.goes("request", &talk, &request, number);
        world.goes("request again", &talk, &request, number);
        let response = talk.answers(number, ACK | PSH, 501, 1024);
        let response = response.payload(b"HTTP/1.1 200 OK\r\n\r\n");
        world.comes("response", &talk, &response);
        let fin = talk.answers(number, FIN | ACK, 520, 1024);
        world.comes("FIN of the backend", &talk, &fin);
        assert_eq!(world.live()[usize::from(number)], 1);
        let fin = talk.says(FIN | ACK, 1024, 521);
        world.goes("FIN of the client", &talk, &fin, number);
        assert_eq!(world.live(), [0, 0, 0]);
        let last = talk.answers(number, ACK, 521, 1025);
        world.comes("last ACK", &talk, &last);
        world.goes("FIN again", &talk, &fin, number);
        assert_eq!(world.live(), [0, 0, 0]);
        let reading = world.plane().read().unwrap();
        let counted = &reading.slots[usize::from(number)];
        assert_eq!((counted.connections, counted.counters.requests), (1, 1));
        assert_eq!(counted.counters.responses, [0, 0, 1, 0, 0, 0]);
    }
    assert_eq!(world.reason(Reason::NewFlow), 2);
    assert_eq!(world.reason(Reason::SynAgain), 2);
}

#[test]
fn every_way_to_close_brings_the_count_to_0() {
    let mut world = World::direct();
    for (family, number) in FAMILIES {
        world.plane().set_ring(0, &[number]).unwrap();
        for case in 0..5 {
            let talk = Talk::new(family, 41_000 + case);
            world.opens(&talk, 1000, number);
            assert_eq!(world.live()[usize::from(number)], 1);
            let client = |flags| talk.says(flags, 1001, 501);
            let server = |flags| talk.answers(number, flags, 501, 1001);
            match case {
                0 => world.goes("RST", &talk, &client(RST), number),
                1 => world.goes("RST-ACK", &talk, &client(RST | ACK), number),
                2 => world.comes("RST", &talk, &server(RST)),
                3 => world.comes("RST-ACK", &talk, &server(RST | ACK)),
                _ => {
                    world.goes("FIN", &talk, &client(FIN | ACK), number);
                    world.comes("FIN", &talk, &server(FIN | ACK));
                }
            }
            assert_eq!(world.live(), [0, 0, 0], "case {case}");
            world.opens(&talk, 900_000, number);
            let blind = talk.answers(number, RST, 0x7000_0000, 0);
            world.comes("a blind RST", &talk, &blind);
            assert_eq!(world.live()[usize::from(number)], 1);
            world.resets(&talk, 900_001, number);
        }
    }
    assert_eq!(world.live(), [0, 0, 0]);
    assert_eq!(world.reason(Reason::Reopened), 10);
}

#[test]
fn replies_leave_by_the_route_to_the_client() {
    let mut world = World::direct();
    world.ip("link set br0 up\n\
         route add 10.9.0.2/32 dev br0\n\
         route add fd09::2/128 dev br0\n");
    world.sysctl("net.ipv4.ip_forward", "1");
    world.sysctl("net.ipv6.conf.all.forwarding", "1");
    for (family, _) in FAMILIES {
        let talk = Talk::new(family, 40_000);
        let there = world.arrive(&talk.says(SYN, 1000, 0));
        assert_eq!(there.verdict, REDIRECT);
        let uplink = world.flow(&talk).unwrap().uplink;
        assert_eq!(uplink, if_nametoindex("br0").unwrap(), "{talk:?}");
    }
}

#[test]
fn an_answer_to_another_syn_begins_anew_or_is_left_alone() {
    let mut world = World::direct();
    world.plane().set_ring(0, &[1]).unwrap();
    for (family, _) in FAMILIES {
        let talk = Talk::new(family, 40_000);
        world.opens(&talk, 1000, 1);
        let other = talk.answers(1, SYN | ACK, 7, 77_777);
        world.comes("SYN-ACK to another SYN", &talk, &other);
        assert_eq!(
            world.flow(&talk).unwrap().isn,
            77_776,
            "it has lost the first"
        );
        assert_eq!(world.live(), [0, 1, 0]);
        world.resets(&talk, 77_777, 1);
        let stale = world.reason(Reason::Stale);
        let other = talk.answers(1, SYN | ACK, 7, 99_999);
        world.expect("SYN-ACK past the balancer", VETH, &other, PASS, &other);
        assert_eq!(world.reason(Reason::Stale), stale + 1);
        assert!(world.flow(&talk).is_none(), "a closed one is forgotten");
        let data = talk.answers(1, ACK, 8, 77_777).payload(b"x");
        world.expect("and what follows", VETH, &data, PASS, &data);
        assert_eq!(world.reason(Reason::Stale), stale + 1, "nobody knows it");
        assert_eq!(world.live(), [0, 0, 0]);
    }
}

/// What a backend says that a connection was taken from must not reach the client.
fn is_late(world: &mut World, talk: &Talk, from: u16) {
    for flags in [SYN | ACK, RST | ACK] {
        let late = talk.answers(from, flags, 500, 1001);
        world.expect("late", VETH, &late, DROP, &late);
        let other = talk.answers(from, flags, 500, 77_777);
        world.expect("past the balancer", VETH, &other, PASS, &other);
    }
    let data = talk.answers(from, ACK, 501, 77_777).payload(b"x");
    world.expect("past the balancer", VETH, &data, PASS, &data);
}

#[test]
fn a_syn_that_comes_again_goes_to_another_backend_if_there_is_one() {
    let mut world = World::direct();
    for (family, silent) in FAMILIES {
        world.plane().set_ring(0, &[silent]).unwrap();
        let syns: Vec<_> = (40_000..40_008)
            .map(|port| Talk::new(family, port).says(SYN, 1000, 0))
            .collect();
        for syn in &syns {
            assert_eq!(world.arrive(syn).verdict, REDIRECT);
        }
        let again = |world: &mut World, syn: &Tcp| {
            let moved = world.reason(Reason::Moved);
            until("the SYN is judged anew", || {
                let trial = world.arrive(syn);
                (world.reason(Reason::Moved) > moved).then_some(trial.frame)
            })
        };
        let to_silent = |syn: &Tcp| sent_to(syn, (family.backend)(silent)).frame();
        world.plane().set_ring(0, &[0, 1, 2]).unwrap();
        for syn in &syns[1..] {
            assert_ne!(again(&mut world, syn), to_silent(syn), "{family:?}");
        }
        world.plane().set_ring(0, &[silent]).unwrap();
        assert_eq!(again(&mut world, &syns[0]), to_silent(&syns[0]));
    }
}

#[test]
fn a_silent_backend_that_lost_its_syn_is_not_heard() {
    let mut world = World::direct();
    for (family, number) in FAMILIES {
        world.plane().set_ring(0, &[number]).unwrap();
        let talk = Talk::new(family, 40_000);
        let syn = talk.says(SYN, 1000, 0);
        world.goes("SYN", &talk, &syn, number);
        world.plane().set_ring(0, &[1]).unwrap();
        let moved = world.reason(Reason::Moved);
        let second = until("the SYN goes to another backend", || {
            let trial = world.arrive(&syn);
            (world.reason(Reason::Moved) > moved).then_some(trial)
        });
        assert_eq!(second.verdict, REDIRECT);
        assert_eq!(
            second.frame,
            sent_to(&syn, (family.backend)(1)).frame(),
            "{family:?}"
        );
        assert_eq!(world.live(), [0, 1, 0]);
        let flow = world.flow(&talk).unwrap();
        is_late(&mut world, &talk, number);
        let answer = talk.answers(1, SYN | ACK, 9, 1001);
        world.comes("SYN-ACK of the other", &talk, &answer);
        is_late(&mut world, &talk, number);
        assert_eq!(world.flow(&talk).unwrap().isn, flow.isn);
        world.resets(&talk, 1001, 1);
        assert_eq!(world.live(), [0, 0, 0]);
    }
    assert_eq!(world.refused(), [], "a late refusal says nothing");
}

#[test]
fn flows_of_a_removed_backend_are_dead() {
    let mut world = World::direct();
    for ((family, removed), generation) in [(V4, 1), (V6, 2)].into_iter().zip(2..) {
        let (one, two) = (Talk::new(family, 5000), Talk::new(family, 5001));
        world.plane().set_ring(0, &[0]).unwrap();
        world.opens(&one, 1000, 0);
        world.plane().set_ring(0, &[removed]).unwrap();
        world.opens(&two, 1000, removed);
        world.direct_slot(0, generation);
        world.plane().remove_slot(slot(removed)).unwrap();
        let dead = world.reason(Reason::DeadBackend);
        for (what, talk) in [("replaced", one), ("removed", two)] {
            let data = talk.says(ACK, 1001, 501).payload(b"x");
            for _ in 0..2 {
                world.expect(what, INGRESS, &data, PASS, &data);
            }
        }
        assert_eq!(world.reason(Reason::DeadBackend), dead + 4);
        world.plane().set_ring(0, &[0]).unwrap();
        world.opens(&one, 900_000, 0);
        world.resets(&one, 900_001, 0);
    }
    assert_eq!(world.live(), [0]);
}

#[test]
fn options_of_every_length_are_kept() {
    let mut world = World::direct();
    world.plane().set_ring(0, &[0]).unwrap();
    for (family, _) in FAMILIES {
        for length in 0..=10 {
            let talk = Talk::new(family, 42_000 + length);
            let bytes: Vec<u8> = (0..4 * length).map(|at| 0x40 + at as u8).collect();
            let with = |tcp: Tcp, ip: &[u8], tcp_options: &[u8]| {
                let mut tcp = tcp;
                tcp.options = tcp_options.to_vec();
                if tcp.from.is_ipv4() {
                    tcp.ip_options = ip.to_vec();
                } else {
                    tcp.extensions = vec![destination_options(); usize::from(length).min(6)];
                }
                tcp
            };
            let syn = with(talk.says(SYN, 1000, 0), &bytes, &bytes);
            world.goes("SYN", &talk, &syn, 0);
            let answer = with(talk.answers(0, SYN | ACK, 500, 1001), &bytes, &bytes);
            world.comes("SYN-ACK", &talk, &answer);
            for (ip, tcp) in [(&bytes[..], &[][..]), (&[], &bytes)] {
                let mut data = with(talk.says(ACK, 1001, 501).payload(b"odd"), ip, tcp);
                data.padding = 7;
                data.tos = 0xb8;
                world.goes("data", &talk, &data, 0);
                let mut data = with(talk.answers(0, ACK, 501, 1001).payload(b"odd"), ip, tcp);
                data.padding = 7;
                data.fragment = 0x4000;
                world.comes("data", &talk, &data);
            }
        }
    }
}

#[test]
fn one_client_port_to_two_addresses_of_the_host() {
    let mut world = World::direct();
    world.ip("addr add 10.9.0.7/24 dev lo\naddr add fd09::7/64 dev lo nodad\n");
    world.plane().sync_host().unwrap();
    for (family, second) in [(V4, "10.9.0.7:80"), (V6, "[fd09::7]:80")] {
        world.plane().set_ring(0, &[0]).unwrap();
        let one = Talk::new(family, 40_000);
        let two = one.asking(second.parse().unwrap());
        world.opens(&one, 1000, 0);
        let syn = two.says(SYN, 5000, 0);
        let collisions = world.reason(Reason::Collision);
        world.expect("no other backend", INGRESS, &syn, DROP, &syn);
        assert_eq!(world.reason(Reason::Collision), collisions + 1);
        world.plane().set_ring(0, &[0, 0, 0, 1]).unwrap();
        world.opens(&two, 5000, 1);
        for (talk, number, next) in [(one, 0, 1001), (two, 1, 5001)] {
            let data = talk.says(ACK, next, 501).payload(b"x");
            world.goes("data", &talk, &data, number);
            let data = talk.answers(number, ACK, 501, next).payload(b"x");
            world.comes("data", &talk, &data);
        }
        world.resets(&one, 1002, 0);
        world.resets(&two, 5002, 1);
        world.plane().set_ring(0, &[0]).unwrap();
        world.opens(&two, 90_000, 0);
        world.resets(&two, 90_001, 0);
        assert_eq!(world.live(), [0, 0, 0]);
    }
}

#[test]
fn exposed_slot_ports_lead_to_their_backend() {
    let mut world = World::direct_with(&service(true), 3);
    for (family, _) in FAMILIES {
        for number in 0..3 {
            let talk = Talk::new(family, 40_000).asking((family.at)(8000 + number));
            world.opens(&talk, 1000, number);
            let data = talk.says(ACK, 1001, 501);
            let data = data.payload(b"GET /api/x HTTP/1.1\r\n\r\n");
            world.goes("request", &talk, &data, number);
            let data = talk.answers(number, ACK, 501, 1024);
            let data = data.payload(b"HTTP/1.1 200 OK\r\n\r\n");
            world.comes("response", &talk, &data);
        }
        assert_eq!(world.live(), [1, 1, 1]);
        let balanced = Talk::new(family, 40_000);
        let syn = balanced.says(SYN, 7000, 0);
        world.expect("every slot is taken", INGRESS, &syn, DROP, &syn);
        let free = Talk::new(family, 40_000).asking((family.at)(8001));
        world.goes("FIN", &free, &free.says(FIN | ACK, 1024, 520), 1);
        world.comes("FIN", &free, &free.answers(1, FIN | ACK, 520, 1025));
        assert_eq!(world.live(), [1, 0, 1]);
        world.opens(&balanced, 7000, 1);
        let syn = free.says(SYN, 9000, 0);
        world.expect("the balanced one has it", INGRESS, &syn, DROP, &syn);
        world.resets(&balanced, 7001, 1);
        for number in [0, 2] {
            let talk = free.asking((family.at)(8000 + number));
            world.resets(&talk, 1024, number);
        }
        let beyond = free.asking((family.at)(8003)).says(SYN, 1000, 0);
        world.expect("no such slot", INGRESS, &beyond, PASS, &beyond);
        assert_eq!(world.live(), [0, 0, 0]);
    }
    let slots = world.plane().read().unwrap().slots;
    assert!(slots.iter().all(|slot| slot.counters.requests == 0));
}

#[test]
fn outsiders_stay_off_slot_ports() {
    let mut world = World::direct();
    for (family, number) in FAMILIES {
        let talk = Talk::new(family, 40_000).asking((family.at)(8000 + number));
        let mut first = talk.says(SYN, 1000, 0).payload(&[7; 64]);
        first.fragment = 0x2000;
        first.extensions = vec![(44, vec![0, 0, 1, 0, 0, 0, 9])];
        let later = talk.says(ACK, 1001, 501);
        for program in [INGRESS, GUARD] {
            let syn = talk.says(SYN, 1000, 0);
            world.expect("SYN", program, &syn, DROP, &syn);
            world.expect("first fragment", program, &first, DROP, &first);
            world.expect("no SYN", program, &later, PASS, &later);
        }
        // Nor at the backend's own port, if the host is asked.
        let talk = talk.asking((family.at)(8080)).says(SYN, 1000, 0);
        world.expect("the backend's port", INGRESS, &talk, PASS, &talk);
    }
    assert_eq!(world.reason(Reason::SlotGuard), 8);
    assert_eq!(world.connections(), [0, 0, 0]);
}

#[test]
fn a_backend_whose_interface_is_gone_is_passed_by() {
    let mut world = World::direct();
    world.ip("link del h1\n");
    for turn in 0..6 {
        let family = FAMILIES[usize::from(turn % 2)].0;
        let talk = Talk::new(family, 43_000 + turn);
        world.opens(&talk, 1000, 2 * (turn % 2));
    }
    assert_eq!(world.reason(Reason::PassedBy), 3);
    assert_eq!(world.live(), [3, 0, 3]);
    let told = world.plane().alarms();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].kind, told[0].slot.slot), (EventKind::Refused, 1));
    world.plane().set_ring(0, &[1]).unwrap();
    let syn = Talk::new(V4, 44_000).says(SYN, 1000, 0);
    assert_eq!(world.arrive(&syn).verdict, DROP, "the client asks again");
}

/// What was given to a backend just before its interface went is lost, and arrives once more.
#[test]
fn what_has_gone_to_a_vanished_interface_arrives_again() {
    let mut world = World::direct();
    let lost = Talk::new(V4, 45_000);
    world.plane().set_ring(0, &[1]).unwrap();
    let syn = lost.says(SYN, 1000, 0);
    world.goes("SYN", &lost, &syn, 1);
    world.plane().set_ring(0, &[0, 1]).unwrap();
    world.ip("link del h1\n");
    // One of two has its turn.
    for port in [46_000, 46_001] {
        world.opens(&Talk::new(V4, port), 1000, 0);
    }
    until("nobody can be about to answer it", || {
        (world.plane().replay().unwrap() == 1).then_some(())
    });
    assert_eq!(world.plane().held().len(), 1);
    world.goes("SYN again", &lost, &syn, 0);
}
