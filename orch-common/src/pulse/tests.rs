use super::*;

const MS: u64 = 1_000_000;
/// A moment at which no false alarm is remembered.
const LATE: u64 = 2 * FORGIVEN_NS;

/// Three peers that answer at once.
fn brisk() -> Peers {
    Peers {
        alive: 3,
        answering: 3,
        usual_ns: MS,
        ..Peers::default()
    }
}

/// A slot that has been asked so often since a moment, and is usually so slow.
fn asked(unanswered: u64, asked_ns: u64, usual_ns: u64) -> Pulse {
    Pulse {
        unanswered,
        asked_ns,
        usual_ns,
        ..Pulse::default()
    }
}

fn silent(pulse: &Pulse, peers: &Peers, now: u64) -> bool {
    pulse.may_be_silent(now) && pulse.is_silent(peers, now)
}

/// What waited while a backend stood still is answered in a moment: nobody must take that for its pace.
#[test]
fn a_backend_that_stood_still_is_no_slower_than_before() {
    let began = LATE;
    let mut pulse = asked(40, began, MS / 10);
    let now = began + 700 * MS;
    pulse.speaks(now);
    assert_eq!(pulse.unanswered, 0);
    assert_eq!(pulse.usual_ns, STEP_NS + MS / 5, "it rises once");
    for at in 0..40 {
        pulse.answered(now + at, now + at - began, false, at as u32);
    }
    assert_eq!(pulse.usual_ns, STEP_NS + MS / 5);
    // What it is asked from now on counts as ever.
    let asked = now + 2 * MS;
    pulse.answered(asked + 100 * MS, 100 * MS, false, 50);
    assert!(pulse.usual_ns > 30 * MS, "{}", pulse.usual_ns);
    let mut calm = asked_once();
    calm.speaks(LATE + 5 * MS);
    assert_eq!((calm.usual_ns, calm.resumed), (MS, 0));
}

fn asked_once() -> Pulse {
    asked(1, LATE, MS)
}

#[test]
fn who_owes_an_answer_for_long_is_behind() {
    let owes =
        |unanswered, for_ms, usual| asked(unanswered, LATE, usual).is_behind(LATE + for_ms * MS);
    assert!(owes(1, 21, MS));
    assert!(!owes(0, 21, MS), "nothing to answer");
    assert!(!owes(1, 20, MS), "a moment");
    assert!(!owes(1, 90, 50 * MS), "it is slow");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn silence_is_judged_by_number_time_and_peers() {
    let now = LATE;
    let rows = [
        ("nine for 21 ms", asked(9, now - 21 * MS, MS), brisk(), true),
        (
            "no more than eight",
            asked(8, now - 90 * MS, MS),
            brisk(),
            false,
        ),
        (
            "no longer than 20 ms",
            asked(500, now - 20 * MS, MS),
            brisk(),
            false,
        ),
        (
            "peers are silent as well",
            asked(500, now - 500 * MS, MS),
            Peers {
                answering: 0,
                ..brisk()
            },
            false,
        ),
        (
            "a peer has nearly as many to answer",
            asked(40, now - 500 * MS, MS),
            Peers {
                unanswered: 10,
                ..brisk()
            },
            false,
        ),
        (
            "it has four times as many as any peer",
            asked(41, now - 500 * MS, MS),
            Peers {
                unanswered: 10,
                ..brisk()
            },
            true,
        ),
        (
            "it is slow",
            asked(90, now - 990 * MS, 500 * MS),
            brisk(),
            false,
        ),
        (
            "too slow even for itself",
            asked(90, now - 1010 * MS, 500 * MS),
            brisk(),
            true,
        ),
        (
            "it is new, and peers are slow",
            asked(90, now - 990 * MS, 0),
            Peers {
                usual_ns: 500 * MS,
                ..brisk()
            },
            false,
        ),
    ];
    for (what, pulse, peers, expected) in rows {
        assert_eq!(silent(&pulse, &peers, now), expected, "{what}");
    }
}

/// Servers that take half a second for one request after the other, each with ever more that
/// wait: whoever looks at whom, at whatever moment, none is silent.
#[test]
fn slow_servers_with_long_queues_are_never_silent() {
    let step = 500 * MS;
    for offset in [0, 10 * MS, 250 * MS, 490 * MS] {
        let mut slots = [Pulse::default(); 2];
        let queued = |at: u64| at / (20 * MS);
        for at in (LATE..LATE + 60 * step).step_by(10 * MS as usize) {
            for (index, slot) in slots.iter_mut().enumerate() {
                let shift = offset * index as u64;
                if at > LATE + shift && (at - LATE - shift).is_multiple_of(step) {
                    slot.unanswered = 0;
                    let waited = (at - LATE).min(queued(at - LATE) * step);
                    slot.answered(at, waited.max(step), false, 1);
                }
                if slot.unanswered == 0 {
                    slot.asked_ns = at;
                }
                slot.unanswered += 1;
            }
            for (one, other) in [(0, 1), (1, 0)] {
                let mut peers = Peers::default();
                peers.see(&slots[other], slots[one].asked_ns, false);
                assert!(!silent(&slots[one], &peers, at), "{offset} {at} {slots:?}");
            }
        }
    }
}

#[test]
fn a_few_slow_requests_among_fast_ones_make_the_usual_time_long() {
    let mut pulse = Pulse::default();
    for number in 0..10_000_u32 {
        let slow = number % 50 == 0;
        let taken = if slow { 500 * MS } else { MS };
        pulse.answered(LATE, taken, false, number);
        assert!(
            number < 500 || TIMES_USUAL * pulse.usual_ns > 500 * MS,
            "{pulse:?}"
        );
    }
    for number in 0..4000 {
        pulse.answered(LATE, MS, false, number);
    }
    assert!(pulse.usual_ns < 2 * MS, "and it is forgotten: {pulse:?}");
}

/// A slot that has answered like this, each on another connection.
fn answering(errors: &[bool]) -> Pulse {
    let mut pulse = Pulse::default();
    for (number, error) in (1..).zip(errors) {
        pulse.answered(LATE, MS, *error, number);
    }
    pulse
}

fn failing(pulse: &Pulse, peers: &Peers) -> bool {
    pulse.may_be_failing(LATE) && pulse.is_failing(peers, LATE)
}

#[test]
fn errors_are_judged_by_those_of_peers() {
    let well = brisk();
    let some = Peers {
        shares: 3 * (WHOLE / 10),
        ..well
    };
    let bad = Peers {
        shares: 3 * (WHOLE / 2),
        ..well
    };
    let idle = Peers {
        answering: 0,
        ..well
    };
    let one_well = Peers { well: 1, ..bad };
    let every_other: Vec<bool> = (0..61).map(|number| number % 2 == 0).collect();
    let rows: [(&str, &[bool], Peers, bool); 11] = [
        ("three in a row", &[true; 3], well, true),
        ("two", &[true; 2], well, false),
        (
            "two, one good, two",
            &[true, true, false, true, true],
            well,
            false,
        ),
        (
            "three in a row where peers have some",
            &[true; 3],
            some,
            false,
        ),
        (
            "eight in a row where peers have some",
            &[true; 8],
            some,
            true,
        ),
        ("all have them", &[true; 100], bad, false),
        ("all but one have them", &[true; 8], one_well, true),
        (
            "every other one, as all but one",
            &every_other,
            one_well,
            false,
        ),
        ("nobody to compare with", &[true; 100], idle, false),
        ("every other one", &every_other, well, true),
        (
            "one in three",
            &[true, false, false].repeat(30),
            well,
            false,
        ),
    ];
    for (what, errors, peers, expected) in rows {
        assert_eq!(failing(&answering(errors), &peers), expected, "{what}");
    }
}

#[test]
fn one_connection_that_only_gets_errors_says_little() {
    let mut pulse = Pulse::default();
    for _ in 0..100 {
        pulse.answered(LATE, MS, true, 7);
    }
    assert!(!failing(&pulse, &brisk()), "{pulse:?}");
}

#[test]
fn false_alarms_double_the_limits_for_a_minute() {
    let mut pulse = answering(&[true; 3]);
    let mut now = LATE;
    for doublings in 0..10 {
        let limit = ERRORS << doublings.min(MOST_PATIENCE);
        pulse.errors = limit - 1;
        pulse.share = 0;
        assert!(!pulse.may_be_failing(now), "{doublings}");
        pulse.errors = limit;
        assert!(pulse.may_be_failing(now), "{doublings}");
        let many = UNANSWERED << doublings.min(MOST_ROWS);
        pulse.unanswered = many;
        pulse.asked_ns = 0;
        assert!(!pulse.may_be_silent(now), "{doublings}");
        pulse.unanswered = many + 1;
        assert!(pulse.may_be_silent(now), "{doublings}");
        now += FORGIVEN_NS;
        pulse.clear(now, true);
    }
    assert_eq!(pulse.doublings(now + FORGIVEN_NS + 1), 0);
    pulse.clear(now + FORGIVEN_NS + 1, true);
    assert_eq!(pulse.doublings(now + FORGIVEN_NS + 1), 1);
}

#[test]
fn never_the_last_and_never_more_than_a_third() {
    for (alive, suspects, len, allowed) in [
        (0, 0, 1, false),
        (1, 0, 2, true),
        (0, 0, 2, false),
        (2, 0, 3, true),
        (1, 1, 3, false),
        (4, 1, 6, true),
        (3, 2, 6, false),
        (40, 20, 64, true),
        (40, 21, 64, false),
    ] {
        let peers = Peers {
            alive,
            suspects,
            ..Peers::default()
        };
        assert_eq!(peers.spare_one(len), allowed, "{alive} {suspects} {len}");
    }
}
