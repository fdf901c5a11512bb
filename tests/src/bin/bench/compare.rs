//! Everybody side by side: passes over all scenes and peers, each pass in another order, each turn
//! on machines of its own.

use crate::{
    Result,
    installed::installed,
    load::{Kind, Sample},
    peers::{Peer, Scene},
    topology::Topology,
};

/// How long and how often, and who.
pub(crate) struct Plan<'a> {
    pub(crate) passes: usize,
    pub(crate) seconds: u64,
    pub(crate) threads: usize,
    pub(crate) scenes: &'a [Scene],
    /// Parts of names of peers; all, if there are none.
    pub(crate) only: &'a [String],
}

/// One run.
pub(crate) struct Measured {
    pub(crate) pass: usize,
    pub(crate) scene: Scene,
    pub(crate) peer: Peer,
    pub(crate) kind: Kind,
    pub(crate) sample: Sample,
}

/// Measures everything.
pub(crate) fn compare(plan: &Plan) -> Result<Vec<Measured>> {
    installed("wrk", "wrk")?;
    installed("nginx", "nginx-light")?;
    installed("iptables-restore", "iptables")?;
    installed("docker-proxy", "docker.io")?;
    let mut peers = Vec::new();
    for peer in Peer::ALL.into_iter().filter(|peer| plan.wants(*peer)) {
        match peer.available() {
            Ok(()) => peers.push(peer),
            Err(why) => println!("left out: {}: {why}", peer.name()),
        }
    }
    let mut measured = Vec::new();
    for pass in 0..plan.passes {
        peers.rotate_left(1);
        for &scene in plan.scenes {
            eprintln!("pass {} of {}: {}", pass + 1, plan.passes, scene.title());
            // All of a scene in a row: what else the machine does changes less meanwhile.
            for &peer in peers.iter().filter(|peer| peer.suits(scene)) {
                turn(pass, scene, peer, plan, &mut measured)
                    .map_err(|error| format!("{}: {error}", peer.name()))?;
            }
        }
    }
    Ok(measured)
}

impl Plan<'_> {
    fn wants(&self, peer: Peer) -> bool {
        peer == Peer::Straight || self.names(peer.name())
    }

    /// Whether this is one of those asked for.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }
}

fn turn(
    pass: usize,
    scene: Scene,
    peer: Peer,
    plan: &Plan,
    measured: &mut Vec<Measured>,
) -> Result<()> {
    let topology = Topology::with_backends(scene.backends, plan.threads)?;
    let running = peer.start(scene, &topology, plan.threads)?;
    let address = peer.address(scene, &topology);
    for kind in Kind::ALL {
        let sample = kind.run(
            scene.side(&topology),
            &topology,
            &address,
            plan.seconds,
            plan.threads,
        )?;
        eprintln!(
            "  {:24} {kind:12?} {:14.0} p50 {:6.0} p99 {:6.0} CPU {:5.1} errors {} SYNs repeated {}",
            peer.name(),
            sample.rate,
            sample.p50,
            sample.p99,
            sample.cpu,
            sample.errors,
            sample.repeated
        );
        measured.push(Measured {
            pass,
            scene,
            peer,
            kind,
            sample,
        });
    }
    running.stop(&topology)
}
