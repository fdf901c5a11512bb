//! The number of copies changes, and no client notices.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    client::{self, Client, head},
    load::{Load, Style},
    measure::{Times, stretch},
    orch::{IMAGE, Kind, Orch, Settings, docker},
    outside::Outside,
};

/// Route that clients of the load ask: it reads the database.
const PATH: &str = "/api/v1/acts/count";

/// Every kind of client: local and outside, keep-alive and one connection per request.
pub fn everybody(orch: &Orch, outside: &Outside) -> Load {
    let mut load = Load::new();
    let pace = Duration::from_millis(5);
    for style in [Style::KeepAlive, Style::OneShot] {
        load = load.client(None, orch.address(), PATH, style, pace).client(
            Some(&outside.netns),
            outside.to(orch.listen),
            PATH,
            style,
            pace,
        );
    }
    load
}

/// Twenty times up and twenty times down under load: no request fails, and the log speaks of no
/// error, though interfaces go while they are looked at. Beside the steady clients,
/// each round has keep-alive clients that connect while all copies serve and never close, so that
/// copies go with such connections open.
pub fn up_and_down_under_load(kind: Kind) {
    let outside = Outside::new();
    let orch = Orch::start(Settings::new(kind));
    let load = everybody(&orch, &outside);
    let mut held: u64 = 0;
    for round in 0..20 {
        // By one, by two, by three: the greatest ports go first.
        let copies = 2 + round % 3;
        orch.scale(copies);
        orch.wait_ready(copies);
        let clinging = clinging(&orch, &outside, copies);
        orch.scale(1);
        held += orch.until("copies drain", || {
            let going = orch
                .slots()
                .into_iter()
                .filter(|row| row.state == "draining");
            let held: u64 = going.map(|row| row.connections).sum();
            (held > 0).then_some(held)
        });
        let left = orch.wait_ready(1);
        assert_eq!(left[0].slot, 0);
        clinging.finish().assert_flawless(u64::from(copies));
    }
    let report = load.finish();
    println!(
        "{kind:?}: {} requests on {} connections during 20 ups and 20 downs, {} failed, \
         longest {:.2?}; {held} connections were open as copies were told to go",
        report.good,
        report.connections,
        report.failures.len(),
        report.longest
    );
    report.assert_flawless(1000);
    let log = orch.log();
    let errors: Vec<_> = log
        .lines()
        .filter(|line| line.contains(" ERROR "))
        .collect();
    assert!(errors.is_empty(), "nothing went wrong: {errors:#?}");
}

/// Keep-alive clients of every copy, local and outside, all connected.
fn clinging(orch: &Orch, outside: &Outside, copies: u16) -> Load {
    let pace = Duration::from_millis(20);
    let mut load = Load::new();
    for _ in 0..copies {
        load = load
            .client(None, orch.address(), PATH, Style::KeepAlive, pace)
            .client(
                Some(&outside.netns),
                outside.to(orch.listen),
                PATH,
                Style::KeepAlive,
                pace,
            );
    }
    load.wait_begun();
    load
}

/// A request that is being answered holds up the stop of its copy, and nothing else does.
pub fn a_request_in_flight_is_finished(kind: Kind) {
    let mut settings = Settings::new(kind);
    settings.drain = "25s";
    let orch = Orch::start(settings);
    orch.scale(2);
    orch.wait_ready(2);
    let category = r#"["slow"]"#;
    orch.ask("POST", "/api/v1/categories", category);
    let body = concat!(
        r#"{"username":"u","timestamp":"01-02-2026:03-04-05","caption":"c","#,
        r#""categoryName":"slow","imgB64":"QUJD"}"#
    );
    let head = head("POST", "/api/v1/acts", body.len(), "");
    // Two connections: one on each copy.
    let mut slow: Vec<_> = (0..2)
        .map(|_| {
            let mut client = Client::connect(orch.address()).unwrap();
            client
                .send(format!("{head}{}", &body[..20]).as_bytes())
                .unwrap();
            client
        })
        .collect();
    orch.scale(1);
    orch.wait_event(0, "draining", "out of the ring, 1 connections may finish");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        let row = orch.slot(1).unwrap();
        assert_eq!((row.state.as_str(), row.connections), ("draining", 1));
        let new = client::once(orch.address(), "GET", PATH, "").unwrap();
        assert!(!new.backend.is_empty());
    }
    for client in &mut slow {
        client.send(&body.as_bytes()[20..]).unwrap();
        assert_eq!(client.answer().unwrap().status, 201);
    }
    let done = Instant::now();
    drop(slow);
    orch.wait_ready(1);
    let took = done.elapsed();
    assert!(
        took < Duration::from_secs(5).mul_f64(stretch()),
        "drained, and still it took {took:?} to stop"
    );
}

/// Copies start beside each other: three more take about as long as one more, or as long as the
/// engine alone needs for three at once where that is longer. The shortest of several rounds is
/// what the program needs; longer ones are what else the machine did.
pub fn three_more_take_as_long_as_one(kind: Kind) {
    /// Probes of a starting copy are this far apart: a time may be longer by one for no reason.
    const PROBE_EVERY: Duration = Duration::from_millis(50);
    let orch = Orch::start(Settings::new(kind));
    let (mut one, mut three) = (Times::default(), Times::default());
    let (mut engine_one, mut engine_three) = (Times::default(), Times::default());
    for _ in 0..7 {
        for (copies, times) in [(2, &mut one), (4, &mut three)] {
            let begin = Instant::now();
            orch.scale(copies);
            orch.wait_ready(copies);
            times.push(begin.elapsed());
            orch.scale(1);
            orch.wait_ready(1);
        }
        if kind == Kind::Docker {
            engine_one.push(engine_alone(&orch, 1));
            engine_three.push(engine_alone(&orch, 3));
        }
    }
    let ratio = |three: &Times, one: &Times| {
        let (three, one) = (three.least().as_secs_f64(), one.least().as_secs_f64());
        if one > 0.0 { three / one } else { 1.0 }
    };
    let engine = ratio(&engine_three, &engine_one);
    println!(
        "{kind:?}: 1 to 2 copies {:.2?}, 1 to 4 copies {:.2?} at the least, ratio {:.2}; \
         medians {:.2?} and {:.2?}; the engine alone: ratio {engine:.2}",
        one.least(),
        three.least(),
        ratio(&three, &one),
        one.median(),
        three.median(),
    );
    // One after the other would be three times as long.
    let limit = one.least().mul_f64(f64::max(2.0, 1.5 * engine)) + PROBE_EVERY;
    assert!(
        three.least() < limit,
        "1 to 4 copies take {:?}, and 1 to 2 take {:?}: the limit is {limit:?}",
        three.least(),
        one.least(),
    );
}

/// How long the engine takes to run so many containers at once, nobody else asking it.
fn engine_alone(orch: &Orch, containers: u16) -> Duration {
    let name = |number| format!("{}-{number}", orch.volume());
    let begin = Instant::now();
    let clients: Vec<_> = (0..containers)
        .map(|number| {
            let port = format!("{}:8080", orch.start_port + 9 - number);
            let mut client = Command::new("docker");
            client.args([
                "run",
                "-d",
                "--rm",
                "-p",
                &port,
                "--name",
                &name(number),
                IMAGE,
            ]);
            client.stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut client in clients {
        assert!(client.wait().unwrap().success());
    }
    let took = begin.elapsed();
    for number in 0..containers {
        docker(&["rm", "-fv", &name(number)]);
    }
    took
}
