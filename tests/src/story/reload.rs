//! SIGHUP.

use nix::sys::signal::Signal;

use super::refusals;
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

/// A file that is read again cannot take a port that another controller balances, and what it gives
/// up is free for others.
pub fn ports_change_hands(kind: Kind) {
    let mut other = Orch::start(Settings::new(kind));
    let orch = Orch::start(Settings::new(kind));
    let alone = orch.text().replace("max = 10", "max = 5");
    let (_, service) = alone.split_once("[[service]]").unwrap();
    let second = service
        .replace("\"acts\"", "\"second\"")
        .replace(&orch.listen.to_string(), &other.listen.to_string())
        .replace(
            &orch.start_port.to_string(),
            &(orch.start_port + 5).to_string(),
        );
    let reload = |text: &str, kind: &str, words: &str| {
        let before = orch.last_event();
        orch.write_file(text);
        orch.signal(Signal::SIGHUP);
        orch.wait_event(before, kind, words)
    };
    let both = format!("{alone}[[service]]{second}");
    let event = reload(&both, "error", "the old one stays");
    for words in [&other.listen.to_string(), "second", "another controller"] {
        assert!(event.text.contains(words), "{}", event.text);
    }
    assert_eq!(orch.services().len(), 1);
    assert_eq!(other.ask("GET", "/api/v1/acts/count", "").status, 200);

    other.end(Signal::SIGINT);
    reload(&both, "reloaded", "holds");
    orch.until("the second service is ready", || {
        (orch
            .slots()
            .iter()
            .filter(|row| row.state == "ready")
            .count()
            == 2)
            .then_some(())
    });
    assert_eq!(other.ask("GET", "/api/v1/acts/count", "").status, 200);
    refusals::refuses(
        &other,
        1,
        &[&other.listen.to_string(), "another controller"],
    );

    reload(&alone, "reloaded", "holds");
    orch.until("the second service is gone", || {
        (orch.services().len() == 1).then_some(())
    });
    other.launch();
    other.wait_ready(1);
    assert_eq!(other.ask("GET", "/api/v1/acts/count", "").status, 200);
}
