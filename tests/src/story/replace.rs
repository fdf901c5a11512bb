//! Backends that fail are replaced on their port.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    client,
    measure::Times,
    orch::{Kind, Orch, Settings, docker},
};

/// Failures that are measured.
const ROUNDS: u16 = 20;
/// Copies: each fails every so many rounds.
const COPIES: u16 = 10;
/// A copy that fails again sooner is held back by design (ten seconds of health reset that).
const WELL: f64 = 10.5;

/// A copy that answers 500 is replaced, by another one on the same port, within 2.5 s.
pub fn crashed_copies(kind: Kind) {
    let orch = Orch::start(Settings::new(kind).copies(COPIES));
    let mut times = Times::default();
    for round in 0..ROUNDS {
        let slot = round % COPIES;
        let old = settled(&orch, slot);
        let address = orch.slot_address(slot);
        let answer = client::once(address, "POST", "/api/v1/_crash", "").unwrap();
        assert_eq!(answer.status, 200);
        let crashed = Instant::now();
        orch.until("another copy on the port", || replaced(&orch, slot, &old));
        times.push(crashed.elapsed());
        let answer = client::once(address, "GET", "/api/v1/whoami", "").unwrap();
        assert_eq!(answer.status, 200);
    }
    let what = format!("{kind:?}: from _crash to another healthy copy on the port");
    times.report(&what, Duration::from_millis(2500));
}

/// A copy that is killed is out of the ring at once, and replaced within 2 s. The times count from
/// the moment that the engine says the container died, or that the process was killed, to the moment
/// that the controller's answer shows it; so they hold a bit more than what is asked for.
pub fn killed_copies(kind: Kind) {
    let orch = Orch::start(Settings::new(kind).copies(COPIES));
    let (mut out, mut back) = (Times::default(), Times::default());
    for round in 0..ROUNDS {
        let slot = round % COPIES;
        let old = settled(&orch, slot);
        let mut killer = Killer::strike(kind, &old);
        orch.until("the copy is out of the ring", || {
            let row = orch.slot(slot)?;
            (row.state != "ready" || row.backend != old).then_some(())
        });
        let gone = since_1970();
        // What the controller says is what clients see: none is sent to the dead one.
        let serves = client::once(orch.address(), "GET", "/api/v1/whoami", "").unwrap();
        assert_eq!(serves.status, 200);
        orch.until("another copy on the port", || replaced(&orch, slot, &old));
        let new = since_1970();
        let died = killer.died_at(&old);
        out.push(gone.saturating_sub(died));
        back.push(new.saturating_sub(died));
    }
    let event = match kind {
        Kind::Docker => "the engine's event",
        Kind::Process => "the kill",
    };
    out.report(
        &format!("{kind:?}: from {event} to out of the ring"),
        Duration::from_millis(100),
    );
    back.report(
        &format!("{kind:?}: from {event} to another healthy copy on the port"),
        Duration::from_secs(2),
    );
}

/// The id of the copy in the slot, once it has been well for long enough.
fn settled(orch: &Orch, slot: u16) -> String {
    let row = orch.until("the copy has been well for long", || {
        let row = orch.slot(slot)?;
        (row.state == "ready" && row.age_s > WELL).then_some(row)
    });
    assert_eq!(row.port, orch.start_port + slot);
    row.backend
}

fn replaced(orch: &Orch, slot: u16, old: &str) -> Option<()> {
    let row = orch.slot(slot)?;
    let new = row.backend != old && row.port == orch.start_port + slot;
    (new && row.state == "ready" && row.healthy).then_some(())
}

/// What kills a copy. The engine's client takes its time to end, so nobody waits for it here.
pub(super) enum Killer {
    Client(Child),
    Kernel(Duration),
}

impl Killer {
    pub(super) fn strike(kind: Kind, id: &str) -> Self {
        if kind == Kind::Docker {
            let mut client = Command::new("docker");
            client.args(["kill", id]).stdout(Stdio::null());
            return Self::Client(client.spawn().unwrap());
        }
        let pid = Pid::from_raw(id.parse().unwrap());
        let now = since_1970();
        kill(pid, Signal::SIGKILL).unwrap();
        Self::Kernel(now)
    }

    /// Until the engine's client has ended.
    pub(super) fn wait(&mut self) {
        if let Self::Client(client) = self {
            client.wait().unwrap();
        }
    }

    fn died_at(&mut self, id: &str) -> Duration {
        match self {
            Self::Client(client) => {
                client.wait().unwrap();
                died_at(id)
            }
            Self::Kernel(at) => *at,
        }
    }
}

/// When the engine says that the container died.
fn died_at(id: &str) -> Duration {
    let until = format!("{:.3}", since_1970().as_secs_f64());
    let container = format!("container={id}");
    let printed = docker(&[
        "events",
        "--since=60s",
        &format!("--until={until}"),
        "--filter",
        &container,
        "--filter=event=die",
        "--format={{.TimeNano}}",
    ]);
    let nanos = printed.lines().next().unwrap().parse().unwrap();
    Duration::from_nanos(nanos)
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}
