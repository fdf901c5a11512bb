//! The end of a copy under load.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use support::{Acts, Client, act};

/// Posts until the copy has closed its listener; counts what was answered, and fails where a
/// connection that works is cut between a request and its answer.
fn post_until_stopped(port: u16, answered: &AtomicU64) {
    while let Ok(mut client) = Client::to(port) {
        let mut asked = 0;
        loop {
            match client.ask("POST", "/api/v1/acts", &act("x", "aGVsbG8=")) {
                Ok(answer) => {
                    assert_eq!(answer.status, 201, "{}", answer.body);
                    answered.fetch_add(1, Ordering::Relaxed);
                    asked += 1;
                    if answer.header("connection") == Some("close") {
                        break;
                    }
                }
                // The kernel shook hands for it, and the listener was closed before it was taken.
                Err(error) if asked == 0 && error.kind() == io::ErrorKind::ConnectionReset => {
                    return;
                }
                Err(error) => panic!("request {asked} of a connection: {error}"),
            }
        }
    }
}

#[test]
fn sigterm_under_load_loses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let mut copy = Acts::start(data.path());
    let witness = Acts::start(data.path());
    assert_eq!(
        copy.ask("POST", "/api/v1/categories", r#"["help"]"#).status,
        201
    );
    let (answered, port) = (AtomicU64::new(0), copy.port);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| post_until_stopped(port, &answered));
        }
        while answered.load(Ordering::Relaxed) < 200 {
            thread::sleep(Duration::from_millis(1));
        }
        copy.signal(Signal::SIGTERM);
    });
    assert!(copy.wait(Duration::from_secs(5)).success());
    let stored = witness.ask("GET", "/api/v1/acts/count", "").body;
    assert_eq!(stored, format!("[{}]", answered.into_inner()));
}

#[test]
fn a_quiet_copy_stops_at_once_and_an_idle_connection_delays_it_little() {
    let data = tempfile::tempdir().unwrap();
    for (signal, idle, limit) in [
        (Signal::SIGTERM, false, Duration::from_millis(500)),
        (Signal::SIGINT, true, Duration::from_secs(3)),
    ] {
        let mut copy = Acts::start(data.path());
        let mut client = copy.connect();
        assert_eq!(
            client.ask("GET", "/api/v1/_health", "").unwrap().status,
            200
        );
        let kept = idle.then_some(client);
        let begin = Instant::now();
        copy.signal(signal);
        assert!(copy.wait(Duration::from_secs(9)).success());
        assert!(begin.elapsed() < limit, "{signal}: {:?}", begin.elapsed());
        drop(kept);
    }
}

#[test]
fn a_replacement_takes_the_port_at_once() {
    let data = tempfile::tempdir().unwrap();
    let mut copy = Acts::start(data.path());
    let port = copy.port;
    assert_eq!(copy.ask("GET", "/api/v1/_health", "").status, 200);
    copy.signal(Signal::SIGKILL);
    copy.wait(Duration::from_secs(5));
    let next = Acts::start_on(data.path(), port);
    assert_eq!(next.ask("GET", "/api/v1/_health", "").status, 200);
}
