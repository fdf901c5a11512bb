//! Troubles of the host, one after the other, while clients outside open connections at a fixed rate.
//!
//! - `ORCH_DRILL_RATE`: connections a second (300).
//! - `ORCH_DRILL_FLOOD`: SYNs of the flood (100,000).
//! - `ORCH_DRILL_TROUBLES`: only those whose names hold one of these words, with commas between.

use std::{
    env,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use orch::view::SlotRow;
use socket2::{Domain, Protocol, Socket, Type};

use super::blow::Blow;
use crate::{
    engine::Way,
    frame::{Tcp, flag::SYN},
    orch::{Kind, Orch, Settings, docker},
    outside::Outside,
    volley::{Fate, Tally, Volley},
};

const COPIES: u16 = 3;
/// A copy that fails again sooner is held back by design (ten seconds of health reset that).
const WELL: f64 = 10.5;
const PATH: &str = "/api/v1/whoami";
/// Before a trouble and after it.
const BESIDE: Duration = Duration::from_millis(700);
/// How long the engine or the controller is away.
const AWAY: Duration = Duration::from_secs(2);
/// SYNs of the flood that go at a time, and the time between: 100,000 a second at the most.
const BURST: u32 = 100;
const REST: Duration = Duration::from_millis(1);
/// Bytes of a link header.
const ETHERNET: usize = 14;

/// What befalls the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    BackendKilled,
    BackendFrozen,
    EngineAway,
    ControllerKilled,
    InterfaceRemoved,
    Flood,
}

impl Trouble {
    const ALL: [Self; 6] = [
        Self::BackendKilled,
        Self::BackendFrozen,
        Self::EngineAway,
        Self::ControllerKilled,
        Self::InterfaceRemoved,
        Self::Flood,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::BackendKilled => "backend killed",
            Self::BackendFrozen => "backend frozen",
            Self::EngineAway => "engine away, backend killed",
            Self::ControllerKilled => "controller killed",
            Self::InterfaceRemoved => "interface removed",
            Self::Flood => "flow table flooded with SYNs",
        }
    }

    /// Has it happen, and waits until it is over.
    fn strike(self, host: &mut Host, oldest: &SlotRow) {
        match self {
            Self::BackendKilled => {
                Blow::Sigkill.strike(&host.orch, oldest, COPIES);
            }
            Self::BackendFrozen => {
                Blow::Pause.strike(&host.orch, oldest, COPIES);
            }
            Self::EngineAway => {
                host.way.cut();
                thread::sleep(AWAY);
                docker(&["kill", &oldest.backend]);
                thread::sleep(AWAY);
                host.way.mend();
                host.wait_replaced(oldest);
            }
            Self::ControllerKilled => {
                host.orch.end(Signal::SIGKILL);
                thread::sleep(AWAY);
                host.orch.launch();
                host.orch.wait_ready(COPIES);
            }
            Self::InterfaceRemoved => {
                docker(&[
                    "network",
                    "disconnect",
                    "--force",
                    "bridge",
                    &oldest.backend,
                ]);
                host.wait_replaced(oldest);
            }
            Self::Flood => flood(&host.outside, host.outside.to(host.orch.listen)),
        }
    }

    /// The most connections that may fail, of so many a second.
    fn allowed(self, rate: u32) -> usize {
        let share = (rate / u32::from(COPIES)) as usize;
        match self {
            // What was inside the copy; and a flood fills its backends' own queues, too.
            Self::BackendKilled | Self::EngineAway | Self::Flood => share,
            // Until its silence is told from that of its peers; and it may be that the machine is busy.
            Self::BackendFrozen | Self::InterfaceRemoved => 3 * share,
            Self::ControllerKilled => 0,
        }
    }
}

struct Host {
    orch: Orch,
    way: Way,
    outside: Outside,
}

impl Host {
    fn wait_replaced(&self, before: &SlotRow) {
        self.orch.until("another copy in its slot", || {
            let now = self.orch.slot(before.slot)?;
            (now.backend != before.backend && now.state == "ready" && now.healthy).then_some(())
        });
    }

    /// The copy that has been well for longest, once it has been for long enough.
    fn oldest(&self) -> SlotRow {
        self.orch.until("a copy has been well for long", || {
            let rows = self.orch.wait_ready(COPIES).into_iter();
            rows.filter(|row| row.age_s > WELL)
                .max_by(|one, other| one.age_s.total_cmp(&other.age_s))
        })
    }
}

/// SYNs from addresses that never answer, no two alike.
fn flood(outside: &Outside, to: SocketAddr) {
    let number = env::var("ORCH_DRILL_FLOOD").map_or(100_000, |text| text.parse().unwrap());
    outside.netns.within(|| {
        // `IPPROTO_RAW`: whole packets, as raw(7) says.
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
        let from = SocketAddr::from(([11, 0, 0, 1], 1));
        for number in 0..number {
            let [a, b, c, d] = u32::to_be_bytes(number);
            let port = 1024 + u16::from(d);
            let from = SocketAddr::new(([11, a, b, c]).into(), port.max(from.port()));
            let syn = Tcp::new(from, to, SYN).numbers(number, 0).frame();
            // What does not fit the queue is not sent; the flood is one all the same.
            let _ = raw.send_to(&syn[ETHERNET..], &to.into());
            if number % BURST == 0 {
                thread::sleep(REST);
            }
        }
    });
}

/// All of them; one report.
pub fn all() {
    let rate = env::var("ORCH_DRILL_RATE").map_or(300, |text| text.parse().unwrap());
    let words = env::var("ORCH_DRILL_TROUBLES").unwrap_or_default();
    let dir = tempfile::tempdir().unwrap();
    let way = Way::open(dir.path().join("docker.sock"));
    let mut settings = Settings::new(Kind::Docker).copies(COPIES);
    let endpoint = format!("unix://{}", way.path.display());
    settings.env = vec![("DOCKER_HOST".to_owned(), endpoint)];
    let mut host = Host {
        orch: Orch::start(settings),
        way,
        outside: Outside::new(),
    };
    let address = host.outside.to(host.orch.listen);
    let mut report = String::new();
    let mut wrong = Vec::new();
    let wanted = |trouble: &Trouble| words.split(',').any(|word| trouble.name().contains(word));
    for trouble in Trouble::ALL.into_iter().filter(wanted) {
        let oldest = host.oldest();
        let volley = Volley::start(Some(&host.outside.netns), address, PATH, rate);
        thread::sleep(BESIDE);
        let struck = Instant::now();
        trouble.strike(&mut host, &oldest);
        let lasted = struck.elapsed();
        thread::sleep(BESIDE);
        let tally = volley.finish();
        report += &line(trouble, &tally, lasted);
        let failed = failed(&tally);
        let late = (f64::from(rate) * tally.lag.as_secs_f64()).ceil() as usize;
        if failed > trouble.allowed(rate) + late {
            wrong.push(format!("{}: {failed} failed", trouble.name()));
        }
    }
    println!("clients outside, {rate} connections/s, {COPIES} containers\n{HEAD}{report}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

const HEAD: &str =
    "trouble                       lasted  offered answered  failed  longest gap  why\n";

/// Those without a whole good answer.
fn failed(tally: &Tally) -> usize {
    tally.losses.len() - tally.of(Fate::Stalled)
}

fn line(trouble: Trouble, tally: &Tally, lasted: Duration) -> String {
    let fates = [
        (Fate::Refused, "refused"),
        (Fate::Undelivered, "undelivered"),
        (Fate::Timeout, "timed out"),
        (Fate::Late, "closed before the client looked"),
        (Fate::Inside, "inside the copy"),
        (Fate::Unanswered, "unanswered"),
        (Fate::ServerError, "answered 5xx"),
        (Fate::Stalled, "(connected after a second)"),
    ];
    let why = fates.iter().map(|(fate, name)| (tally.of(*fate), name));
    let why: Vec<String> = why
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    let failed = failed(tally);
    format!(
        "{:<28} {:>5.1} s {:>8} {:>8} {:>7} {:>9.0?}  {}\n",
        trouble.name(),
        lasted.as_secs_f64(),
        tally.connections,
        tally.connections - failed as u64,
        failed,
        tally.gap,
        why.join(", ")
    )
}
