//! The example `cna` under its known load, for real: a controller, processes, half a minute.
#![allow(clippy::unwrap_used, reason = "a test")]

use nix::sys::signal::Signal;
use orch::load::report::Report;
use orch_tests::orch::{Kind::Process, Orch, Settings, cna};

/// The example's file, in this test's own places.
fn file(orch: &Orch) -> String {
    let dir = orch.dir.path().display();
    let example = include_str!("../../examples/cna/orch-process.toml");
    let text = example
        .replace(
            "\"80\"",
            &format!("\"{}\"\nstart_port = {}", orch.listen, orch.start_port),
        )
        .replace("target/cna/cna", cna().to_str().unwrap());
    format!(
        "state_dir = \"{dir}/state\"\ncontrol = \"{dir}/orch.sock\"\nstatus = \"\"\n\
         [dataplane]\npin_dir = \"{}\"\n{text}",
        orch.pins().display()
    )
}

/// What the client, the kernel and the controller say of one run agrees.
#[test]
fn the_sums_of_a_real_run_agree() {
    let mut orch = Orch::prepare(Settings::new(Process));
    orch.write_file(&file(&orch));
    orch.launch();
    orch.wait_ready(1);
    let url = format!("http://localhost:{}/doWork", orch.listen);
    let words = [
        "--pattern=deterministic",
        "--wait=0s",
        "--timeout=60s",
        "--service=cna",
    ];
    let words = [&["load", &url, "-o", "json", "--quiet"][..], &words].concat();
    let report: Report = serde_json::from_value(orch.json(&words)).unwrap();

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
    println!(
        "sent {}, answered {}, lost {}, {:.1} copy-seconds, {} decisions",
        report.sent,
        report.answered,
        report.lost,
        seen.copy_seconds,
        seen.decisions.len()
    );

    assert!(orch.end(Signal::SIGINT).success());
    assert_eq!(orch.remains(), Vec::<String>::new());
}
