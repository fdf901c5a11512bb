//! A service without a copy: connections wait, and the first of them starts one.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::bystander::Bystander;
use crate::{
    client::{self, Client},
    load::{Load, Style},
    netns::Entry,
    orch::{Kind, Orch, Settings, docker},
    outside::Outside,
};

/// Connections to a service at zero, of each kind.
const ROUNDS: usize = 20;
/// Where the last of the clients is.
const IN_A_CONTAINER: &str = "in a container";
/// What is cheap: it answers from memory.
const PATH: &str = "/api/v1/whoami";
/// A client's first repetition comes after a second: whoever needs less than this beyond the start
/// has not needed it.
const REPETITION: Duration = Duration::from_millis(900);
/// A copy that fails again sooner is held back by design (ten seconds of health reset that).
const WELL: f64 = 10.5;

/// A service that sleeps as soon as it has nothing to do.
fn sleeper(kind: Kind, outside: &Outside) -> Orch {
    let mut settings = Settings::new(kind).copies(0);
    settings.dataplane = format!("interfaces = [{:?}]", outside.device);
    "idle = \"1ms\"".clone_into(&mut settings.scale);
    let orch = Orch::start(settings);
    orch.until("the controller", || orch.services().pop());
    orch
}

/// Clients from outside, from this host and from one of its containers connect to nothing, and are
/// connected as soon as there is something.
pub fn from_zero(kind: Kind) {
    let outside = Outside::new();
    let orch = sleeper(kind, &outside);
    let status = orch.verb(&["status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        said.contains("has no copies: the next connection starts one"),
        "{said}"
    );
    let far = outside.to(orch.listen);
    let mut ways = vec![
        ("outside", outside.netns.entry(), far),
        ("local", Entry::here(), orch.address()),
    ];
    let bystander = (kind == Kind::Docker).then(|| Bystander::start(&orch.settings.image));
    if let Some(bystander) = &bystander {
        let there = bystander.to(orch.listen);
        ways.push((IN_A_CONTAINER, bystander.entry(), there));
    }
    for (what, from, address) in ways {
        let mut times = (Vec::new(), Vec::new());
        // A container's clients wait where the host's do.
        let rounds = if what == IN_A_CONTAINER {
            ROUNDS / 4
        } else {
            ROUNDS
        };
        for _ in 0..rounds {
            let (connected, answered) = once_from_zero(&orch, what, &from, address);
            times.0.push(connected);
            times.1.push(answered);
        }
        report(
            &format!("{kind:?}, {what}: from zero to connected"),
            times.0,
        );
        report(
            &format!("{kind:?}, {what}: from zero to the first answer"),
            times.1,
        );
    }
}

fn report(what: &str, mut seconds: Vec<f64>) {
    seconds.sort_unstable_by(f64::total_cmp);
    let ms = |rank: usize| 1e3 * seconds[rank];
    println!(
        "{what}, beyond the start: p50 {:.2}, p95 {:.2}, max {:.2} ms",
        ms(seconds.len() / 2),
        ms(seconds.len() * 95 / 100 - 1),
        ms(seconds.len() - 1)
    );
}

/// Seconds from the moment that the copy was in the ring until the client was connected, and until
/// it had its answer.
fn once_from_zero(
    orch: &Orch,
    what: &str,
    from: &Entry,
    address: std::net::SocketAddr,
) -> (f64, f64) {
    orch.until("it sleeps", || {
        let row = orch.services().pop()?;
        let gone = orch.slots().iter().all(|slot| slot.backend.is_empty());
        (row.desired == 0 && row.ready == 0 && gone).then_some(())
    });
    let before = orch.last_event();
    let ask = || {
        let begun = Instant::now();
        let mut client = Client::connect(address)?;
        let connected = begun.elapsed();
        let answer = client.ask("GET", PATH, "")?;
        Ok::<_, std::io::Error>((connected, begun.elapsed(), answer))
    };
    let asked = from.within(ask);
    let (connected, took, answer) = asked.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(answer.status, 200, "{what}");
    let woken = orch.wait_event(before, "scaled", "a connection waits").time;
    let ready = orch.wait_event(before, "ready", "is in the ring").time;
    let start = Duration::from_secs_f64((ready - woken).max(0.0));
    assert!(
        took < start + REPETITION,
        "{what}: answered after {took:?}, and the copy was ready after {start:?}"
    );
    let beyond = |time: Duration| (time.as_secs_f64() - start.as_secs_f64()).max(0.0);
    (beyond(connected), beyond(took))
}

/// A burst of clients at once: all get in, by one copy, and none by its own repetition.
pub fn a_burst_from_zero(kind: Kind) {
    let outside = Outside::new();
    let orch = sleeper(kind, &outside);
    let address = outside.to(orch.listen);
    let before = orch.last_event();
    let clients: Vec<_> = (0..200)
        .map(|_| {
            let inside = outside.netns.entry();
            thread::spawn(move || {
                inside.enter();
                let begun = Instant::now();
                client::once(address, "GET", PATH, "").map(|answer| (begun.elapsed(), answer))
            })
        })
        .collect();
    let mut longest = Duration::ZERO;
    for one in clients {
        let (took, answer) = one.join().unwrap().unwrap();
        assert_eq!(answer.status, 200);
        longest = longest.max(took);
    }
    let woken = orch.wait_event(before, "scaled", "a connection waits").time;
    let ready = orch.wait_event(before, "ready", "is in the ring").time;
    println!(
        "{kind:?}: 200 clients at zero: start {:.3} s, slowest answer {longest:?}",
        ready - woken
    );
}

/// A single copy that is killed again and again under load: whoever connects meanwhile waits, and
/// nobody is refused. What was inside a killed copy breaks, and is counted apart.
pub fn a_single_copy_is_killed(kind: Kind) {
    let number = |name, usual| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let kills = number("ORCH_HOLD_KILLS", 5);
    // For minutes on end, a client has 470 ports a second.
    let pace = number("ORCH_HOLD_PACE", if kills <= 5 { 5 } else { 40 });
    let pace = Duration::from_millis(pace as u64);
    let outside = Outside::new();
    let mut settings = Settings::new(kind);
    settings.dataplane = format!("interfaces = [{:?}]", outside.device);
    let orch = Orch::start(settings);
    let mut load = Load::new();
    for _ in 0..4 {
        let far = outside.to(orch.listen);
        load = load
            .client(Some(&outside.netns), far, PATH, Style::OneShot, pace)
            .client(None, orch.address(), PATH, Style::OneShot, pace);
    }
    load.wait_begun();
    let mut served = 0;
    for _ in 0..kills {
        let (old, requests) = orch.until("a copy that may fail", || {
            let row = orch.slot(0)?;
            // A few in a row are held back for seconds, many would be for half a minute each.
            let well = kills <= 5 || row.age_s > WELL;
            let asked = row.requests >= served + 40;
            (row.state == "ready" && row.healthy && well && asked)
                .then_some((row.backend, row.requests))
        });
        served = requests;
        strike(kind, &old);
        orch.until("another copy", || {
            let row = orch.slot(0)?;
            (row.state == "ready" && row.healthy && row.backend != old).then_some(())
        });
    }
    let report = load.finish();
    // A client outside that finds all its ports in use has asked nobody. On this host the programs take
    // part in `connect`, so that there it counts.
    let no_port = format!("os error {}", Errno::EADDRNOTAVAIL as i32);
    let is_sent =
        |failure: &String| !(failure.starts_with("outside") && failure.contains(&no_port));
    let (failures, unsent): (Vec<_>, Vec<_>) = report.failures.into_iter().partition(is_sent);
    let is_refused = |failure: &&String| failure.contains("refused");
    let refused = failures.iter().filter(is_refused).count();
    println!(
        "{kind:?}: {kills} kills of the only copy: {} answered, {refused} refused, {} broken, longest {:?}; {} found no port",
        report.good,
        failures.len() - refused,
        report.longest,
        unsent.len()
    );
    for (who_and_how, count) in kinds(&failures) {
        println!("  {count} {who_and_how}");
    }
    assert_eq!(refused, 0, "{failures:#?}");
    // Each of eight clients can have had one request inside at each kill.
    assert!(failures.len() <= 8 * kills, "{failures:#?}");
    assert!(report.good > 20 * kills as u64, "hardly any load");
}

/// How many failed in which way, clients from outside and local ones apart. A failure says who, when,
/// how long after, and behind the colon how.
fn kinds(failures: &[String]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for failure in failures {
        let who = failure.split(' ').next().unwrap_or_default();
        let how = failure
            .split_once(": ")
            .map_or(failure.as_str(), |parts| parts.1);
        let how = how.split(", from").next().unwrap_or_default();
        *kinds.entry(format!("{who}: {how}")).or_default() += 1;
    }
    kinds
}

fn strike(kind: Kind, backend: &str) {
    match kind {
        Kind::Docker => {
            docker(&["kill", backend]);
        }
        Kind::Process => kill(Pid::from_raw(backend.parse().unwrap()), Signal::SIGKILL).unwrap(),
    }
}

/// Where no copy can start, whoever waits is refused, and need not wait for longer than that takes
/// to be known.
pub fn a_failed_start_refuses() {
    let outside = Outside::new();
    let mut settings = Settings::new(Kind::Process).copies(0);
    settings.dataplane = format!("interfaces = [{:?}]", outside.device);
    let mut orch = Orch::prepare(settings);
    // It ends at once.
    orch.write_file(&orch.text().replace("\"--port\"", "\"--nonsense\""));
    orch.launch();
    orch.until("the controller", || orch.services().pop());
    let far = outside.to(orch.listen);
    let error = outside
        .netns
        .within(|| client::once(far, "GET", PATH, ""))
        .unwrap_err();
    assert!(error.to_string().contains("refused"), "outside: {error}");
    orch.wait_event(0, "exited", "");
    // By now the next try may be under way: either way the answer is no.
    let error = client::once(orch.address(), "GET", PATH, "").unwrap_err();
    println!("local: {error}");
}

/// In mode http the gateway has requests wait, and the first of them starts a copy.
pub fn from_zero_in_mode_http(kind: Kind) {
    let mut settings = Settings::new(kind).copies(0);
    "mode = \"http\"".clone_into(&mut settings.service);
    "idle = \"1ms\"".clone_into(&mut settings.scale);
    let orch = Orch::start(settings);
    for round in 0..3 {
        orch.until("no copy", || {
            let none = orch.services().pop()?.desired == 0;
            let gone = orch.slots().iter().all(|row| row.backend.is_empty());
            (none && gone).then_some(())
        });
        let answer = client::once(orch.address(), "GET", PATH, "").unwrap();
        assert_eq!(answer.status, 200, "round {round}");
    }
    let events = orch.events();
    let woken = events
        .iter()
        .filter(|event| event.text.contains("a connection waits"));
    assert!(woken.count() >= 3, "{events:#?}");
}
