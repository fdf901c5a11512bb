//! Spares take the place of what is killed.

use std::{
    collections::BTreeSet,
    env, fs,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use orch_common::layout::program;

use super::replace::Killer;
use crate::{
    client,
    measure::Times,
    orch::{Kind, Orch, Settings, docker},
};

/// Enough of them that each has been well for ten seconds when its turn comes, at a kill a second:
/// a crash loop would slow the making of further ones.
const SPARES: usize = 14;
/// From the moment that the controller knows to the moment that the ring has the next one.
const LIMIT: Duration = Duration::from_millis(50);

fn orch(spares: usize, kind: &str) -> Orch {
    let mut settings = Settings::new(Kind::Docker);
    settings.scale = format!("spares = {spares}\nspare_kind = {kind:?}");
    let orch = Orch::start(settings);
    until_spares(&orch, spares);
    orch
}

fn until_spares(orch: &Orch, count: usize) {
    orch.until(&format!("{count} spares"), || {
        let rows = orch.slots();
        let spares = rows.iter().filter(|row| row.state == "spare").count();
        (spares == count && rows.len() == count + 1).then_some(())
    });
}

/// Replacements on one port in a row: 50, or as many as `ORCH_REPLACEMENTS` says. None fails, each
/// is in the ring within 50 ms (p95), and nothing is left of them.
pub fn replacements_in_a_row() {
    let count = env::var("ORCH_REPLACEMENTS").map_or(50, |count| count.parse().unwrap());
    let orch = orch(SPARES, "running");
    let mut times = Times::default();
    let mut interfaces = BTreeSet::new();
    // The first few make the controller open what it keeps open.
    for _ in 0..5 {
        replace(&orch);
    }
    until_spares(&orch, SPARES);
    let before = Held::by(&orch);
    for _ in 0..count {
        interfaces.insert(host_interface(&orch.slot(0).unwrap().backend));
        times.push(replace(&orch));
    }
    until_spares(&orch, SPARES);
    orch.until("the replaced containers are gone", || {
        (orch.containers().len() == SPARES + 1).then_some(())
    });
    let after = Held::by(&orch);
    println!("held before {before:?}, after {count} replacements {after:?}");
    assert_eq!(after.links, before.links);
    // A probe, or a call to the engine, may be under way.
    assert!(after.descriptors <= before.descriptors + 8, "{after:?}");
    let there = host_interfaces();
    let left: Vec<_> = interfaces.intersection(&there).collect();
    assert!(
        left.is_empty(),
        "interfaces of replaced containers: {left:?}"
    );
    times.report("a running spare, from detection to in the ring", LIMIT);
}

/// The same with spares that have no processor until then; and the next controller finds them.
pub fn frozen_spares() {
    let mut orch = orch(2, "frozen");
    let mut times = Times::default();
    for _ in 0..6 {
        times.push(replace(&orch));
        until_spares(&orch, 2);
    }
    times.report("a frozen spare, from detection to in the ring", LIMIT);
    let mut before = orch.ids();
    orch.end(Signal::SIGTERM);
    orch.launch();
    until_spares(&orch, 2);
    let mut after = orch.ids();
    assert_eq!(after.first(), before.first(), "the slot's is in its slot");
    for ids in [&mut before, &mut after] {
        ids.sort_unstable();
    }
    assert_eq!(after, before);
    replace(&orch);
    assert!(orch.end(Signal::SIGINT).success());
    assert_eq!(orch.remains(), Vec::<String>::new());
}

/// Kills the copy in slot 0, and gives the time from its detection to the next one in the ring.
fn replace(orch: &Orch) -> Duration {
    let old = orch.until("the copy has been well for ten seconds", || {
        let row = orch.slot(0)?;
        (row.state == "ready" && row.age_s > 10.5).then_some(row)
    });
    let spares: Vec<_> = orch.slots().into_iter().map(|row| row.backend).collect();
    let seen = orch.last_event();
    let mut killer = Killer::strike(orch.settings.kind, &old.backend);
    // By the engine's event, or by a probe that the kernel's own notice brought forward.
    let short = old.backend.get(..12).unwrap_or(&old.backend);
    let words = format!("{short} is replaced");
    let noticed = orch.until("the end is noticed", || {
        let mut events = orch.events().into_iter();
        events.find(|row| row.id > seen && row.text.contains(&words))
    });
    let back = orch.wait_event(seen, "replaced", "is in the ring");
    for address in [orch.address(), orch.slot_address(0)] {
        let answer = client::once(address, "GET", "/api/v1/whoami", "").unwrap();
        assert_eq!(answer.status, 200, "{address}");
    }
    let new = orch.slot(0).unwrap();
    assert!(spares.contains(&new.backend), "{new:?}");
    assert_eq!((new.port, new.state.as_str()), (old.port, "ready"));
    killer.wait();
    Duration::from_secs_f64((back.time - noticed.time).max(0.0))
}

/// What a controller holds.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    /// Links at interfaces of containers. Others come and go with tests beside this one.
    links: usize,
}

impl Held {
    fn by(orch: &Orch) -> Self {
        let entries = |path: String| fs::read_dir(path).unwrap().count();
        let of_container = |one: &fs::DirEntry| {
            let name = one.file_name();
            name.to_string_lossy().ends_with(program::VETH)
        };
        let versions = fs::read_dir(orch.pins()).unwrap().flatten();
        let links = versions.filter_map(|version| fs::read_dir(version.path().join("links")).ok());
        let links = links
            .flat_map(Iterator::flatten)
            .filter(of_container)
            .count();
        Self {
            descriptors: entries(format!("/proc/{}/fd", orch.pid())),
            links,
        }
    }
}

/// Index of the host's end of a container's interface.
fn host_interface(id: &str) -> String {
    let pid = docker(&["inspect", "--format={{.State.Pid}}", id]);
    let file = format!("/proc/{}/root/sys/class/net/eth0/iflink", pid.trim());
    fs::read_to_string(file).unwrap().trim().to_owned()
}

fn host_interfaces() -> BTreeSet<String> {
    let interfaces = fs::read_dir("/sys/class/net").unwrap().flatten();
    let indices = interfaces.filter_map(|one| fs::read_to_string(one.path().join("ifindex")).ok());
    indices.map(|index| index.trim().to_owned()).collect()
}

/// Spares of the kind that is the default: their program begins when it is needed, and the next
/// controller leaves them at their gates.
pub fn gated_spares(kind: Kind) {
    let mut settings = Settings::new(kind);
    "spares = 2".clone_into(&mut settings.scale);
    let mut orch = Orch::start(settings);
    until_spares(&orch, 2);
    assert_eq!(at_gates(&orch), 2);
    let took = replace(&orch);
    println!("{kind:?}: a gated spare, from detection to in the ring: {took:?}");
    until_spares(&orch, 2);
    let mut before = orch.ids();
    orch.end(Signal::SIGTERM);
    orch.launch();
    until_spares(&orch, 2);
    let mut after = orch.ids();
    for ids in [&mut before, &mut after] {
        ids.sort_unstable();
    }
    assert_eq!(after, before);
    assert_eq!(at_gates(&orch), 2);

    orch.scale(3);
    let rows = orch.wait_ready(3);
    assert!(rows.iter().all(|row| before.contains(&row.backend)));
    orch.until("the next two spares", || {
        (at_gates(&orch) == 2).then_some(())
    });
    let begun = Instant::now();
    assert!(orch.end(Signal::SIGINT).success());
    println!(
        "{kind:?}: ended with two at their gates in {:?}",
        begun.elapsed()
    );
    assert_eq!(orch.remains(), Vec::<String>::new());
}

/// How many spares run their gate and nothing else.
fn at_gates(orch: &Orch) -> usize {
    let rows = orch.slots().into_iter();
    let spares = rows.filter(|row| row.state == "spare");
    let gated = spares.filter(|row| {
        let id = row.backend.clone();
        let (pid, file) = match orch.settings.kind {
            Kind::Docker => (
                docker(&["inspect", "--format={{.State.Pid}}", &id]),
                ".orch-gate",
            ),
            Kind::Process => (id, "gate-"),
        };
        let program = fs::read_link(format!("/proc/{}/exe", pid.trim()));
        program.is_ok_and(|program| {
            let name = program.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with(file)
        })
    });
    gated.count()
}
