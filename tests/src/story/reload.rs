//! SIGHUP.

use nix::sys::signal::Signal;

use crate::orch::{Kind, Orch, Settings};

/// Changed keys hold at once; a bad file is refused, which the events say, and the old one stays.
pub fn a_file_is_read_again(kind: Kind) {
    let orch = Orch::start(Settings::new(kind));
    let ids = orch.ids();
    let good = orch.text();
    orch.write_file(&good.replace("min = 1", "min = 2"));
    orch.signal(Signal::SIGHUP);
    orch.wait_event(0, "reloaded", "holds");
    let rows = orch.wait_ready(2);
    assert_eq!(rows[0].backend, ids[0], "no copy is touched without need");

    for (bad, words) in [
        (good.replace("min = 1", "min = \"one\""), "min"),
        (good.replace("start_port = ", "start_porf = "), "start_port"),
        (good.replace("min = 1", "min = 40"), "min"),
        (
            good.replace("start_port = ", "start_port = 1"),
            "start_port",
        ),
        ("[[service]".to_owned(), ":1: "),
    ] {
        let before = orch.last_event();
        orch.write_file(&bad);
        orch.signal(Signal::SIGHUP);
        let event = orch.wait_event(before, "error", "the old one stays");
        assert!(event.text.contains(words), "{}", event.text);
        assert_eq!(orch.wait_ready(2).len(), 2);
    }

    // A change of what a copy is made from replaces the copies, one by one.
    let before = orch.last_event();
    let changed = good.replace("drain_limit", "env = { MARK = \"new\" }\ndrain_limit");
    orch.write_file(&changed.replace("min = 1", "min = 2"));
    orch.signal(Signal::SIGHUP);
    orch.wait_event(before, "reloaded", "holds");
    orch.until("both copies are others", || {
        let new = orch.slots();
        let other = |at: usize| {
            new.get(at)
                .is_some_and(|row| row.state == "ready" && row.backend != rows[at].backend)
        };
        (other(0) && other(1)).then_some(())
    });
    orch.wait_event(before, "replaced", "the configuration wants another");
}
