//! How many copies does a count ask for, and which of them go?

use std::time::Duration;

use orch_tests::{
    scenario::stage::{Kind, Mode},
    wait::until,
};

use crate::script::{Clock, Pace, Script, health};

/// The number of copies at the steps of the count, and never more than ten; on the way down the
/// greatest ports go first.
fn sizes(kind: Kind, window: u64) {
    let clock = Clock {
        window: Duration::from_secs(window),
        ..Clock::SHORT
    };
    let script = Script::begin(kind, Mode::Tcp, clock);
    for (count, copies) in [
        (19, 1),
        (20, 2),
        (39, 2),
        (40, 3),
        (59, 3),
        (60, 4),
        (230, 10),
    ] {
        script.reset();
        let (_, span) = script.requests(count, Pace::Fast, false);
        assert!(span.last - span.first < clock.window, "host too slow");
        span.sleep(clock.window);
        until("a decision", || {
            script
                .stage
                .status()
                .window_ends_in_s
                .is_none()
                .then_some(())
        });
        script.settled(copies);
        script.assert_reason(count as u64);
        assert_eq!(health(8010), None, "{count} requests");
    }
    greatest_ports_go_first(&script);
    script.stage.close();
}

/// From ten copies down by a window of 60 requests, one of 20, and idleness.
fn greatest_ports_go_first(script: &Script) {
    let ids = || {
        let rows = script.stage.ps();
        rows.into_iter().map(|row| row.backend).collect::<Vec<_>>()
    };
    let mut before = ids();
    for (count, copies) in [(60, 4), (20, 2), (0, 1)] {
        if count > 0 {
            script.requests(count, Pace::Fast, false);
        }
        script.settled(copies);
        before.truncate(usize::from(copies));
        assert_eq!(ids(), before, "those of the lowest ports stay");
    }
}

#[test]
fn sizes_docker() {
    sizes(Kind::Docker, 4);
}

#[test]
fn sizes_process() {
    sizes(Kind::Process, 3);
}
