//! What delivery `direct` has to reach, and whether it does.

use crate::{
    compare::Measured,
    load::{Kind, Sample},
    peers::{Peer, Scene},
    report::Table,
    tables::ratio,
};

/// In a scene, ours must be so many times as fast as the fastest of these.
struct Goal {
    local: bool,
    backends: usize,
    than: &'static [Peer],
    kind: Kind,
    factor: f64,
}

const GOALS: [Goal; 8] = [
    goal(false, 1, &[Peer::Straight], Kind::Requests, 1.2),
    goal(false, 1, &[Peer::Straight], Kind::Connections, 1.2),
    goal(false, 1, &[Peer::Straight], Kind::Bulk, 1.1),
    goal(true, 1, &[Peer::Docker], Kind::Requests, 2.0),
    goal(false, 3, &PROXIES, Kind::Requests, 1.8),
    goal(false, 3, &PROXIES, Kind::Connections, 1.3),
    goal(true, 3, &PROXIES, Kind::Requests, 1.8),
    goal(true, 3, &PROXIES, Kind::Connections, 1.3),
];
const PROXIES: [Peer; 2] = [Peer::Haproxy, Peer::Nginx];

const fn goal(
    local: bool,
    backends: usize,
    than: &'static [Peer],
    kind: Kind,
    factor: f64,
) -> Goal {
    Goal {
        local,
        backends,
        than,
        kind,
        factor,
    }
}

/// The table; nothing if no goal was measured.
pub(crate) fn table(measured: &[Measured]) -> Option<Table> {
    let head = ["orch, direct", "wanted", "measured", "by CPU time", ""];
    let mut table = Table::new("What is wanted, and what was measured", &head);
    let mut any = false;
    for goal in &GOALS {
        let scene = Scene {
            local: goal.local,
            backends: goal.backends,
        };
        let all: Vec<&Measured> = measured.iter().filter(|m| m.scene == scene).collect();
        let there = |peer: &Peer| all.iter().any(|m| m.peer == *peer);
        if !there(&Peer::Direct) || !goal.than.iter().any(there) {
            continue;
        }
        any = true;
        let of = |value: fn(&Sample) -> f64| ratio(&all, Peer::Direct, goal.than, goal.kind, value);
        let rate = of(|sample| sample.rate);
        table.row(vec![
            goal.sentence(scene),
            format!("{:.1}", goal.factor),
            format!("{rate:.2}"),
            format!("{:.2}", of(|sample| 1.0 / sample.cpu)),
            if rate >= goal.factor {
                "held"
            } else {
                "missed"
            }
            .to_owned(),
        ]);
    }
    any.then_some(table)
}

impl Goal {
    fn sentence(&self, scene: Scene) -> String {
        let names: Vec<&str> = self.than.iter().map(|peer| peer.name()).collect();
        let client = if scene.local {
            "on the host"
        } else {
            "outside"
        };
        format!(
            "{:?}, client {client}, {} backend(s), to {}",
            self.kind,
            scene.backends,
            names.join(" or ")
        )
    }
}
