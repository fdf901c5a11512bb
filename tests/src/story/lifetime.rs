//! Controllers come and go; what they leave is what they should.

use std::time::Instant;

use nix::sys::signal::Signal;

use super::scale::everybody;
use crate::{
    orch::{Kind, Orch, Settings},
    outside::Outside,
    wait::PATIENCE,
};

/// Killed under load, and started again: no request fails and no copy is another. The same with
/// SIGTERM.
pub fn controllers_change_under_load(kind: Kind) {
    controllers_change(Settings::new(kind));
}

/// The same with other settings.
pub fn controllers_change(settings: Settings) {
    let outside = Outside::new();
    let kind = settings.kind;
    let mut orch = Orch::start(settings.copies(3));
    let ids = orch.ids();
    let load = everybody(&orch, &outside);
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGKILL] {
        let status = orch.end(signal);
        if signal == Signal::SIGTERM {
            assert_eq!(status.code(), Some(0));
        }
        let alone = everybody(&orch, &outside);
        std::thread::sleep(std::time::Duration::from_millis(500));
        alone.finish().assert_flawless(40);
        orch.launch();
        orch.wait_ready(3);
        orch.wait_event(0, "adopted", "stays in the ring");
        // Long enough for a full list of backends and some probes of each.
        let second = orch.services()[0].requests_total;
        orch.until("requests go on being counted", || {
            (orch.services().first()?.requests_total > second + 200).then_some(())
        });
        assert_eq!(orch.ids(), ids, "after {signal}");
    }
    let report = load.finish();
    println!(
        "{kind:?}: {} requests while three controllers ended, {} failed, longest {:.2?}",
        report.good,
        report.failures.len(),
        report.longest
    );
    report.assert_flawless(500);
    let kinds: Vec<_> = orch.events().into_iter().map(|row| row.kind).collect();
    assert!(!kinds.contains(&"started".to_owned()), "{kinds:?}");
}

/// SIGINT leaves nothing.
pub fn an_interrupt_leaves_nothing(kind: Kind) {
    an_interrupt(Settings::new(kind));
}

/// The same with other settings.
pub fn an_interrupt(settings: Settings) {
    let mut orch = Orch::start(settings.copies(2));
    let links = orch.pins();
    assert!(
        links.exists() && orch.remains().len() >= 4,
        "{:?}",
        orch.remains()
    );
    let status = orch.end(Signal::SIGINT);
    assert_eq!(status.code(), Some(0), "{}", orch.log());
    assert_eq!(orch.remains(), Vec::<String>::new());
    refuses(&orch);
    // And the place can be used again, at once.
    orch.launch();
    orch.wait_ready(2);
    orch.end(Signal::SIGINT);
    assert_eq!(orch.remains(), Vec::<String>::new());
}

/// `orch down` leaves nothing: beside a controller, after one was killed, twice, and where nothing
/// ran at all.
pub fn down_leaves_nothing(kind: Kind) {
    down(Settings::new(kind));
}

/// The same with other settings.
pub fn down(settings: Settings) {
    let mut orch = Orch::prepare(settings.copies(2));
    let down = |orch: &Orch| {
        let output = orch.down();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        assert!(text.ends_with("nothing of orch is left\n"), "{text}");
        assert_eq!(orch.remains(), Vec::<String>::new(), "{text}");
    };
    down(&orch);
    for killed in [true, false] {
        orch.launch();
        orch.wait_ready(2);
        if killed {
            orch.end(Signal::SIGKILL);
            assert!(!orch.remains().is_empty());
        }
        down(&orch);
        if !killed {
            assert_eq!(orch.ended().code(), Some(0));
        }
        refuses(&orch);
        down(&orch);
    }
}

/// Killed while it starts copies: `orch down` finds those that it had no time to record.
pub fn a_kill_between_starts_leaves_nothing() {
    let mut orch = Orch::prepare(Settings::new(Kind::Process).copies(6));
    let backends = orch.dir.path().join("state/backends");
    for round in 0..8 {
        orch.launch();
        let begin = Instant::now();
        // No pause: a start takes a millisecond or two.
        while std::fs::read_dir(&backends).map_or(0, Iterator::count) <= round % 4 {
            assert!(begin.elapsed() < *PATIENCE, "it starts nothing");
        }
        orch.end(Signal::SIGKILL);
        assert!(orch.down().status.success());
        assert_eq!(orch.remains(), Vec::<String>::new(), "round {round}");
    }
}

fn refuses(orch: &Orch) {
    for port in [orch.listen, orch.start_port, orch.start_port + 1] {
        let error = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap_err();
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionRefused,
            "{port}"
        );
    }
}
