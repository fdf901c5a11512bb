//! Copies are struck, one at a time, in every way that there is, while clients open connections at
//! a fixed rate: what do they notice?
//!
//! - `ORCH_DRILL_KILLS`: blows of each kind (1).
//! - `ORCH_DRILL_RATE`: connections a second (300).
//! - `ORCH_DRILL_SPARES`: running spares (0).
//! - `ORCH_DRILL_KINDS`: only kinds whose names hold one of these words, with commas between.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write,
    thread,
    time::{Duration, Instant},
};

use super::blow::Blow;
use crate::{
    client,
    netns::NetNs,
    orch::{Kind, Orch, Settings},
    outside::Outside,
    volley::{Fate, Tally, Volley},
};

/// Copies that share the connections.
const COPIES: u16 = 3;
/// A copy that fails again sooner is held back by design (ten seconds of health reset that).
const WELL: f64 = 10.5;
/// A route that only says who answers.
const PATH: &str = "/api/v1/whoami";
/// Before a blow, so that the rate is steady; and after the copy is back, so that it is asked, too.
const BESIDE: Duration = Duration::from_millis(700);
/// Counters whose growth is shown.
const REASONS: [&str; 7] = [
    "rescued",
    "passed_by",
    "moved",
    "exited",
    "signalled",
    "silent",
    "failing",
];
/// What clients of a service with copies that serve should never see.
const KEPT_OUT: [Fate; 4] = [
    Fate::Refused,
    Fate::Undelivered,
    Fate::Stalled,
    Fate::Timeout,
];
/// Connections that one blow lets down, of which something is said.
const NOTES: u32 = 8;
/// What a probe takes to notice what only a probe can, twice over: within that time a copy that
/// answers badly, or not at all, is out of the ring on a machine that has other work.
const NOTICE: u32 = 6;
/// What a copy may let down that stops answering, and one that answers with errors.
const SILENT: u32 = 30;
const FAILING: u32 = 5;
/// How far in seconds a machine with other work is behind: answers that are late by as much come
/// from a copy that was still well, or say only then that it is not.
const BEHIND: f64 = 0.5;

/// Every kind of blow, for clients from outside.
pub fn outside_clients() {
    let outside = Outside::new();
    drill(&containers(), Some(&outside), &Blow::ALL);
}

/// Those that tell most, for clients on this host: their connections are given to a slot once, in
/// the call to connect, and nobody can give a refused one to another.
pub fn local_clients() {
    drill(&containers(), None, &[Blow::Sigkill, Blow::Crash]);
}

/// A copy whose listener lives on without anybody who accepts. `prefork` is the program of that name.
pub fn killed_workers(prefork: &str) {
    let mut settings = Settings::new(Kind::Process).copies(COPIES - 1);
    settings.program = Some(prefork.into());
    drill(&settings, None, &[Blow::Worker]);
    drill(&settings, Some(&Outside::new()), &[Blow::Worker]);
}

/// One copy fewer at the least than there are, so that one can be scaled away.
fn containers() -> Settings {
    Settings::new(Kind::Docker).copies(COPIES - 1)
}

/// What came of all blows of a kind.
struct Row {
    blow: Blow,
    tally: Tally,
    grown: BTreeMap<&'static str, u64>,
    notes: String,
}

fn drill(settings: &Settings, outside: Option<&Outside>, blows: &[Blow]) {
    let number = |name, usual| env::var(name).map_or(usual, |text| text.parse().unwrap());
    let kills = number("ORCH_DRILL_KILLS", 1);
    let rate = number("ORCH_DRILL_RATE", 300);
    let spares = number("ORCH_DRILL_SPARES", 0);
    let kinds = env::var("ORCH_DRILL_KINDS").unwrap_or_default();
    let mut settings = settings.clone();
    let delivery = match settings.kind {
        Kind::Docker => "direct",
        Kind::Process => "port",
    };
    settings.scale = format!("spares = {spares}\nspare_kind = \"running\"");
    let orch = Orch::start(settings);
    orch.scale(COPIES);
    let rows = orch.wait_ready(COPIES);
    assert!(rows.iter().all(|row| row.delivery == delivery), "{rows:?}");
    let address = outside.map_or(orch.address(), |outside| outside.to(orch.listen));
    let netns = outside.map(|outside| &outside.netns);
    let mut table = String::new();
    let mut wrong = Vec::new();
    let wanted = |blow: &&Blow| kinds.split(',').any(|word| blow.name().contains(word));
    for blow in blows.iter().filter(wanted) {
        let mut row = Row {
            blow: *blow,
            tally: Tally::default(),
            grown: BTreeMap::new(),
            notes: String::new(),
        };
        for _ in 0..kills {
            row.suffer(&orch, || Volley::start(netns, address, PATH, rate));
        }
        println!("{}", row.notes);
        table += &row.line();
        wrong.extend(row.wrong(kills, rate));
    }
    let from = netns.map_or("local", |_: &NetNs| "outside");
    println!(
        "{from} clients, {rate} connections/s, {kills} blows of a kind, {spares} spares\n{}{table}",
        Row::HEAD
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}

impl Row {
    const HEAD: &str = "kind            connections refused undelivered stalled timeouts late inside \
                        unanswered  5xx rescued passed_by moved exited \
                        signalled silent failing  lag\n";

    /// One blow, under load from before it until all copies are ready again.
    fn suffer(&mut self, orch: &Orch, load: impl FnOnce() -> Volley) {
        let oldest = orch.until("all copies have been well for long", || {
            let rows = orch.wait_ready(COPIES);
            // Scaling down takes the last slot.
            let mine = rows.into_iter().filter(|row| {
                row.age_s > WELL && (self.blow != Blow::ScaleDown || row.slot == COPIES - 1)
            });
            mine.max_by(|one, other| one.age_s.total_cmp(&other.age_s))
        });
        let before = counters(orch);
        let load = load();
        thread::sleep(BESIDE);
        let struck = self.blow.strike(orch, &oldest, COPIES);
        orch.wait_ready(COPIES);
        thread::sleep(BESIDE);
        let tally = load.finish();
        for (name, after) in counters(orch) {
            *self.grown.entry(name).or_default() += after - before[name];
        }
        self.note(&tally, struck);
        self.tally.add(tally);
    }

    /// Says what became of those that are not good; of the many that a copy lets down, of the first.
    fn note(&mut self, tally: &Tally, struck: Instant) {
        let after = |moment: Instant| {
            let late = moment.saturating_duration_since(struck);
            let early = struck.saturating_duration_since(moment);
            (late.as_secs_f64() - early.as_secs_f64()) * 1e3
        };
        let mut let_down = 0;
        for loss in &tally.losses {
            let_down += u32::from(!KEPT_OUT.contains(&loss.fate));
            if let_down > NOTES && !KEPT_OUT.contains(&loss.fate) {
                continue;
            }
            let (begun, ended) = (after(loss.begun), after(loss.ended));
            let _ = writeln!(
                self.notes,
                "{}: {:?}, {begun:.1} ms to {ended:.1} ms after the blow: {}",
                self.blow.name(),
                loss.fate,
                loss.how
            );
        }
    }

    fn line(&self) -> String {
        let of = |fate| self.tally.of(fate);
        let grown = |at: usize| self.grown[REASONS[at]];
        format!(
            "{:<15} {:>11} {:>7} {:>11} {:>7} {:>8} {:>4} {:>6} {:>10} {:>4} {:>7} {:>9} {:>5} {:>6} {:>9} {:>6} {:>7} {:>4.0?}\n",
            self.blow.name(),
            self.tally.connections,
            of(Fate::Refused),
            of(Fate::Undelivered),
            of(Fate::Stalled),
            of(Fate::Timeout),
            of(Fate::Late),
            of(Fate::Inside),
            of(Fate::Unanswered),
            of(Fate::ServerError),
            grown(0),
            grown(1),
            grown(2),
            grown(3),
            grown(4),
            grown(5),
            grown(6),
            self.tally.lag,
        )
    }

    /// What should not have happened.
    fn wrong(&self, kills: u32, rate: u32) -> Option<String> {
        let of = |fate| self.tally.of(fate);
        let kept_out: usize = KEPT_OUT.map(of).iter().sum();
        // One that had a connection to the copy, and had not got round to asking.
        let late = of(Fate::Late);
        let lag = self.tally.lag.as_secs_f64();
        let slow = (f64::from(rate / u32::from(COPIES)) * lag).ceil() as usize * kills as usize;
        let let_down = of(Fate::Inside) + of(Fate::Unanswered) + of(Fate::ServerError);
        // The share of one copy, for as long as nobody may have noticed.
        let share = (rate / u32::from(COPIES) * NOTICE * kills) as usize;
        // The kernel notices, and it sees answers as late as they are.
        let soon = |each| {
            let behind = f64::from(rate / u32::from(COPIES)) * (lag + BEHIND);
            ((f64::from(each) + behind) * f64::from(kills)) as usize
        };
        let right = match self.blow {
            Blow::Pause | Blow::Worker => kept_out + let_down <= soon(SILENT),
            Blow::Crash => kept_out == 0 && let_down <= soon(FAILING),
            Blow::ScaleDown => kept_out + let_down + late == 0,
            // It is passed by from the signal on.
            Blow::Stop | Blow::Close => kept_out + let_down == 0 && late <= slow,
            // What was inside a copy goes with it.
            _ => kept_out == 0 && late <= slow && let_down <= share,
        };
        (!right).then(|| {
            format!(
                "{}: kept out {kept_out}, let down {let_down}, late {late} of {slow}",
                self.blow.name()
            )
        })
    }
}

/// The counters of `REASONS`, now.
fn counters(orch: &Orch) -> BTreeMap<&'static str, u64> {
    let page = client::get_unix(&orch.control(), "/metrics").unwrap();
    let of = |name| {
        let label = format!("{{reason=\"{name}\"}} ");
        let value = page.lines().find_map(|line| line.split_once(&label));
        value.map_or(0, |(_, number)| number.parse::<f64>().unwrap() as u64)
    };
    REASONS.map(|name| (name, of(name))).into()
}
