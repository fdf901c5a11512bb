//! Mode http with a whole controller: copies, controllers and the gateway itself come and go.

use std::{
    env,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::lifetime;
use crate::{
    load::{Load, Style},
    orch::{Kind, Orch, Settings},
    outside::Outside,
    volley::{Fate, Volley},
};

/// Route that clients of the load ask.
const PATH: &str = "/api/v1/whoami";

fn http(kind: Kind) -> Settings {
    let mut settings = Settings::new(kind);
    "mode = \"http\"".clone_into(&mut settings.service);
    settings
}

/// So many of something, by the environment.
fn number(variable: &str, usual: u16) -> u16 {
    env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// Killed, ended and started again under load: no request fails, and counts go on.
pub fn controllers_change_under_load(kind: Kind) {
    lifetime::controllers_change(http(kind));
}

/// SIGINT leaves nothing, and no gateway.
pub fn an_interrupt_leaves_nothing(kind: Kind) {
    lifetime::an_interrupt(http(kind));
}

/// `orch down` leaves nothing, and no gateway.
pub fn down_leaves_nothing(kind: Kind) {
    lifetime::down(http(kind));
}

/// Clients from outside and from this host, without a pause of note. Few open a connection for each
/// request: a client has 28,232 ports for that, and each is its own for a minute.
fn crowd(orch: &Orch, outside: &Outside) -> Load {
    let pace = Duration::from_millis(1);
    let mut load = Load::new();
    for at in 0..number("ORCH_GATEWAY_CLIENTS", 16) {
        let style = match at / 2 % 4 {
            0 => Style::OneShot,
            _ => Style::KeepAlive,
        };
        load = if at % 2 == 0 {
            load.client(None, orch.address(), PATH, style, pace)
        } else {
            let netns = Some(&outside.netns);
            load.client(netns, outside.to(orch.listen), PATH, style, pace)
        };
    }
    load.wait_begun();
    load
}

/// Copies of which one after the other is killed.
const CRASHED: u16 = 10;

/// Ups and downs and killed copies under load. A request fails only if its answer had begun in a
/// copy that was killed; answers here are one piece, so that none does.
pub fn copies_come_and_go_under_load() {
    let outside = Outside::new();
    let orch = Orch::start(http(Kind::Process).copies(2));
    let begin = orch.services()[0].requests_total;
    let load = crowd(&orch, &outside);
    let started = Instant::now();
    for _ in 0..number("ORCH_GATEWAY_SCALES", 20) {
        orch.scale(4);
        orch.wait_ready(4);
        orch.scale(2);
        orch.wait_ready(2);
    }
    let scaled = orch.services()[0].requests_total;
    // One that fails again and again would be started later each time.
    orch.scale(CRASHED);
    for round in 0..number("ORCH_GATEWAY_CRASHES", 50) {
        let rows = orch.wait_ready(CRASHED);
        let victim: &str = &rows[usize::from(round % CRASHED)].backend;
        kill(Pid::from_raw(victim.parse().unwrap()), Signal::SIGKILL).unwrap();
        orch.until("it is replaced", || {
            let rows = orch.slots();
            let ready = rows
                .iter()
                .all(|row| row.state == "ready" && row.backend != victim);
            (ready && rows.len() == usize::from(CRASHED)).then_some(())
        });
    }
    let took = started.elapsed();
    let report = load.finish();
    println!(
        "{} requests in {took:.1?}, {} of them while the number changed, {} failed, longest {:.2?}",
        report.good,
        scaled - begin,
        report.failures.len(),
        report.longest
    );
    report.assert_flawless(1000);
    for row in orch.slots() {
        assert!(row.bytes_in > 0 && row.bytes_out > 0, "{row:?}");
    }
}

/// A gateway that dies is started again at once, with its counts; also one that an earlier controller has started.
pub fn a_dead_gateway_is_started_again() {
    let mut orch = Orch::start(http(Kind::Process).copies(2));
    for _ in 0..10 {
        assert_eq!(orch.ask("GET", PATH, "").status, 200);
    }
    orch.until("ten are counted", || {
        (orch.services().first()?.requests_total == 10).then_some(())
    });
    for round in 1..=3 {
        if round == 2 {
            orch.end(Signal::SIGKILL);
            orch.launch();
            orch.wait_ready(2);
            orch.until("what was counted is read", || {
                (orch.services().first()?.requests_total >= 10 + round - 1).then_some(())
            });
        }
        let before = orch::http::pid(&orch.control()).unwrap();
        kill(Pid::from_raw(before.cast_signed()), Signal::SIGKILL).unwrap();
        let after = orch.until("another one runs", || {
            orch::http::pid(&orch.control()).filter(|pid| *pid != before)
        });
        assert_ne!(before, after);
        let ask = || crate::client::once(orch.address(), "GET", PATH, "").ok();
        let answer = orch.until("it answers", ask);
        assert_eq!(answer.status, 200);
        orch.until("counts go on", || {
            (orch.services().first()?.requests_total >= 10 + round).then_some(())
        });
    }
}

/// Requests a second while a copy stands still, and copies.
const RATE: u32 = 300;
const FROZEN_OF: u16 = 3;

/// A copy that stands still, its listener open, is passed by before a probe has had the time to fail.
pub fn a_frozen_copy_is_passed_by() {
    let orch = Orch::start(http(Kind::Process).copies(FROZEN_OF));
    let rows = orch.wait_ready(FROZEN_OF);
    let before = orch.last_event();
    let load = Volley::start(None, orch.address(), PATH, RATE);
    orch.until("requests come", || {
        (orch.services().first()?.requests_total > u64::from(RATE)).then_some(())
    });
    let victim = &rows[1].backend;
    kill(Pid::from_raw(victim.parse().unwrap()), Signal::SIGSTOP).unwrap();
    let struck = Instant::now();
    let suspicion = orch.wait_event(before, "suspect", "has stopped answering");
    assert_eq!(suspicion.slot, Some(1), "{suspicion:?}");
    println!("told after {:.0?}", struck.elapsed());
    orch.until("another is in its place", || {
        let now = orch.slot(1)?;
        (now.backend != *victim && now.state == "ready").then_some(())
    });
    let tally = load.finish();
    println!(
        "{} of {} requests were inside",
        tally.losses.len(),
        tally.connections
    );
    // Some tens, and its share of the time by which a busy machine is behind.
    let behind = 0.5 + tally.lag.as_secs_f64();
    let most = 30 + (f64::from(RATE / u32::from(FROZEN_OF)) * behind) as usize;
    assert!(tally.losses.len() <= most, "{:#?}", tally.losses);
    let strangers = |fate: &Fate| !matches!(fate, Fate::Unanswered | Fate::ServerError);
    let odd = tally.losses.iter().find(|loss| strangers(&loss.fate));
    assert!(odd.is_none(), "{odd:?}");
}
