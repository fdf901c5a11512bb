//! What the simulated controller sees and does, and when, told what to want.

use std::time::Duration;

use super::*;
use crate::{
    scale::Metrics,
    sim::{
        driver::{Driver, Wish},
        engine::run,
        outcome::Outcome,
        study::seeds_world,
        world::World,
    },
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Wants so many copies from then on, and notes what it is told.
struct Script {
    wishes: Vec<(Duration, u16)>,
    told: Vec<(Duration, Metrics)>,
}

impl Driver for Script {
    fn tick(&mut self, now: Duration, metrics: &Metrics) -> Wish {
        self.told.push((now, *metrics));
        let due = self.wishes.iter().rfind(|(from, _)| *from <= now);
        let copies = due.map_or(1, |(_, copies)| *copies);
        Wish {
            copies,
            warm: copies,
        }
    }
}

fn play(world: &World, wishes: &[(u64, u16)], arrivals: &[u64]) -> (Outcome, Script) {
    use rand::SeedableRng;
    let mut script = Script {
        wishes: wishes.iter().map(|(at, to)| (ms(*at), *to)).collect(),
        told: Vec::new(),
    };
    let rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
    let arrivals = arrivals.iter().map(|at| ms(*at));
    (run(world, rng, arrivals, &mut script), script)
}

#[test]
fn readings_begin_with_the_controller_and_not_with_the_load() {
    let mut world = seeds_world(ms(300), ms(2000));
    world.lead = ms(600);
    let (outcome, script) = play(&world, &[], &[100, 200]);
    let told = |at: usize| script.told[at];
    assert_eq!(
        (told(0).0, told(1).0, told(2).0),
        (ms(250), ms(500), ms(750))
    );
    assert_eq!((told(0).1.ready, told(0).1.starting), (0, 1));
    assert_eq!((told(1).1.ready, told(1).1.starting), (1, 0));
    assert_eq!(told(1).1.requests, 0, "the load has not begun");
    assert_eq!(told(2).1.requests, 1, "of the 150 ms after it has");
    let start_s = told(1).1.start_s;
    assert!((start_s - 0.5).abs() < 1e-9, "two beats: {start_s}");
    // What was before the load is no part of the result.
    assert_eq!(outcome.copy_ns, 2_000_000_000);
    assert_eq!(outcome.samples[0].at, ms(150));
    assert_eq!((outcome.arrivals, outcome.answered), (2, 2));
}

#[test]
fn decisions_and_references_count_from_the_beginning_of_the_load() {
    let mut study = study(predefined(), 0.7, 1);
    let first = |study: &Study| study.decisions(&ELASTIC)[0].0;
    study.world.lead = ms(1000);
    let near = first(&study);
    study.world.lead = ms(9000);
    assert_eq!(first(&study), near);
    // Always, and at the same moments, whenever its controller began.
    let oracle = study.score(&Contender::Oracle);
    study.world.lead = Duration::ZERO;
    assert_eq!(study.score(&Contender::Oracle), oracle);
}
