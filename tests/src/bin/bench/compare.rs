//! Everybody side by side: passes over all peers, each pass in another order.

use orch_tests::netns::NetNs;

use crate::{
    Result,
    load::{Kind, Sample},
    peers::Peer,
    report::{Table, median},
    topology::{Topology, installed},
};

/// How long and how often.
pub(crate) struct Plan {
    pub(crate) passes: usize,
    pub(crate) seconds: u64,
    pub(crate) threads: usize,
}

struct Measured {
    pass: usize,
    peer: Peer,
    kind: Kind,
    sample: Sample,
}

/// Measures and gives the table.
pub(crate) fn compare(plan: &Plan) -> Result<Table> {
    installed("wrk", "wrk")?;
    installed("nginx", "nginx-light")?;
    let mut peers = Vec::new();
    for peer in Peer::ALL {
        match peer.available() {
            Ok(()) => peers.push(peer),
            Err(why) => println!("left out: {}: {why}", peer.name()),
        }
    }
    let topology = Topology::new()?;
    let _backends = topology.backends(plan.threads)?;
    let mut measured = Vec::new();
    for pass in 0..plan.passes {
        eprintln!("pass {} of {}", pass + 1, plan.passes);
        peers.rotate_left(1);
        for &peer in &peers {
            turn(peer, pass, plan, &topology, &mut measured)
                .map_err(|error| format!("{}: {error}", peer.name()))?;
        }
    }
    Ok(table(&measured))
}

fn turn(
    peer: Peer,
    pass: usize,
    plan: &Plan,
    topology: &Topology,
    measured: &mut Vec<Measured>,
) -> Result<()> {
    let running = peer.start(topology, plan.threads)?;
    let side: &NetNs = if peer.is_local() {
        &topology.host
    } else {
        &topology.client
    };
    for kind in Kind::ALL {
        let sample = kind.run(side, &peer.address(), plan.seconds, plan.threads)?;
        eprintln!(
            "  {:24} {kind:12?} {:14.0} p50 {:6.0} p99 {:6.0} errors {}",
            peer.name(),
            sample.rate,
            sample.p50,
            sample.p99,
            sample.errors
        );
        measured.push(Measured {
            pass,
            peer,
            kind,
            sample,
        });
    }
    running.stop(topology)
}

fn table(measured: &[Measured]) -> Table {
    let head = [
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
    ];
    let mut table = Table::new("Medians, and ratios to no balancer", &head);
    for peer in Peer::ALL {
        let of = |peer: Peer, kind: Kind, value: fn(&Sample) -> f64| {
            let cells = measured
                .iter()
                .filter(move |m| m.peer == peer && m.kind == kind);
            median(cells.map(|m| value(&m.sample)))
        };
        if !measured.iter().any(|m| m.peer == peer) {
            continue;
        }
        let mut row = vec![peer.name().to_owned()];
        for kind in Kind::ALL {
            let rate = of(peer, kind, |s| s.rate);
            let ratio = ratio(measured, peer, kind);
            if kind == Kind::Bulk {
                row.extend([format!("{:.2}", rate / 1e9), format!("{ratio:.2}")]);
                continue;
            }
            row.extend([
                format!("{rate:.0}"),
                format!("{ratio:.2}"),
                format!("{:.0}", of(peer, kind, |s| s.p50)),
                format!("{:.0}", of(peer, kind, |s| s.p99)),
            ]);
        }
        row.push(errors(measured, peer));
        table.row(row);
    }
    table
}

/// The median of the ratios to the baseline of the same pass: what else the machine does changes
/// from pass to pass, and both of a pair suffer from it.
fn ratio(measured: &[Measured], peer: Peer, kind: Kind) -> f64 {
    let of = |wanted: Peer| {
        measured
            .iter()
            .filter(move |m| m.peer == wanted && m.kind == kind)
    };
    median(of(peer).filter_map(|own| {
        let baseline = of(peer.baseline()).find(|other| other.pass == own.pass)?;
        Some(own.sample.rate / baseline.sample.rate)
    }))
}

/// Errors of a peer, by what was measured; `0` if there are none.
fn errors(measured: &[Measured], peer: Peer) -> String {
    let listed: Vec<String> = Kind::ALL
        .iter()
        .filter_map(|&kind| {
            let cells = measured.iter().filter(|m| m.peer == peer && m.kind == kind);
            let sum: u64 = cells.map(|m| m.sample.errors).sum();
            (sum > 0).then(|| format!("{kind:?} {sum}"))
        })
        .collect();
    if listed.is_empty() {
        "0".to_owned()
    } else {
        listed.join(", ")
    }
}
