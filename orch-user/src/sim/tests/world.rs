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

/// Copies that are let go at the reading of 250 ms, of a service that ends after 2 s.
fn let_go(first: u16, stop: u64, wishes: &[(u64, u16)]) -> (Outcome, Script) {
    let mut world = seeds_world(ms(300), ms(2000));
    (world.first, world.stop) = (first, ms(stop));
    let wishes = [&[(0, first), (250, 1)], wishes].concat();
    play(&world, &wishes, &[])
}

#[test]
fn a_copy_is_stopped_at_the_first_reading_that_finds_it_without_a_request() {
    let seconds = |first| let_go(first, 100, &[]).0.copy_ns / 1_000_000;
    assert_eq!(seconds(2), 2000 + 500 + 100);
    // The counts are read when the last one begins to drain, too, so that the one before it need not
    // wait, and again when that one has ended.
    assert_eq!(seconds(3), 2000 + 250 + 100 + 350 + 100);
}

#[test]
fn a_copy_that_is_not_stopped_yet_comes_back_and_a_stopped_one_is_waited_for() {
    let ready = |script: &Script, at: u64| {
        let found = script.told.iter().find(|(now, _)| *now == ms(at));
        found.unwrap().1.ready
    };
    // The last one drains until 500 ms, when it is wanted again; the one before it ends at 650 ms,
    // and takes 300 ms to start.
    let (outcome, script) = let_go(3, 400, &[(500, 3)]);
    assert_eq!((ready(&script, 500), ready(&script, 750)), (1, 2));
    assert_eq!(ready(&script, 1000), 3);
    assert_eq!(outcome.copy_ns / 1_000_000, 3 * 2000);
}

#[test]
fn what_a_copy_has_to_do_is_done_before_it_is_stopped() {
    let mut world = seeds_world(ms(300), ms(2000));
    world.first = 2;
    // Each copy has a request from 100 and 150 ms on, for half a second.
    let (outcome, _) = play(&world, &[(0, 2), (250, 1)], &[100, 150]);
    assert_eq!(outcome.answered, 2);
    assert_eq!(outcome.copy_ns / 1_000_000, 2000 + 750);
}

/// A run of `examples/cna` in containers, with the starts that were measured, the first of them
/// before the load: 10 without an answer at 156.1 copy-seconds, and these decisions.
#[test]
fn a_real_run_is_met_decision_by_decision() {
    let mut study = study(predefined(), 0.7, 1);
    let starts = "300ms,243ms,144ms,433ms,444ms,465ms,528ms,220ms,185ms,229ms,353ms,461ms,473ms,\
                  241ms,260ms,240ms,252ms,196ms,332ms,391ms";
    study.world.start = starts.parse().unwrap();
    study.world.service = Dist::Fixed(ms(502));
    study.world.stop = ms(120);
    study.world.lead = Duration::from_micros(350_500);
    let score = study.score(&ELASTIC);
    assert!((score.unanswered.mean - 10.0).abs() <= 1.0, "{score:?}");
    assert!(
        (score.copy_seconds.mean / 156.1 - 1.0).abs() < 0.02,
        "{score:?}"
    );
    let real = [
        (5.1, 2),
        (5.6, 6),
        (5.9, 7),
        (8.9, 6),
        (11.1, 2),
        (12.1, 1),
        (15.4, 4),
        (15.6, 7),
        (18.1, 6),
        (21.1, 5),
        (21.9, 3),
        (22.9, 5),
        (23.9, 7),
        (24.1, 8),
        (25.4, 10),
    ];
    let decided = study.decisions(&ELASTIC);
    let to: Vec<u16> = decided.iter().map(|(_, decision)| decision.to).collect();
    assert_eq!(to, real.map(|(_, to)| to), "{decided:?}");
    let seconds = |at: &Duration| at.as_secs_f64();
    let near = |(at, real): (&Duration, f64)| (seconds(at) - real).abs() < 0.1;
    let moments = decided
        .iter()
        .zip(real)
        .map(|((at, _), (real, _))| (at, real));
    let same = moments.filter(|one| near(*one)).count();
    assert!(same >= 13, "{decided:?}");
}
