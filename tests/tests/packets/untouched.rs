//! What delivery `direct` leaves to the kernel, byte for byte.

use std::path::Path;

use orch::dataplane::Reach;
use orch_common::{
    counter::Reason,
    flow::FlowState,
    layout::program::{EGRESS, INGRESS, VETH},
};
use orch_tests::frame::{
    Tcp,
    flag::{ACK, FIN, RST, SYN},
    tagged,
};

use super::{
    direct::FAMILIES,
    world::{
        PASS, Talk, V4, V6, World, at6, destination_options, sent_from, sent_to, slot, towards,
    },
};

#[test]
fn fragments_pass_untouched() {
    let mut world = World::direct();
    for (family, number) in FAMILIES {
        world.plane().set_ring(0, &[number]).unwrap();
        let talk = Talk::new(family, 40_000);
        world.opens(&talk, 1000, number);
        let cut = |mut tcp: Tcp, place: u16, more: bool| {
            tcp.fragment = place | if more { 0x2000 } else { 0 };
            let [high, low] = (place << 3 | u16::from(more)).to_be_bytes();
            tcp.extensions = vec![(44, vec![0, high, low, 0, 0, 0, 9])];
            tcp
        };
        let (data, reply) = (
            talk.says(ACK, 1001, 501).payload(&[7; 64]),
            talk.answers(number, ACK, 501, 1001).payload(&[7; 64]),
        );
        let counted = world.reason(Reason::Fragment);
        let first = cut(data.clone(), 0, true);
        world.expect("the first", INGRESS, &first, PASS, &first);
        assert_eq!(world.reason(Reason::Fragment), counted + 1);
        for (place, more) in [(1, true), (100, true), (100, false), (0x1fff, false)] {
            let later = cut(data.clone(), place, more);
            world.expect("a later one", INGRESS, &later, PASS, &later);
            let later = cut(reply.clone(), place, more);
            world.expect("a later one back", VETH, &later, PASS, &later);
        }
        if talk.client.is_ipv6() {
            let whole = cut(reply.clone(), 0, false);
            world.comes("an atomic one (RFC 6946)", &talk, &whole);
        }
    }
}

#[test]
fn headers_cut_off_anywhere_pass_untouched() {
    let mut world = World::direct();
    for (family, number) in FAMILIES {
        world.plane().set_ring(0, &[number]).unwrap();
        let talk = Talk::new(family, 40_000);
        world.opens(&talk, 1000, number);
        let least = if talk.client.is_ipv4() { 34 } else { 54 };
        for (options, extensions) in [(0, 0), (20, 0), (40, 0), (40, 2)] {
            let shape = |mut tcp: Tcp| {
                tcp.options = vec![1; options];
                tcp.ip_options = vec![1; 4 * extensions];
                tcp.extensions = vec![destination_options(); extensions];
                tcp.frame()
            };
            for flags in [ACK, FIN | ACK, RST | ACK, SYN | ACK] {
                let back = shape(talk.answers(number, flags, 501, 1001));
                let there = shape(talk.says(flags, 1001, 501));
                for len in least..back.len() {
                    let what = format!("{len} of {} bytes", back.len());
                    world.expect_frame(&what, VETH, &back[..len], PASS, &back[..len]);
                    world.expect_frame(&what, INGRESS, &there[..len], PASS, &there[..len]);
                }
            }
        }
        let mut lying = talk.answers(number, ACK, 501, 1001).frame();
        let at = lying.len() - 8;
        for offset in [0, 0x10, 0x40, 0x60, 0xf0] {
            lying[at] = offset;
            world.expect_frame("data offset", VETH, &lying, PASS, &lying);
        }
        let flow = world.flow(&talk).unwrap();
        assert_eq!((flow.state, flow.live), (FlowState::Established, 1));
        world.resets(&talk, 1001, number);
    }
    assert_eq!(world.live(), [0, 0, 0]);
}

#[test]
fn what_is_not_ours_passes_untouched() {
    let mut world = World::direct();
    for (family, number) in FAMILIES {
        world.plane().set_ring(0, &[number]).unwrap();
        let talk = Talk::new(family, 40_000);
        world.opens(&talk, 1000, number);
        let reply = talk.answers(number, ACK, 501, 1001).payload(b"x");
        let mut other_port = reply.clone();
        other_port.from.set_port(8081);
        let mut slot_port = reply.clone();
        slot_port.from.set_port(8000 + number);
        let mut other_client = reply.clone();
        other_client.to.set_port(40_001);
        let table = [
            ("another port of the backend", other_port),
            ("a slot's port", slot_port),
            ("another client port", other_client),
            ("another backend", sent_from(&reply, (family.backend)(1))),
            ("another client", sent_to(&reply, (family.at)(40_000))),
            ("what a backend asks", talk.answers(number, SYN, 9, 0)),
        ];
        for (what, input) in &table {
            world.expect(what, VETH, input, PASS, input);
        }
        // A device without the program of its own: the host's address is not the backend's.
        world.expect("at an uplink", EGRESS, &reply, PASS, &reply);
        let frame = reply.frame();
        let mut udp = frame.clone();
        udp[if talk.client.is_ipv4() { 23 } else { 20 }] = 17;
        let mut arp = frame.clone();
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        let mut version = frame.clone();
        version[14] ^= 0x20;
        let table = [
            ("UDP", udp),
            ("ARP", arp),
            ("another version", version),
            ("tagged", tagged(&frame, 5)),
        ];
        for (what, frame) in &table {
            world.expect_frame(what, VETH, frame, PASS, frame);
        }
        world.comes("what is ours", &talk, &reply);
        world.resets(&talk, 1001, number);
    }
    assert_eq!(world.live(), [0, 0, 0]);
}

#[test]
fn a_family_that_no_backend_has_is_left_to_the_kernel() {
    let mut world = World::direct();
    world.ip_of_backends("addr del fd30::2/128 dev eth0\naddr del fd30::3/128 dev eth1\n");
    for number in [0, 1] {
        // Under another name of its namespace the way is looked for anew.
        let mut entry = world.direct_entry(number, 2);
        if let Reach::Direct { netns } = &mut entry.reach {
            *netns = Path::new("/var/run/netns").join(netns.file_name().unwrap());
        }
        world.plane().set_slot(slot(number), &entry).unwrap();
    }
    world.plane().set_ring(0, &[0, 1]).unwrap();
    let talk = Talk::new(V6, 40_000);
    let syn = talk.says(SYN, 1000, 0);
    world.expect("IPv6", INGRESS, &syn, PASS, &syn);
    assert_eq!(world.reason(Reason::NoFamily), 1);
    assert!(world.flow(&talk).is_none());
    world.opens(&Talk::new(V4, 40_000), 1000, 0);
    world.plane().set_ring(0, &[0, 1, 2]).unwrap();
    world.opens(&talk, 1000, 2);
    assert_eq!(world.live(), [1, 0, 1]);
}

/// A container cannot answer it: that is told to the client, who would wait for nothing otherwise.
#[test]
fn a_client_with_an_address_of_its_link_alone_is_left_to_the_kernel() {
    let mut world = World::direct();
    world.plane().set_ring(0, &[2]).unwrap();
    let syn = |client: &str| Tcp::new(client.parse().unwrap(), at6(80), SYN).numbers(1000, 0);
    let on_its_link = syn("[fe80::7]:40000");
    world.expect("SYN", INGRESS, &on_its_link, PASS, &on_its_link);
    assert_eq!(world.reason(Reason::NoFamily), 1);
    assert_eq!(world.live(), [0, 0, 0]);
    let mut by_port = World::new();
    let sent = towards(&on_its_link, 8000);
    by_port.expect("SYN", INGRESS, &on_its_link, PASS, &sent);
}
