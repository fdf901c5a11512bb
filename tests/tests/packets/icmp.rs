//! ICMP errors about what a backend sent: they must reach it, and fit its own connection.

use std::net::{IpAddr, SocketAddr};

use orch_common::{counter::Reason, layout::program::INGRESS};
use orch_tests::frame::{
    Icmp, Tcp,
    flag::{ACK, PSH, SYN},
    summed_v4,
};

use super::world::{
    Family, PASS, REDIRECT, Talk, V4, V6, World, at, client, coming_from, sent_from,
};

/// What a router says: unreachable, too large, time exceeded, parameter problem.
const V4_KINDS: [(u8, u8); 5] = [(3, 1), (3, 4), (11, 0), (12, 0), (3, 13)];
const V6_KINDS: [(u8, u8); 4] = [(1, 0), (2, 0), (3, 0), (4, 1)];

fn router(family: Family) -> IpAddr {
    if (family.client)(1).is_ipv4() {
        IpAddr::from([10, 77, 0, 1])
    } else {
        "fd77::1".parse().unwrap()
    }
}

/// The beginning of a packet from its IP header on.
fn quoted(tcp: &Tcp, bytes: usize) -> Vec<u8> {
    let frame = tcp.frame();
    frame[14..frame.len().min(14 + bytes)].to_vec()
}

/// The same as another end would have sent it, but for its TCP checksum, which is left alone.
fn quoted_as_from(tcp: &Tcp, from: SocketAddr, bytes: usize) -> Vec<u8> {
    let mut quote = quoted(tcp, bytes);
    let tcp_at = match from.ip() {
        IpAddr::V4(ip) => {
            quote[12..16].copy_from_slice(&ip.octets());
            summed_v4(&mut quote);
            20
        }
        IpAddr::V6(ip) => {
            quote[8..24].copy_from_slice(&ip.octets());
            40
        }
    };
    quote[tcp_at..tcp_at + 2].copy_from_slice(&from.port().to_be_bytes());
    quote
}

#[test]
fn an_error_reaches_the_backend_whose_reply_it_quotes() {
    let mut world = World::direct();
    let mut seen = 0;
    for (family, number, kinds) in [(V4, 0, &V4_KINDS[..]), (V6, 2, &V6_KINDS[..])] {
        world.plane().set_ring(0, &[number]).unwrap();
        let talk = Talk::new(family, 40_000);
        world.opens(&talk, 1000, number);
        let backend = (family.backend)(number);
        let data = talk
            .answers(number, ACK | PSH, 501, 1001)
            .payload(&[7; 300]);
        let reply = sent_from(&data, talk.asked);
        for kind in kinds {
            for bytes in [48, 60, 61, 200, 500] {
                let error = Icmp {
                    from: router(family),
                    to: talk.asked.ip(),
                    kind: *kind,
                    rest: 1200,
                    quote: quoted(&reply, bytes),
                };
                let expected = Icmp {
                    to: backend.ip(),
                    quote: quoted_as_from(&reply, backend, bytes),
                    ..error.clone()
                };
                let what = format!("{kind:?}, {bytes} bytes quoted");
                world.expect_frame(&what, INGRESS, &error.frame(), REDIRECT, &expected.frame());
                seen += 1;
            }
        }
    }
    assert_eq!(world.reason(Reason::Icmp), seen);
}

#[test]
fn an_error_over_port_names_the_slot_s_port() {
    let mut world = World::new();
    let slot_port = world.connect(5000, 1000);
    let reply = Tcp::new(at(slot_port), client(5000), ACK).numbers(501, 1001);
    let reply = coming_from(&reply, 80);
    let error = Icmp {
        from: router(V4),
        to: at(80).ip(),
        kind: (3, 4),
        rest: 1200,
        quote: quoted(&reply, 28),
    };
    let expected = Icmp {
        quote: quoted_as_from(&reply, at(slot_port), 28),
        ..error.clone()
    };
    world.expect_frame(
        "too large",
        INGRESS,
        &error.frame(),
        PASS,
        &expected.frame(),
    );
    assert_eq!(world.reason(Reason::Icmp), 1);
}

#[test]
fn what_is_about_nothing_of_ours_passes_untouched() {
    let mut world = World::direct();
    for (family, too_large) in [(V4, (3, 4)), (V6, (2, 0))] {
        let talk = Talk::new(family, 41_000);
        let number = 0;
        world.plane().set_ring(0, &[number]).unwrap();
        world.opens(&talk, 1000, number);
        let reply = sent_from(&talk.answers(number, ACK, 501, 1001), talk.asked);
        let error = Icmp {
            from: router(family),
            to: talk.asked.ip(),
            kind: too_large,
            rest: 1200,
            quote: quoted(&reply, 60),
        };
        let echo = if talk.asked.is_ipv4() {
            (8, 0)
        } else {
            (128, 0)
        };
        let other = |quote: &Tcp| Icmp {
            quote: quoted(quote, 60),
            ..error.clone()
        };
        let other_client = SocketAddr::new(talk.client.ip(), 41_001);
        let table = [
            (
                "an echo request",
                Icmp {
                    kind: echo,
                    ..error.clone()
                },
            ),
            (
                "no flow",
                other(&Tcp {
                    to: other_client,
                    ..reply.clone()
                }),
            ),
            ("no service", other(&coming_from(&reply, 81))),
            (
                "for another than who sent it",
                Icmp {
                    to: router(family),
                    ..error.clone()
                },
            ),
            ("about a client's segment", other(&talk.says(SYN, 1, 0))),
        ];
        for (what, input) in table {
            let frame = input.frame();
            world.expect_frame(what, INGRESS, &frame, PASS, &frame);
        }
        let frame = error.frame();
        let header = if talk.asked.is_ipv4() { 20 } else { 40 };
        // Cut off before the quoted ports end.
        for length in 14 + header..14 + 2 * header + 8 + 4 {
            let cut = &frame[..length];
            world.expect_frame("cut off", INGRESS, cut, PASS, cut);
        }
        // The backend is replaced: its connections are over.
        world.direct_slot(number, 2);
        world.expect_frame("gone", INGRESS, &frame, PASS, &frame);
        world.direct_slot(number, 1);
    }
    assert_eq!(world.reason(Reason::Icmp), 0);
}
