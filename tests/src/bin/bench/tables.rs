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

/// The table of a scene.
pub(crate) fn of_scene(measured: &[Measured], scene: Scene) -> Table {
    let mut table = Table::new(scene.title(), &HEAD);
    let all: Vec<&Measured> = measured.iter().filter(|m| m.scene == scene).collect();
    for peer in Peer::ALL {
        if !all.iter().any(|m| m.peer == peer) {
            continue;
        }
        let mut row = vec![peer.name().to_owned()];
        for kind in Kind::ALL {
            let middle = |value: fn(&Sample) -> f64| {
                median(cells(&all, peer, kind).map(|m| value(&m.sample)))
            };
            let (rate, ratio) = (middle(|s| s.rate), ratio(&all, peer, Peer::Straight, kind));
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

fn cells<'a>(
    all: &'a [&Measured],
    peer: Peer,
    kind: Kind,
) -> impl Iterator<Item = &'a &'a Measured> {
    all.iter().filter(move |m| m.peer == peer && m.kind == kind)
}

/// The median of the ratios of one peer to another in the same pass: what else the machine does
/// changes from pass to pass, and both of a pair suffer from it.
fn ratio(all: &[&Measured], peer: Peer, to: Peer, kind: Kind) -> f64 {
    median(cells(all, peer, kind).filter_map(|own| {
        let other = cells(all, to, kind).find(|other| other.pass == own.pass)?;
        Some(own.sample.rate / other.sample.rate)
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
