//! What a timeline makes of a run whose times are known.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use orch::{
    config::{EXAMPLE, parse},
    load::watch::Decided,
    scale::{Decision, Entry, Input, Log, Metrics, Scaler},
    view::EventRow,
};
use orch_tests::timeline::Timeline;

/// When the controller began, as events count.
const BEGIN_S: f64 = 1_000_000.0;

fn event((at, slot, kind, text): (f64, u16, &str, &str)) -> EventRow {
    EventRow {
        id: 0,
        time: BEGIN_S + at,
        service: "cna".to_owned(),
        slot: (kind != "scaled").then_some(slot),
        kind: kind.to_owned(),
        text: text.to_owned(),
    }
}

fn entry((ms, from, to): (u64, u16, u16)) -> Entry {
    let metrics = Metrics {
        alone_s: 0.502,
        ..Metrics::default()
    };
    let reason = format!("at {ms}");
    Entry {
        at: Duration::from_millis(ms),
        input: Input::Read(metrics),
        decision: (from != to).then_some(Decision { from, to, reason }),
    }
}

/// One copy before the load; then 1 -> 3 at 1.001 s, 3 -> 4 at 1.251, 4 -> 1 at 3.001, 1 -> 3 at 3.251,
/// 3 -> 1 at 5.001, 1 -> 2 at 5.251, each told right away.
/// In seconds since the controller began: slot, kind, and what is told.
const EVENTS: [(f64, u16, &str, &str); 28] = [
    (0.2, 0, "started", ""),
    (0.3, 0, "ready", ""),
    (1.001, 0, "scaled", "1 -> 3 copies"),
    (1.251, 0, "scaled", "3 -> 4 copies"),
    (1.3, 2, "started", ""),
    (1.4, 1, "started", ""),
    (1.41, 2, "ready", ""),
    (1.5, 3, "started", ""),
    (1.6, 1, "ready", ""),
    (1.7, 3, "ready", ""),
    (3.001, 0, "scaled", "4 -> 1 copies"),
    // Slot 1 is busy; slot 2 is seen to be idle when slot 3 drains, and slot 3 when slot 2 has ended.
    (3.002, 1, "draining", ", 2 connections may finish"),
    (3.003, 2, "draining", ", 0 connections may finish"),
    (3.004, 3, "draining", ", 0 connections may finish"),
    (3.104, 2, "stopped", ""),
    (3.214, 3, "stopped", ""),
    // Slot 1 comes back, slot 2 is started anew.
    (3.251, 0, "scaled", "1 -> 3 copies"),
    (3.252, 1, "ready", ""),
    (3.5, 2, "started", ""),
    (3.651, 2, "ready", ""),
    (5.001, 0, "scaled", "3 -> 1 copies"),
    (5.002, 1, "draining", ", 0 connections may finish"),
    (5.003, 2, "draining", ", 1 connections may finish"),
    // Slot 1 is wanted while it is being stopped.
    (5.251, 0, "scaled", "1 -> 2 copies"),
    (5.303, 1, "stopped", ""),
    (5.5, 1, "started", ""),
    (5.703, 1, "ready", ""),
    (5.8, 2, "stopped", ""),
];

fn timeline() -> Timeline {
    let entries = [
        (250, 1, 1),
        (1001, 1, 3),
        (1251, 3, 4),
        (3001, 4, 1),
        (3251, 1, 3),
        (5001, 3, 1),
        (5251, 1, 2),
    ];
    let log = Log {
        service: "cna".to_owned(),
        base: Scaler::new(1, 0, Duration::ZERO),
        rules: parse("example", EXAMPLE).unwrap().services.remove(0).scale,
        entries: entries.map(entry).to_vec(),
    };
    Timeline::new(log, EVENTS.map(event).to_vec())
}

#[test]
fn each_start_counts_from_the_decision_that_ordered_it() {
    let starts = timeline().starts_s();
    let ms: Vec<_> = starts.iter().map(|s| (s * 1000.0).round() as u64).collect();
    // The first; two of the first decision by slot, one of the next; one after it had been stopped; and
    // one that waited for the end of the one before.
    assert_eq!(ms, [300, 599, 409, 449, 400, 400]);
}

#[test]
fn an_end_counts_from_the_reading_that_found_nothing_left() {
    // 100, 110 and 300 ms.
    let stop_s = timeline().stop_s();
    assert!((stop_s - 0.11).abs() < 0.001, "{stop_s}");
}

#[test]
fn the_lead_counts_by_beats_however_late_a_reading_is() {
    let decided = [(0.6, 1, 3, 1001), (0.853, 3, 4, 1251), (2.6, 4, 1, 3001)];
    let decided = decided.map(|(at_s, from, to, ms)| Decided {
        at_s,
        from,
        to,
        reason: format!("at {ms}"),
    });
    let timeline = timeline();
    let lead_s = timeline.lead_s(&decided);
    assert!((lead_s - 0.4).abs() < 1e-6, "{lead_s}");
    assert!((timeline.alone_s() - 0.502).abs() < 1e-9);
}
