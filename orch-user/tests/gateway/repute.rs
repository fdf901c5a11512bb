//! A copy that is much worse than its peers is passed by, told, and pardoned.

use std::thread;

use orch_common::event::EventKind;

use crate::bench::{Copy, Gate, until};

fn passed_by(gate: &Gate) -> Vec<u32> {
    let report = gate.client.read().unwrap();
    let slots = report.services[0].slots.iter();
    slots.map(|slot| slot.passed_by).collect()
}

#[test]
fn a_copy_that_fails_alone_is_passed_by_until_it_is_pardoned() {
    let copies = ["A", "failing", "C"].map(Copy::start);
    let mut gate = Gate::open("", &copies.each_ref());
    let failing = EventKind::Failing as u32;
    let mut errors = 0;
    for _ in 0..30 {
        errors += u32::from(gate.get("/api/who").status == 500);
    }
    assert_eq!(passed_by(&gate), [0, failing, 0]);
    assert_eq!(errors, 3, "the first on each of three connections");
    // What all of them do is nobody's fault, and one client's connection alone says nothing.
    for _ in 0..30 {
        assert_eq!(gate.get("/api/status/500").status, 500);
    }
    assert_eq!(passed_by(&gate), [0, failing, 0]);
    gate.service().slots[1].pardons += 1;
    gate.only(&[0, 1, 2]);
    assert_eq!(passed_by(&gate), [0, 0, 0]);
    let mut talk = gate.connect();
    let statuses: Vec<_> = (0..9).map(|_| talk.get("/api/who").status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 500).count(), 3);
    assert_eq!(passed_by(&gate), [0, 0, 0]);
    // The last resort.
    gate.only(&[1]);
    assert_eq!(gate.get("/api/who").status, 500);
}

#[test]
fn a_copy_that_is_silent_alone_is_passed_by() {
    let copies = ["A", "frozen", "C"].map(Copy::start);
    let gate = Gate::open("answer_timeout = \"2s\"", &copies.each_ref());
    thread::scope(|scope| {
        let mut waiting = Vec::new();
        until("it is told", || {
            waiting.push(scope.spawn(|| gate.get("/api/who").status));
            (passed_by(&gate) == [0, EventKind::Silent as u32, 0]).then_some(())
        });
        for _ in 0..10 {
            assert_eq!(gate.get("/api/who").status, 200, "others go on");
        }
        let statuses = waiting.into_iter().map(|one| one.join().unwrap());
        let late = statuses.filter(|status| *status == 504).count();
        assert!(late > 8, "{late}");
    });
}
