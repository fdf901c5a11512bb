//! What the simulator must reproduce, and what `elastic` must reach. Simulations are the same for
//! the same seeds, so that their results can be asserted.

mod world;

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::{
    dist::Dist,
    study::{Contender, RANDOM, Score, Study, plan, seeds_world},
    synthetic::Synthetic,
};
use crate::{
    arrivals::{
        pattern::{Pattern, Plan},
        trace::Trace,
    },
    config::{EXAMPLE, ScaleConfig, parse},
    scale::{Policy, elastic::Elastic},
};

const ELASTIC: Contender = Contender::Own(Policy::Elastic(Elastic));
const STARTS_S: [f64; 4] = [0.3, 0.7, 2.0, 5.0];

fn rules() -> ScaleConfig {
    parse("example", EXAMPLE).unwrap().services.remove(0).scale
}

fn predefined() -> Plan {
    plan(Pattern::Deterministic, None)
}

fn random(minutes: u64) -> Plan {
    plan(RANDOM, Some(Duration::from_mins(minutes)))
}

fn replay(trace: Trace) -> Plan {
    plan(Pattern::Trace { trace, peak: None }, None)
}

fn study(plan: Plan, start_s: f64, seeds: u64) -> Study {
    Study {
        world: seeds_world(Duration::from_secs_f64(start_s), plan.length()),
        plan,
        rules: rules(),
        seeds,
    }
}

fn named(name: &str) -> Contender {
    let mut all = Contender::policies().into_iter();
    all.find(|one| one.name() == name).unwrap()
}

/// Both requests without an answer and copy-seconds, rounded.
fn result(score: &Score) -> (u64, u64) {
    (
        score.unanswered.mean as u64,
        score.copy_seconds.mean.round() as u64,
    )
}

#[test]
fn the_predefined_client_sends_215_requests() {
    let study = study(predefined(), 0.7, 1);
    let score = study.score(&Contender::Static(10));
    assert_eq!(score.arrivals.mean as u64, 215);
    assert_eq!(result(&score), (9, 300), "9 are in service at the end");
}

#[test]
fn an_independent_simulation_s_results_are_met() {
    // A Python model of the same pattern and formulas: 161/30, 106/60, 49/111, 17/191, 12/231, 9/236.
    let study = study(predefined(), 0.7, 1);
    let near = |who: &Contender, lost: u64, copy_s: f64| {
        let score = study.score(who);
        let (is, cost) = (score.unanswered.mean, score.copy_seconds.mean);
        assert!((is - lost as f64).abs() <= 1.0, "{}: {is} lost", who.name());
        assert!((cost / copy_s - 1.0).abs() < 0.07, "{}: {cost}", who.name());
    };
    near(&Contender::Static(1), 161, 30.0);
    near(&named("target"), 106, 60.0);
    near(&Contender::Ceil, 49, 111.0);
    near(&Contender::Sqrt(1.0), 17, 191.0);
    near(&Contender::Sqrt(2.0), 12, 231.0);
    near(&named("concurrency"), 9, 236.0);
    let slow = self::study(predefined(), 5.0, 1);
    assert_eq!(slow.score(&Contender::Ceil).unanswered.mean as u64, 144);
}

#[test]
fn elastic_loses_few_of_the_predefined_client_s_requests_for_little() {
    let score = study(predefined(), 0.7, 1).score(&ELASTIC);
    assert!(score.unanswered.mean <= 12.0, "{score:?}");
    assert!(score.copy_seconds.mean <= 165.0, "{score:?}");
}

/// A load begins at any moment between two readings. What is found out a quarter of a second later
/// costs five requests, and their share of the copies that were missing.
#[test]
fn elastic_does_little_worse_whenever_its_readings_fall() {
    for ms in (0..250).step_by(10) {
        let mut study = study(predefined(), 0.7, 1);
        study.world.phase = Duration::from_millis(ms);
        let score = study.score(&ELASTIC);
        assert!(score.unanswered.mean <= 16.0, "{ms} ms: {score:?}");
        assert!(score.copy_seconds.mean <= 165.0, "{ms} ms: {score:?}");
    }
}

/// A service that nobody has used for a while does as well as one that has just begun.
#[test]
fn elastic_does_little_worse_however_long_nobody_came_before() {
    for second in [0, 1, 2, 5, 60] {
        for ms in (10..=250).step_by(40) {
            let mut study = study(predefined(), 0.7, 1);
            study.world.lead = Duration::from_millis(second * 1000 + ms);
            let score = study.score(&ELASTIC);
            assert!(
                score.unanswered.mean <= 17.0,
                "{second} s, {ms} ms: {score:?}"
            );
            assert!(
                score.copy_seconds.mean <= 165.0,
                "{second} s, {ms} ms: {score:?}"
            );
        }
    }
}

/// No other policy is both cheaper and has no more late requests. Where next to none are late, ours
/// may cost up to so many times as much.
fn on_the_front(study: &Study, dearer: f64) {
    let ours = study.score(&ELASTIC);
    let others = ["step", "target", "concurrency"].map(named).into_iter();
    for other in others.chain([Contender::Sqrt(1.0), Contender::Sqrt(2.0), Contender::Ceil]) {
        let other = study.score(&other);
        let cheaper = other.copy_seconds.mean <= ours.copy_seconds.mean;
        let better = other.late.mean <= ours.late.mean;
        let far = ours.copy_seconds.mean > dearer * other.copy_seconds.mean;
        let none_late = ours.late_percent.mean < 0.1;
        assert!(
            !(cheaper && better && (far || !none_late)),
            "{ours:#?} is beaten by {other:#?}"
        );
    }
}

/// How much is simulated for the front: little, or as the environment says, with so many seeds, whole
/// traces and all start times. The same is simulated every time, so that it is no game of chance.
struct Size {
    seeds: Option<u64>,
}

impl Size {
    fn get() -> Self {
        let seeds = std::env::var("ORCH_SIM_SEEDS").ok();
        Self {
            seeds: seeds.map(|text| text.parse().unwrap()),
        }
    }

    fn starts_s(&self) -> &'static [f64] {
        let few = &[0.7, 5.0];
        if self.seeds.is_some() { &STARTS_S } else { few }
    }

    fn minutes(&self, all: u64, few: u64) -> Duration {
        Duration::from_mins(if self.seeds.is_some() { all } else { few })
    }
}

#[test]
fn elastic_is_on_the_front_with_the_random_client() {
    let size = Size::get();
    for start in size.starts_s() {
        let plan = plan(RANDOM, Some(size.minutes(5, 2)));
        on_the_front(&study(plan, *start, size.seeds.unwrap_or(2)), 1.0);
    }
}

fn on_the_front_in_the_half_that_nobody_tuned_on(synthetic: Synthetic) {
    let size = Size::get();
    let mut plan = replay(synthetic.trace().half(true));
    plan.duration = Some(size.minutes(20, 10));
    for start in size.starts_s() {
        let mut study = study(plan.clone(), *start, size.seeds.unwrap_or(1).min(2));
        // It was there in the first half, too: the start from nothing is another question.
        study.world.first = study.needs(0)[0];
        on_the_front(&study, 1.1);
    }
}

#[test]
fn elastic_is_on_the_front_in_a_crowd() {
    on_the_front_in_the_half_that_nobody_tuned_on(Synthetic::Crowd);
}

#[test]
fn elastic_is_on_the_front_in_bursts() {
    on_the_front_in_the_half_that_nobody_tuned_on(Synthetic::Bursts);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let mut study = study(random(1), 0.7, 3);
    study.world.service = "exp:500ms".parse().unwrap();
    assert_eq!(study.score(&ELASTIC), study.score(&ELASTIC));
}

#[test]
fn nothing_is_lost_between_arrival_and_answer() {
    let mut study = study(random(2), 2.0, 1);
    study.world.service = "lognormal:500ms:1".parse().unwrap();
    let outcome = study.run(&ELASTIC, 0);
    let waiting = outcome.samples.last().unwrap().waiting;
    let open = outcome.unanswered() - outcome.refused;
    // What waited at the last reading, and at most one request in each copy's hands.
    assert!(open <= waiting + 10 + 20, "{open} {waiting}");
    assert!(outcome.answered > 0);
}

#[test]
fn a_trace_s_arrivals_are_as_many_as_it_counts() {
    let trace = Trace::new(Duration::from_secs(1), vec![50.0; 400]);
    let study = study(replay(trace), 0.7, 1);
    let came = study.run(&Contender::Static(10), 0).arrivals as f64;
    // Five standard deviations of a Poisson variable.
    assert!((came - 20_000.0).abs() < 5.0 * 20_000_f64.sqrt(), "{came}");
}

#[test]
fn files_of_traces_are_what_the_generator_makes() {
    for synthetic in Synthetic::ALL {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .unwrap();
        let path = root.join(format!("examples/traces/{}.csv", synthetic.name()));
        let file = std::fs::read_to_string(&path).unwrap();
        assert!(
            file == synthetic.csv(),
            "write {} anew: orch sim --generate {}",
            path.display(),
            synthetic.name()
        );
    }
}

#[test]
fn distributions_are_read_and_have_their_means() {
    use rand::SeedableRng;
    for text in ["250ms", "exp:250ms", "lognormal:250ms:0.5", "100ms,400ms"] {
        let dist: Dist = text.parse().unwrap();
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
        let sum: Duration = (0..20_000).map(|turn| dist.draw(turn, &mut rng)).sum();
        let mean = sum.as_secs_f64() / 20_000.0;
        assert!((mean - 0.25).abs() < 0.01, "{text}: {mean}");
    }
    for bad in [
        "",
        "soon",
        "exp:0s",
        "lognormal:1s",
        "lognormal:1s:-1",
        "gamma:1s",
        "1s,",
        "1s,soon",
    ] {
        assert!(bad.parse::<Dist>().is_err(), "{bad:?}");
    }
}

/// A thousand requests a second, for so long: what it takes to simulate them. The time of this
/// thread alone, whatever else the machine does.
fn time_of(seconds: u64) -> Duration {
    let pattern = Pattern::Constant { rate: 1000.0 };
    let mut study = study(plan(pattern, Some(Duration::from_secs(seconds))), 0.7, 1);
    study.world.service = Dist::Fixed(Duration::from_millis(5));
    let clock = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let begun = clock();
    let outcome = study.run(&Contender::Static(10), 0);
    let time = clock().saturating_sub(begun);
    assert_eq!(outcome.arrivals, seconds * 1000);
    // The last ones are in service at the end.
    assert!(outcome.unanswered() <= 10, "{}", outcome.unanswered());
    time
}

/// What a request costs does not grow with their number. A release build prints what a million take.
#[test]
fn many_requests_cost_as_much_each_as_few() {
    let (few, many) = if cfg!(debug_assertions) {
        (3, 60)
    } else {
        (50, 1000)
    };
    let fastest = |seconds| (0..3).map(|_| time_of(seconds)).min().unwrap();
    let (short, long) = (fastest(few), fastest(many));
    println!("{many} s of 1000 requests a second in {long:?}");
    // Twenty times as many. Twice that leaves room for caches that others use.
    let ratio = long.as_secs_f64() / short.as_secs_f64();
    assert!(ratio < 40.0, "{ratio}: {short:?} {long:?}");
}
