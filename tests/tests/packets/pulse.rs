//! Passive health: slots that stop answering, or fail, while their peers do not.

use std::time::{Duration, Instant};

use aya::maps::{Array, Map, MapData};
use orch_common::{
    counter::Reason,
    event::EventKind,
    layout::{LAYOUT_VERSION, map},
    pulse::{Pulse, STEP_NS},
};
use orch_tests::frame::flag::{ACK, FIN, SYN};

use super::world::{REDIRECT, Talk, V4, World, service, slot};

/// Bytes of every request here.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
/// A backend stands still for so long.
const STANDSTILL: Duration = Duration::from_millis(400);
/// An end of a loop that never comes to what it waits for.
const LIMIT: Duration = Duration::from_secs(20);

/// Clients that each open a connection of their own, and slots in turns.
struct Clients {
    world: World,
    next: u16,
}

impl Clients {
    fn new(slots: u16) -> Self {
        Self {
            world: World::direct_with(&service(false), slots),
            next: 1000,
        }
    }

    /// A SYN of a new connection, with its number, and the slot that it went to.
    fn open(&mut self) -> (Talk, u32, u16) {
        self.next += 1;
        let talk = Talk::new(V4, self.next);
        let isn = u32::from(self.next) << 8;
        let trial = self.world.arrive(&talk.says(SYN, isn, 0));
        assert_eq!(trial.verdict, REDIRECT);
        // The last byte of the destination's address.
        let at = u16::from(trial.frame[33] - 2);
        (talk, isn, at)
    }

    /// A new connection with a request on it, and the slot that it went to.
    fn ask(&mut self) -> (Talk, u16) {
        let (talk, isn, at) = self.open();
        self.take(&talk, isn, at);
        (talk, at)
    }

    /// The slot takes a connection, and a request comes on it.
    fn take(&mut self, talk: &Talk, isn: u32, at: u16) {
        let answer = talk.answers(at, SYN | ACK, 500, isn + 1);
        self.world.comes("SYN-ACK", talk, &answer);
        let request = talk.says(ACK, isn + 1, 501).payload(REQUEST);
        self.world.goes("request", talk, &request, at);
    }

    /// What the kernel knows of a slot's pace.
    fn pulse(&mut self, at: u16) -> Pulse {
        let pins = self.world.pin_dir().join(format!("v{LAYOUT_VERSION}/maps"));
        let map = Map::Array(MapData::from_pin(pins.join(map::PULSES)).unwrap());
        let pulses: Array<_, Pulse> = map.try_into().unwrap();
        pulses.get(&slot(at).index(), 0).unwrap()
    }

    /// The slot answers, and closes.
    fn answer(&mut self, talk: &Talk, at: u16, status: u16) {
        let ack = (u32::from(talk.client.port()) << 8) + 1 + REQUEST.len() as u32;
        let text = format!("HTTP/1.1 {status} X\r\n\r\n");
        let answer = talk
            .answers(at, FIN | ACK, 501, ack)
            .payload(text.as_bytes());
        self.world.comes("response", talk, &answer);
    }

    /// One connection, answered with what the slot's number gives; `None` is silence. Says which
    /// slot it was.
    fn once(&mut self, status: impl Fn(u16) -> Option<u16>) -> u16 {
        let (talk, at) = self.ask();
        if let Some(status) = status(at) {
            self.answer(&talk, at, status);
        }
        at
    }

    /// The slots that picks pass by, and why.
    fn passed_by(&mut self) -> Vec<(u16, EventKind)> {
        let slots = self.world.plane().read().unwrap().slots;
        let suspects = slots
            .iter()
            .filter_map(|slot| Some((slot.key.slot, slot.passed_by?)));
        suspects.collect()
    }

    /// Connections until a slot is passed by, and how many of them came to each slot.
    fn until_passed_by(&mut self, status: impl Fn(u16) -> Option<u16>) -> Vec<u32> {
        let (begun, mut asked) = (Instant::now(), vec![0; 64]);
        while self.passed_by().is_empty() {
            assert!(begun.elapsed() < LIMIT);
            asked[usize::from(self.once(&status))] += 1;
        }
        asked
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "one of many answers, among which is none"
)]
fn well(_: u16) -> Option<u16> {
    Some(200)
}

#[test]
fn a_slot_that_stops_answering_is_passed_by_and_told() {
    let mut clients = Clients::new(3);
    for _ in 0..30 {
        clients.once(well);
    }
    let begun = Instant::now();
    let asked = clients.until_passed_by(|at| (at != 1).then_some(200));
    assert!(asked[1] > 8, "by chance: {asked:?}");
    assert!(begun.elapsed() > Duration::from_millis(20));
    assert_eq!(clients.passed_by(), [(1, EventKind::Silent)]);
    let told = clients.world.plane().alarms();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (told[0].kind, told[0].slot, told[0].generation),
        (EventKind::Silent, slot(1), 1)
    );
    assert_eq!(clients.world.reason(Reason::Silent), 1);
    for _ in 0..30 {
        assert_ne!(clients.once(well), 1);
    }
}

#[test]
fn a_slot_that_was_behind_is_back_with_its_next_answer() {
    let mut clients = Clients::new(3);
    for _ in 0..30 {
        clients.once(well);
    }
    let late = loop {
        let (talk, at) = clients.ask();
        if at == 1 {
            break talk;
        }
        clients.answer(&talk, at, 200);
    };
    clients.until_passed_by(|at| (at != 1).then_some(200));
    clients.answer(&late, 1, 200);
    assert_eq!(clients.passed_by(), []);
    let turns: Vec<u16> = (0..3).map(|_| clients.once(well)).collect();
    assert!(turns.contains(&1), "{turns:?}");
}

/// A container that stood still may answer after another has taken its slot.
#[test]
fn answers_of_a_backend_before_are_not_those_of_the_one_after() {
    let mut clients = Clients::new(3);
    let waits: Vec<_> = (0..30).map(|_| clients.ask()).collect();
    std::thread::sleep(STANDSTILL);
    clients.world.direct_slot(1, 2);
    for (talk, at) in waits.iter().filter(|(_, at)| *at == 1) {
        clients.answer(talk, *at, 200);
    }
    assert_eq!(clients.pulse(1).usual_ns, 0, "it has answered nobody yet");
    while clients.once(well) != 1 {}
    let usual = clients.pulse(1).usual_ns;
    assert!(0 < usual && usual < STANDSTILL.as_nanos() as u64, "{usual}");
}

/// All that waited is answered at once: that is no pace.
#[test]
fn a_slot_that_stood_still_is_taken_for_no_slower_one() {
    let mut clients = Clients::new(3);
    while clients.next < 1030 {
        clients.once(well);
    }
    let before = clients.pulse(1).usual_ns;
    let waits: Vec<_> = (0..60).map(|_| clients.ask()).collect();
    std::thread::sleep(STANDSTILL);
    for (talk, at) in waits {
        clients.answer(&talk, at, 200);
    }
    let usual = clients.pulse(1).usual_ns;
    assert!(usual <= 2 * before + STEP_NS, "{before} and then {usual}");
}

/// Behind a full queue SYNs vanish: connections count where requests cannot.
#[test]
fn a_slot_that_takes_no_connections_owes_answers_for_them() {
    let mut clients = Clients::new(3);
    for _ in 0..30 {
        clients.once(well);
    }
    let (begun, mut requests, mut opened) = (Instant::now(), 0, 0);
    while clients.passed_by().is_empty() {
        assert!(begun.elapsed() < LIMIT);
        let (talk, isn, at) = clients.open();
        if at == 1 && requests == 3 {
            opened += 1;
            continue;
        }
        clients.take(&talk, isn, at);
        if at == 1 {
            requests += 1;
        } else {
            clients.answer(&talk, at, 200);
        }
    }
    assert_eq!(clients.passed_by(), [(1, EventKind::Silent)]);
    assert!(opened > 5, "{opened}");
}

#[test]
fn where_nobody_answers_nobody_is_to_blame() {
    let mut clients = Clients::new(3);
    for _ in 0..30 {
        clients.once(well);
    }
    let begun = Instant::now();
    let mut asked = 0;
    while begun.elapsed() < Duration::from_millis(300) || asked < 100 {
        clients.once(|_| None);
        asked += 1;
    }
    assert_eq!(clients.passed_by(), []);
    assert_eq!(clients.world.reason(Reason::Silent), 0);
}

#[test]
fn the_beginning_of_a_response_is_a_sign_of_life() {
    let mut clients = Clients::new(3);
    let begun = Instant::now();
    let mut asked = 0;
    while begun.elapsed() < Duration::from_millis(300) || asked < 300 {
        let (talk, at) = clients.ask();
        if at != 1 {
            clients.answer(&talk, at, 200);
        } else if asked % 4 == 0 {
            let isn = u32::from(talk.client.port()) << 8;
            let more = talk
                .answers(at, ACK, 501, isn + 1 + REQUEST.len() as u32)
                .payload(b"HTTP/1.1 100 Continue\r\n\r\n");
            clients.world.comes("100", &talk, &more);
        }
        asked += 1;
    }
    assert_eq!(clients.passed_by(), []);
}

#[test]
fn a_slot_that_fails_alone_is_passed_by_after_three() {
    let mut clients = Clients::new(3);
    for _ in 0..30 {
        clients.once(well);
    }
    let asked = clients.until_passed_by(|at| Some(if at == 2 { 500 } else { 200 }));
    assert_eq!(asked[2], 3);
    assert_eq!(clients.passed_by(), [(2, EventKind::Failing)]);
    assert_eq!(clients.world.reason(Reason::Failing), 1);
    for _ in 0..30 {
        assert_ne!(clients.once(well), 2);
    }
}

#[test]
fn an_error_that_all_share_removes_nobody() {
    let mut clients = Clients::new(3);
    for _ in 0..30 {
        clients.once(well);
    }
    for number in 0..300 {
        clients.once(|_| Some(if number % 5 == 0 { 200 } else { 503 }));
    }
    assert_eq!(clients.passed_by(), []);
}

#[test]
fn one_client_that_only_gets_errors_removes_nobody() {
    let mut clients = Clients::new(3);
    for _ in 0..30 {
        clients.once(well);
    }
    let (talk, at) = clients.ask();
    let isn = u32::from(talk.client.port()) << 8;
    let (mut seq, mut theirs) = (isn + 1 + REQUEST.len() as u32, 501);
    let bad = b"HTTP/1.1 500 X\r\n\r\n";
    for _ in 0..50 {
        let answer = talk.answers(at, ACK, theirs, seq).payload(bad);
        clients.world.comes("response", &talk, &answer);
        theirs += bad.len() as u32;
        let again = talk.says(ACK, seq, theirs).payload(REQUEST);
        clients.world.goes("request", &talk, &again, at);
        seq += REQUEST.len() as u32;
        clients.once(well);
    }
    assert_eq!(clients.passed_by(), []);
}

#[test]
fn never_more_than_a_third_and_never_the_last() {
    for (slots, bad, expected) in [(3, 2, 1), (6, 3, 2), (2, 1, 1), (1, 1, 0)] {
        let mut clients = Clients::new(slots);
        for _ in 0..30 {
            clients.once(well);
        }
        // One after the other: together they are peers that fail as well.
        for number in 0..bad {
            for _ in 0..20 * slots {
                clients.once(|at| Some(if at == number { 500 } else { 200 }));
            }
        }
        let passed_by = clients.passed_by();
        assert_eq!(passed_by.len(), expected, "{slots}: {passed_by:?}");
    }
}

/// Behind a listener whose queue is full, SYNs vanish: no request comes any more that would have the slot
/// looked at.
#[test]
fn one_that_gets_no_requests_any_more_is_seen_by_its_connections() {
    let mut clients = Clients::new(3);
    for _ in 0..30 {
        clients.once(well);
    }
    clients.until_passed_by(|at| Some(if at == 0 { 500 } else { 200 }));
    let begun = Instant::now();
    for turn in 0.. {
        clients.once(|at| (at != 1).then_some(200));
        if turn > 40 && begun.elapsed() > Duration::from_millis(40) {
            break;
        }
    }
    let failing = (0, EventKind::Failing);
    assert_eq!(clients.passed_by(), [failing], "no more than a third");
    clients.world.direct_slot(0, 1);
    let begun = Instant::now();
    while clients.passed_by().is_empty() && begun.elapsed() < LIMIT && clients.next < 20_000 {
        clients.open();
    }
    assert_eq!(clients.passed_by(), [(1, EventKind::Silent)]);
}

#[test]
fn the_last_one_alive_is_kept() {
    let mut clients = Clients::new(2);
    for _ in 0..30 {
        clients.once(well);
    }
    clients.until_passed_by(|at| Some(if at == 0 { 500 } else { 200 }));
    for _ in 0..50 {
        assert_eq!(clients.once(|_| Some(500)), 1);
    }
    assert_eq!(clients.passed_by().len(), 1);
}

#[test]
fn a_false_alarm_doubles_the_limit_and_another_backend_begins_anew() {
    let mut clients = Clients::new(3);
    let fails = |at: u16| Some(if at == 0 { 500 } else { 200 });
    for expected in [3, 6, 12] {
        for _ in 0..3 {
            clients.once(well);
        }
        assert_eq!(clients.until_passed_by(fails)[0], expected);
        clients.world.direct_slot(0, 1);
        assert_eq!(clients.passed_by(), []);
    }
    clients.until_passed_by(fails);
    clients.world.direct_slot(0, 2);
    assert_eq!(clients.passed_by(), []);
    for _ in 0..3 {
        clients.once(well);
    }
    assert_eq!(clients.until_passed_by(fails)[0], 3);
}
