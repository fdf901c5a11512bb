//! Connections of sockets of this host to a backend's own address: counted, never changed. What
//! `orch_dial` notes when a socket connects is noted here by hand: no socket takes part.

use aya::maps::{HashMap, Map, MapData};
use orch::dataplane::{HoldTerms, SlotReading};
use orch_common::{
    counter::{Failure, Reason},
    flow::{Flow, FlowKey, FlowState, mark},
    hold::OF_SOCKET,
    layout::{
        LAYOUT_VERSION, map,
        program::{ENTRY, INGRESS, VETH},
    },
};
use orch_tests::frame::{
    Tcp,
    flag::{ACK, FIN, PSH, RST, SYN},
};

use super::world::{DROP, Family, PASS, Talk, V4, V6, World, flow_key};

const FAMILIES: [Family; 2] = [V4, V6];
const REQUEST: &[u8] = b"GET /api/x HTTP/1.1\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 503 No\r\n\r\n";

impl World {
    /// A socket of the host has dialed the backend of slot 0.
    fn dials(&mut self, family: Family, port: u16) -> Talk {
        let backend = (family.backend)(0);
        let talk = Talk::new(family, port).asking(backend);
        let key = flow_key(talk.client, backend);
        let flow = Flow {
            live: 1,
            generation: 1,
            backend_port: backend.port(),
            marks: mark::LOCAL,
            ifindex: 1,
            address: key.local,
            ..Flow::default()
        };
        self.flows().insert(key, flow, 0).unwrap();
        talk
    }

    /// The same for a socket of the host itself, which has the address of the service.
    fn dials_from_here(&mut self, family: Family, port: u16) -> Talk {
        let mut talk = self.dials(family, port);
        let mut here = (family.at)(80);
        here.set_port(port);
        let key = flow_key(talk.client, talk.asked);
        let flow = self.flow(&talk).unwrap();
        self.flows().remove(&key).unwrap();
        talk.client = here;
        let key = flow_key(talk.client, talk.asked);
        self.flows().insert(key, flow, 0).unwrap();
        talk
    }

    /// Its socket is gone.
    fn released(&mut self, talk: &Talk) {
        let flow = self.flow(talk).unwrap();
        let key = flow_key(talk.client, talk.asked);
        let gone = Flow { live: 0, ..flow };
        self.flows().insert(key, gone, 0).unwrap();
    }

    fn flows(&self) -> HashMap<MapData, FlowKey, Flow> {
        let path = self.pin_dir().join(format!("v{LAYOUT_VERSION}/maps"));
        let map = MapData::from_pin(path.join(map::FLOWS)).unwrap();
        HashMap::try_from(Map::LruHashMap(map)).unwrap()
    }

    /// A segment passes as it is.
    #[track_caller]
    fn sees(&mut self, what: &str, program: &'static str, segment: &Tcp) {
        self.expect(what, program, segment, PASS, segment);
    }

    fn first(&mut self) -> SlotReading {
        self.plane().read().unwrap().slots[0]
    }

    fn opened(&mut self, talk: &Talk) {
        self.sees("SYN", ENTRY, &talk.says(SYN, 1000, 0));
        self.sees("SYN-ACK", VETH, &talk.answers(0, SYN | ACK, 500, 1001));
        self.sees("ACK", ENTRY, &talk.says(ACK, 1001, 501));
        assert_eq!(self.flow(talk).unwrap().state, FlowState::Established);
    }
}

#[test]
fn requests_and_responses_are_counted_and_nothing_is_changed() {
    let mut world = World::direct();
    for (round, family) in FAMILIES.into_iter().enumerate() {
        let talk = world.dials(family, 40_000);
        world.opened(&talk);
        let before = world.first();
        let request = talk.says(ACK | PSH, 1001, 501).payload(REQUEST);
        world.sees("request", ENTRY, &request);
        world.sees("request again", ENTRY, &request);
        assert_eq!(world.first().in_flight, 1);
        let response = talk.answers(0, ACK | PSH, 501, 1024).payload(RESPONSE);
        world.sees("response", VETH, &response);
        world.sees("response again", VETH, &response);
        let slot = world.first();
        let count = round as u64 + 1;
        assert_eq!((slot.counters.requests, slot.in_flight), (count, 0));
        assert_eq!(slot.counters.responses, [0, 0, 0, 0, 0, count]);
        let bytes = (slot.bytes.received, slot.bytes.sent);
        let new = (REQUEST.len() as u64, RESPONSE.len() as u64);
        assert_eq!(
            bytes,
            (before.bytes.received + new.0, before.bytes.sent + new.1)
        );
        world.sees("FIN", ENTRY, &talk.says(FIN | ACK, 1024, 520));
        world.sees("FIN back", VETH, &talk.answers(0, FIN | ACK, 520, 1025));
        assert_eq!(world.flow(&talk).unwrap().state, FlowState::Closed);
    }
    let slot = world.first();
    assert_eq!(slot.counters.failures.iter().sum::<u64>(), 0);
    assert_eq!((slot.live, slot.connections), (0, 0), "the socket counts");
}

#[test]
fn failures_are_counted_by_how() {
    let mut world = World::direct();
    let failed = |world: &mut World| world.first().counters.failures;
    let mut expected = [0; Failure::COUNT];

    let talk = world.dials(V4, 40_001);
    let syn = talk.says(SYN, 1000, 0);
    world.sees("SYN", ENTRY, &syn);
    assert_eq!(failed(&mut world), expected, "the first SYN is no failure");
    for _ in 0..2 {
        world.sees("SYN again", ENTRY, &syn);
        expected[Failure::Timeout as usize] = 1;
        assert_eq!(failed(&mut world), expected);
    }
    let other = talk.answers(0, RST | ACK, 0, 2000);
    world.sees("a RST for another SYN", VETH, &other);
    assert_eq!(failed(&mut world), expected);
    world.sees("RST", VETH, &talk.answers(0, RST | ACK, 0, 1001));
    expected[Failure::Refused as usize] = 1;
    assert_eq!(failed(&mut world), expected);
    assert_eq!(world.refused().len(), 1, "its backend is to be probed");

    let ends = [
        ("RST of the client", Failure::Aborted),
        ("RST of the backend", Failure::Reset),
        ("FIN of the backend", Failure::Closed),
    ];
    for (port, (what, kind)) in (40_002..).zip(ends) {
        let talk = world.dials(V4, port);
        world.opened(&talk);
        let request = talk.says(ACK | PSH, 1001, 501).payload(REQUEST);
        world.sees("request", ENTRY, &request);
        assert_eq!(world.first().in_flight, 1);
        let (program, end) = match kind {
            Failure::Aborted => (ENTRY, talk.says(RST, 1024, 0)),
            Failure::Reset => (VETH, talk.answers(0, RST, 501, 0)),
            _ => (VETH, talk.answers(0, FIN | ACK, 501, 1024)),
        };
        world.sees(what, program, &end);
        expected[kind as usize] += 1;
        assert_eq!((failed(&mut world), world.first().in_flight), (expected, 0));
    }
}

#[test]
fn nobody_outside_gets_at_them() {
    let mut world = World::direct();
    for family in FAMILIES {
        let talk = world.dials(family, 40_010);
        world.opened(&talk);
        let forged = [
            talk.says(RST, 1001, 0),
            talk.says(ACK | PSH, 1001, 501).payload(REQUEST),
            talk.says(SYN, 7000, 0),
        ];
        for segment in &forged {
            world.sees("forged", INGRESS, segment);
        }
        // Who is on the bridge can send what looks like a client's.
        world.sees(
            "a SYN of somebody else",
            ENTRY,
            &talk.says(SYN, 0x7000_0000, 0),
        );
        world.sees("his RST", ENTRY, &talk.says(RST, 0x7000_0001, 0));
        let flow = world.flow(&talk).unwrap();
        assert_eq!((flow.state, flow.isn), (FlowState::Established, 1000));
    }
    let slot = world.first();
    assert_eq!((slot.counters.requests, slot.in_flight), (0, 0));
    assert_eq!(world.reason(Reason::Hit), 0);
}

#[test]
fn what_nobody_has_dialed_is_not_counted() {
    let mut world = World::direct();
    for family in FAMILIES {
        let talk = Talk::new(family, 40_020).asking((family.backend)(0));
        for (program, segment) in [
            (ENTRY, talk.says(SYN, 1000, 0)),
            (VETH, talk.answers(0, SYN | ACK, 500, 1001)),
            (ENTRY, talk.says(ACK | PSH, 1001, 501).payload(REQUEST)),
            (VETH, talk.answers(0, ACK, 501, 1024).payload(RESPONSE)),
        ] {
            world.sees("past the balancer", program, &segment);
        }
        assert!(world.flow(&talk).is_none());
    }
    assert_eq!(world.first().counters.requests, 0);
}

#[test]
fn one_that_is_silent_for_long_waits_no_longer() {
    let mut world = World::direct();
    let talk = world.dials(V4, 40_030);
    world.opened(&talk);
    world.sees("FIN", ENTRY, &talk.says(FIN | ACK, 1001, 501));
    let request = talk.says(ACK | PSH, 1002, 501).payload(REQUEST);
    world.sees("a request", ENTRY, &request);
    let patience = FlowState::FinClient.patience();
    for _ in 0..=patience {
        world.plane().sweep().unwrap();
    }
    assert!(world.flow(&talk).is_none());
    assert_eq!((world.first().in_flight, world.live()[0]), (0, 0));
}

#[test]
fn what_is_over_is_forgotten_once_its_socket_is_gone() {
    let mut world = World::direct();
    for family in FAMILIES {
        for backend_last in [true, false] {
            let talk = world.dials(family, 40_040);
            world.opened(&talk);
            world.released(&talk);
            let mut ends = [
                (ENTRY, talk.says(FIN | ACK, 1001, 501)),
                (VETH, talk.answers(0, FIN | ACK, 501, 1002)),
            ];
            if !backend_last {
                ends.reverse();
            }
            for (program, fin) in &ends {
                assert!(world.flow(&talk).is_some());
                world.sees("FIN", program, fin);
            }
            assert!(world.flow(&talk).is_none());
        }
    }
}

/// A refusal is kept from a socket whose backend has ended, and nobody else's.
#[test]
fn refusals_of_a_backend_that_has_ended_are_kept_from_sockets_of_this_host() {
    for family in FAMILIES {
        let mut world = World::direct();
        let terms = HoldTerms {
            limit: 100,
            listener: Some(9),
            bridge_listener: None,
        };
        world.plane().set_holding(0, Some(terms)).unwrap();
        let here = world.dials_from_here(family, 40_000);
        let lives = world.dials_from_here(family, 40_001);
        let elsewhere = world.dials(family, 40_002);
        for talk in [here, lives, elsewhere] {
            world.sees("SYN", ENTRY, &talk.says(SYN, 1000, 0));
        }
        let refusal = |talk: &Talk| talk.answers(0, RST | ACK, 0, 1001);
        world.sees("it lives", VETH, &refusal(&lives));
        world.direct_slot(0, 2);
        world.sees("of another namespace", VETH, &refusal(&elsewhere));
        assert!(world.plane().held().is_empty());
        let other = here.answers(0, RST | ACK, 0, 2000);
        world.sees("for another SYN", VETH, &other);
        if here.client.is_ipv6() {
            world.sees("its copies are not known", VETH, &refusal(&here));
            continue;
        }
        for _ in 0..3 {
            let segment = refusal(&here);
            world.expect("it has ended", VETH, &segment, DROP, &segment);
            let held = world.plane().held();
            assert_eq!(held.len(), 1, "{held:?}");
            let held = held[0];
            assert_eq!(
                (held.key, held.seq),
                (flow_key(here.client, here.asked), 1000)
            );
            assert_eq!((held.service, held.len), (0, OF_SOCKET));
        }
        world.sees("it goes on refusing", VETH, &refusal(&here));
        let unheld = world.dials_from_here(family, 40_003);
        world.sees("SYN", ENTRY, &unheld.says(SYN, 1000, 0));
        world.direct_slot(0, 3);
        world.plane().set_holding(0, None).unwrap();
        world.sees("nobody would answer", VETH, &refusal(&unheld));
    }
}
