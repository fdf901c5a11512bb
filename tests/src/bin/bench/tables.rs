//! What was measured, as tables: medians, and ratios to no balancer.

use crate::{
    compare::Measured,
    load::{Kind, Sample},
    peers::{Peer, Scene},
    report::{Table, median},
};

const HEAD: [&str; 13] = [
    "",
    "requests/s",
    "ratio",
    "p50 us",
    "p99 us",
    "conn/s",
    "ratio",
    "p50 us",
    "p99 us",
    "Gbit/s",
    "ratio",
    "errors",
    "SYNs repeated",
];

const CPU_HEAD: [&str; 7] = [
    "",
    "us/request",
    "ratio",
    "us/connection",
    "ratio",
    "us/MiB",
    "ratio",
];

/// The table of a scene.
pub(crate) fn of_scene(measured: &[Measured], scene: Scene) -> Table {
    let mut table = Table::new(scene.title(), &HEAD);
    let all: Vec<&Measured> = measured.iter().filter(|m| m.scene == scene).collect();
    for peer in peers(&all) {
        let mut row = vec![peer.name().to_owned()];
        for kind in Kind::ALL {
            let middle = |value: fn(&Sample) -> f64| {
                median(cells(&all, peer, kind).map(|m| value(&m.sample)))
            };
            let (rate, ratio) = (
                middle(|s| s.rate),
                ratio(&all, peer, &[Peer::Straight], kind, |s| s.rate),
            );
            if kind == Kind::Bulk {
                row.extend([format!("{:.2}", rate / 1e9), format!("{ratio:.2}")]);
                continue;
            }
            row.extend([
                format!("{rate:.0}"),
                format!("{ratio:.2}"),
                format!("{:.0}", middle(|s| s.p50)),
                format!("{:.0}", middle(|s| s.p99)),
            ]);
        }
        row.push(sums(&all, peer, |s| s.errors));
        row.push(sums(&all, peer, |s| s.repeated));
        table.row(row);
    }
    table
}

/// CPU time per answer, and how many times as much would be done with the same time.
pub(crate) fn of_cpu(measured: &[Measured], scene: Scene) -> Table {
    let mut table = Table::new("The same, CPU time of all who took part", &CPU_HEAD);
    let all: Vec<&Measured> = measured.iter().filter(|m| m.scene == scene).collect();
    for peer in peers(&all) {
        let mut row = vec![peer.name().to_owned()];
        for kind in Kind::ALL {
            let cost = median(cells(&all, peer, kind).map(|m| m.sample.cpu));
            let ratio = ratio(&all, peer, &[Peer::Straight], kind, |s| 1.0 / s.cpu);
            row.extend([format!("{cost:.1}"), format!("{ratio:.2}")]);
        }
        table.row(row);
    }
    table
}

fn peers(all: &[&Measured]) -> impl Iterator<Item = Peer> {
    let there = |peer: &Peer| all.iter().any(|m| m.peer == *peer);
    Peer::ALL.into_iter().filter(there)
}

fn cells<'a>(
    all: &'a [&Measured],
    peer: Peer,
    kind: Kind,
) -> impl Iterator<Item = &'a &'a Measured> {
    all.iter().filter(move |m| m.peer == peer && m.kind == kind)
}

/// The median of the ratios to the best of some others in the same pass: what else the machine
/// does changes from pass to pass, and both of a pair suffer from it.
pub(crate) fn ratio(
    all: &[&Measured],
    peer: Peer,
    than: &[Peer],
    kind: Kind,
    value: fn(&Sample) -> f64,
) -> f64 {
    median(cells(all, peer, kind).filter_map(|own| {
        let others = than.iter().flat_map(|other| cells(all, *other, kind));
        let same = others.filter(|other| other.pass == own.pass);
        let best = same.map(|other| value(&other.sample)).reduce(f64::max)?;
        Some(value(&own.sample) / best)
    }))
}

/// What was counted, by what was measured; `0` if there was nothing.
fn sums(all: &[&Measured], peer: Peer, count: fn(&Sample) -> u64) -> String {
    let listed: Vec<String> = Kind::ALL
        .iter()
        .filter_map(|&kind| {
            let sum: u64 = cells(all, peer, kind).map(|m| count(&m.sample)).sum();
            (sum > 0).then(|| format!("{kind:?} {sum}"))
        })
        .collect();
    if listed.is_empty() {
        "0".to_owned()
    } else {
        listed.join(", ")
    }
}
