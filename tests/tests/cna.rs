//! The example `cna` under its known load, for real: a controller, processes, half a minute.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::LazyLock;

use orch_tests::{
    cna::{self, Real},
    orch::Kind::Process,
};

/// A run that both tests look at: it takes half a minute.
static RUN: LazyLock<Real> = LazyLock::new(|| cna::run(Process));

/// What the client, the kernel and the controller say of one run agrees, and its decisions come out
/// the same when they are made again.
#[test]
fn the_sums_of_a_real_run_agree() {
    let real = &*RUN;
    let report = &real.report;
    assert_eq!((report.sent, report.held_back), (215, 0), "{report:#?}");
    assert_eq!(report.sent, report.answered + report.lost, "{report:#?}");
    assert_eq!(report.statuses.keys().copied().collect::<Vec<_>>(), [200]);
    let seen = report.controller.as_ref().unwrap();
    assert_eq!(seen.requests, report.connected, "{report:#?}");
    assert!(
        (report.answered..=report.connected).contains(&seen.responses),
        "{report:#?}"
    );

    // Ten copies do twenty requests a second, one does two: it had to grow, and within its limits.
    assert!(report.answered > 60, "{report:#?}");
    assert!((2..=10).contains(&seen.copies_most), "{report:#?}");
    let most = f64::from(seen.copies_most) * (report.elapsed_s + 1.0);
    assert!(
        (report.elapsed_s..most).contains(&seen.copy_seconds),
        "{report:#?}"
    );
    assert!(
        seen.decisions
            .iter()
            .any(|decided| decided.to > decided.from),
        "{report:#?}"
    );
    assert!(
        real.replayed.ends_with("all the same as before\n"),
        "{}",
        real.replayed
    );
    for decided in &seen.decisions {
        assert!(real.replayed.contains(&decided.reason), "{}", real.replayed);
    }
}

#[test]
fn processes_do_as_they_were_simulated() {
    cna::agree(Process, Some(&RUN));
}
