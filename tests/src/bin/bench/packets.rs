//! Nanoseconds per packet by `BPF_PROG_TEST_RUN`, sizes of the programs, memory of the maps.
//!
//! A run changes the packet, so each frame runs once, cold: system call, timer and caches are part
//! of it, as the time of the empty program shows. Where the program leaves the frame as it is, the
//! same is measured warm as well, in many runs of one call. So that a hit is among them, one slot
//! has the service's own port: everything is done as ever and the frame is the same afterwards.

use orch::{
    config::Local,
    dataplane::{Dataplane, SlotEntry},
};
use orch_common::{
    layout::{
        map,
        program::{EGRESS, GUARD, INGRESS, RECEIVED, SENT, VETH},
    },
    slot::SlotKey,
};

use crate::{
    Result,
    empty::Empty,
    frames::{data, data6, direct_reply, fragment, other, reply, request, slot_syn, syn, syn6},
    peers::{self, Entry},
    report::{Table, bytes, median, percentile},
    topology::{Container, SLOTS, Topology},
};

/// Runs of one call, warm.
const WARM: u32 = 100_000;
/// Such calls, of which the median counts.
const CALLS: usize = 9;

/// One kind of packet.
struct Case {
    what: &'static str,
    program: &'static str,
    frame: fn(u16) -> Vec<u8>,
    /// How the slot reaches its backend.
    entry: Entry,
    effect: Effect,
}

/// What the program makes of the frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Rewritten,
    /// The same, and sends it past the stack.
    Redirected,
    Untouched,
}

/// The tables of this part.
pub(crate) fn measure(runs: u16) -> Result<Vec<Table>> {
    let topology = Topology::with_backends(1, 1)?;
    let mut dataplane = peers::orch(&topology, Local::Auto, peers::port)?;
    let mut empty = Empty::load()?;
    // Programs ask for the interfaces of the namespace that they are run from.
    let times = topology
        .host
        .within(|| times(&topology, &mut dataplane, &mut empty, runs))?;
    let mut tables = vec![times, programs(&dataplane), memory(&dataplane)?];
    peers::Running::Orch(dataplane).stop(&topology)?;
    let mut deaf = peers::orch_deaf(&topology, peers::port)?;
    let without = topology
        .host
        .within(|| times_without_signals(&topology, &mut deaf, &mut empty, runs))?;
    peers::Running::Orch(deaf).stop(&topology)?;
    tables.insert(1, without);
    Ok(tables)
}

/// All of them.
fn times(
    topology: &Topology,
    dataplane: &mut Dataplane,
    empty: &mut Empty,
    runs: u16,
) -> Result<Table> {
    let floor = floor(empty, runs)?;
    let mut table = table("Time per packet", floor);
    let container = topology.containers.first().ok_or("no container")?;
    for (case, generation) in cases().iter().zip(2..) {
        table.row(case.measure(dataplane, container, generation, (runs, floor))?);
    }
    for (what, frame, generation) in [
        ("known flow, ACK", data as fn(u16) -> Vec<u8>, 101),
        ("known flow, request", request, 102),
    ] {
        // A slot that has the service's own port.
        let entry = SlotEntry {
            generation,
            ..peers::port(80, container)
        };
        set(dataplane, &entry)?;
        dataplane.trial(INGRESS, &syn(0))?;
        let time = warm(dataplane, INGRESS, &frame(0))?;
        table.row(row(what, INGRESS, None, Some(time), floor));
    }
    Ok(table)
}

/// Those of packets with payload, by programs that do not look at it.
fn times_without_signals(
    topology: &Topology,
    dataplane: &mut Dataplane,
    empty: &mut Empty,
    runs: u16,
) -> Result<Table> {
    let floor = floor(empty, runs)?;
    let mut table = table("Time per packet, without golden signals", floor);
    let container = topology.containers.first().ok_or("no container")?;
    let all = cases();
    let carry = |case: &&Case| case.what.ends_with("request") || case.what.ends_with("reply");
    for (case, generation) in all.iter().filter(carry).zip(2..) {
        table.row(case.measure(dataplane, container, generation, (runs, floor))?);
    }
    Ok(table)
}

/// What the empty program takes.
#[derive(Clone, Copy)]
struct Floor {
    cold: f64,
    late: f64,
    warm: f64,
}

fn floor(empty: &mut Empty, runs: u16) -> Result<Floor> {
    let cold = (0..runs)
        .map(|port| Ok(nanos(empty.time(&data(port), 1)?)))
        .collect::<Result<Vec<f64>>>()?;
    let warm = (0..CALLS)
        .map(|_| Ok(nanos(empty.time(&data(0), WARM)?)))
        .collect::<Result<Vec<f64>>>()?;
    Ok(Floor {
        late: percentile(cold.iter().copied(), 99),
        cold: median(cold),
        warm: median(warm),
    })
}

fn table(title: &'static str, floor: Floor) -> Table {
    let head = [
        "packet",
        "program",
        "cold ns",
        "p99",
        "less empty",
        "warm ns",
        "less empty",
    ];
    let mut table = Table::new(title, &head);
    let cold = Some((floor.cold, floor.late));
    let line = row("empty program", "orch_empty", cold, Some(floor.warm), floor);
    table.row(line);
    table
}

impl Case {
    fn measure(
        &self,
        dataplane: &mut Dataplane,
        container: &Container,
        generation: u32,
        (runs, floor): (u16, Floor),
    ) -> Result<Vec<String>> {
        let entry = SlotEntry {
            generation,
            ..(self.entry)(SLOTS, container)
        };
        prepare(dataplane, runs, &entry)?;
        self.check(dataplane, runs)?;
        let cold = (0..runs)
            .map(|port| {
                Ok(nanos(dataplane.time(
                    self.program,
                    &(self.frame)(port),
                    1,
                )?))
            })
            .collect::<Result<Vec<f64>>>()?;
        let warm = if self.effect == Effect::Untouched {
            Some(warm(dataplane, self.program, &(self.frame)(0))?)
        } else {
            None
        };
        let late = percentile(cold.iter().copied(), 99);
        Ok(row(
            self.what,
            self.program,
            Some((median(cold), late)),
            warm,
            floor,
        ))
    }

    /// A time says nothing if the program does something else than what it is measured for.
    fn check(&self, dataplane: &mut Dataplane, port: u16) -> Result<()> {
        /// `TC_ACT_REDIRECT`, from `linux/pkt_cls.h`.
        const REDIRECT: i32 = 7;
        // `trial` is for TC programs.
        if [SENT, RECEIVED].contains(&self.program) {
            return Ok(());
        }
        let frame = (self.frame)(port);
        let trial = dataplane.trial(self.program, &frame)?;
        let effect = match (trial.verdict, trial.frame == frame) {
            (REDIRECT, _) => Effect::Redirected,
            (_, true) => Effect::Untouched,
            (_, false) => Effect::Rewritten,
        };
        if effect == self.effect {
            return Ok(());
        }
        Err(format!("{}: {} does something else", self.what, self.program).into())
    }
}

/// `cold` is the median and the 99th percentile.
fn row(
    what: &str,
    program: &str,
    cold: Option<(f64, f64)>,
    warm: Option<f64>,
    floor: Floor,
) -> Vec<String> {
    let number =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
    vec![
        what.to_owned(),
        program.to_owned(),
        number(cold.map(|(middle, _)| middle)),
        number(cold.map(|(_, late)| late)),
        number(cold.map(|(middle, _)| middle - floor.cold)),
        number(warm),
        number(warm.map(|warm| warm - floor.warm)),
    ]
}

fn warm(dataplane: &mut Dataplane, program: &'static str, frame: &[u8]) -> Result<f64> {
    let calls = (0..CALLS)
        .map(|_| Ok(nanos(dataplane.time(program, frame, WARM)?)))
        .collect::<Result<Vec<f64>>>()?;
    Ok(median(calls))
}

fn nanos(time: std::time::Duration) -> f64 {
    time.as_nanos() as f64
}

/// A slot, and a known flow for every client port, one for a check among them, and, where the backend has both, both families.
fn prepare(dataplane: &mut Dataplane, runs: u16, entry: &SlotEntry) -> Result<()> {
    set(dataplane, entry)?;
    dataplane.set_ring(0, &[0])?;
    for port in 0..=runs {
        dataplane.trial(INGRESS, &syn(port))?;
        dataplane.trial(INGRESS, &syn6(port))?;
    }
    Ok(())
}

/// Puts a slot, whose flows are new ones, in the place of the one before.
fn set(dataplane: &mut Dataplane, entry: &SlotEntry) -> Result<()> {
    let key = SlotKey {
        service: 0,
        slot: 0,
    };
    dataplane.remove_slot(key)?;
    Ok(dataplane.set_slot(key, entry)?)
}

/// What is measured: a line each.
fn cases() -> Vec<Case> {
    type Frame = fn(u16) -> Vec<u8>;
    let case = |what, program, frame: Frame, entry: Entry, effect| Case {
        what,
        program,
        frame,
        entry,
        effect,
    };
    let port = |what, program, frame| case(what, program, frame, peers::port, Effect::Rewritten);
    let direct =
        |what, program, frame| case(what, program, frame, peers::direct, Effect::Redirected);
    let idle = |what, program, frame| case(what, program, frame, peers::port, Effect::Untouched);
    vec![
        port("known flow, ACK", INGRESS, data),
        port("known flow, request", INGRESS, request),
        port("known flow, IPv6", INGRESS, data6),
        port("new flow", INGRESS, |port| syn(port + 20_000)),
        port("reply", EGRESS, reply),
        direct("direct: known flow, ACK", INGRESS, data),
        direct("direct: known flow, request", INGRESS, request),
        direct("direct: new flow", INGRESS, |port| syn(port + 30_000)),
        direct("direct: reply", VETH, direct_reply),
        idle("not ours, arriving", INGRESS, other),
        idle("not ours, leaving", EGRESS, other),
        idle("not ours, from a backend", VETH, other),
        idle("not ours, guarded", GUARD, other),
        idle("not ours, sent", SENT, other),
        idle("not ours, received", RECEIVED, other),
        idle("SYN to a slot port", INGRESS, slot_syn),
        idle("fragment", INGRESS, fragment),
        idle("no flow", INGRESS, |port| data(port + 40_000)),
    ]
}

fn programs(dataplane: &Dataplane) -> Table {
    let head = ["program", "instructions", "machine code", "verified"];
    let mut table = Table::new("Programs", &head);
    for size in dataplane.programs() {
        table.row(vec![
            size.name,
            size.instructions.to_string(),
            bytes(size.machine_code.into()),
            size.verified.to_string(),
        ]);
    }
    table
}

fn memory(dataplane: &Dataplane) -> Result<Table> {
    let head = ["map", "entries", "memory", "bytes per entry"];
    let mut table = Table::new("Kernel memory", &head);
    let maps = dataplane.memory()?;
    let total = maps.iter().map(|map| map.bytes).sum();
    for map in maps.iter().filter(|map| map.name == map::FLOWS) {
        table.row(vec![
            map.name.to_owned(),
            map.entries.to_string(),
            bytes(map.bytes),
            format!("{:.0}", map.bytes as f64 / f64::from(map.entries)),
        ]);
    }
    table.row(vec![
        "all maps".to_owned(),
        String::new(),
        bytes(total),
        String::new(),
    ]);
    Ok(table)
}
