//! What every policy must hold, whatever it is told.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    Decision, Input, Metrics, Policy, Scaler, Tape,
    concurrency::Concurrency,
    elastic::Elastic,
    heuristic::{Heuristic, read_answer},
    schedule::{Schedule, Span},
    target::Target,
};
use crate::{
    config::{EXAMPLE, ScaleConfig, parse},
    state::Moment,
};

fn rules(policy: Policy) -> ScaleConfig {
    let example = parse("example", EXAMPLE).unwrap().services.remove(0).scale;
    ScaleConfig { policy, ..example }
}

fn policies() -> Vec<Policy> {
    let span = Span::parse("08:00-18:00 4").unwrap();
    vec![
        Policy::Step,
        Policy::Target(Target::default()),
        Policy::Concurrency(Concurrency::default()),
        Policy::Elastic(Elastic),
        Policy::Heuristic(Heuristic {
            program: vec!["p".into()],
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        }),
        Policy::Schedule(Schedule {
            spans: vec![span],
            above: Elastic,
        }),
        Policy::Manual,
    ]
}

/// Four readings a second of a service with as many copies as are wanted, each of which answers two
/// requests a second.
struct Life {
    scaler: Scaler,
    rules: ScaleConfig,
    metrics: Metrics,
    beat: u64,
    due: f64,
    waiting: f64,
}

impl Life {
    fn new(rules: ScaleConfig) -> Self {
        Self {
            scaler: Scaler::new(rules.min, 0, Moment::ZERO),
            rules,
            metrics: Metrics {
                service_rate: 2.0,
                saturated: true,
                alone_s: 0.5,
                start_s: 0.75,
                ..Metrics::default()
            },
            beat: 0,
            due: 0.0,
            waiting: 0.0,
        }
    }

    fn beat(&mut self, rate: f64) -> Option<Decision> {
        self.beat += 1;
        let copies = self.scaler.copies(&self.rules);
        self.due += rate / 4.0;
        let came = self.due.floor();
        self.due -= came;
        let able = f64::from(copies) * 0.5;
        self.waiting = (self.waiting + came - able).max(0.0);
        self.metrics.requests += came as u64;
        self.metrics.in_flight = (self.waiting + (rate / 2.0).min(f64::from(copies))) as u64;
        self.metrics.ready = copies;
        self.metrics.running = copies;
        let now = Duration::from_millis(250) * self.beat as u32;
        self.metrics.wall_s = now.as_secs_f64();
        self.scaler.observe(&self.metrics, now, &self.rules)
    }

    fn settle(&mut self, rate: f64, seconds: u64) -> Vec<Decision> {
        (0..seconds * 4).filter_map(|_| self.beat(rate)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn nobody_leaves_the_limits(
        min in 1_u16..5, more in 0_u16..6, surge in 0_u16..4,
        rates in prop::collection::vec((0.0_f64..60.0, 1_u64..20), 1..8),
        answers in prop::collection::vec(-20_i32..20, 8),
    ) {
        for policy in policies() {
            let mut limits = rules(policy);
            (limits.min, limits.max, limits.max_surge) = (min, min + more, surge);
            let mut life = Life::new(limits.clone());
            for ((rate, seconds), answer) in rates.iter().zip(&answers) {
                life.scaler.apply(&Input::Answer(*answer), Moment::ZERO, &mut limits);
                for _ in 0..seconds * 4 {
                    let ready = life.metrics.ready;
                    life.beat(*rate);
                    let desired = life.scaler.desired(&limits);
                    prop_assert!((min..=min + more).contains(&desired), "{desired}");
                    let copies = life.scaler.copies(&limits);
                    prop_assert!(surge == 0 || ready == 0 || copies <= life.metrics.ready + surge);
                }
            }
        }
    }

    #[test]
    fn more_load_never_has_fewer_copies(low in 0.0_f64..20.0, more in 0.0_f64..20.0) {
        for policy in policies() {
            let settled = |rate: f64| {
                let mut life = Life::new(rules(policy.clone()));
                life.settle(rate, 150);
                life.scaler.desired(&life.rules)
            };
            let (less, much) = (settled(low), settled(low + more));
            prop_assert!(less <= much, "{}: {less} {much}", policy.name());
        }
    }

    #[test]
    fn constant_load_does_not_flap(rate in 0.0_f64..16.0) {
        for policy in policies() {
            let mut life = Life::new(rules(policy.clone()));
            life.settle(rate, 120);
            let later = life.settle(rate, 120);
            let changes: Vec<_> = later.iter().filter(|one| one.from != one.to).collect();
            prop_assert!(changes.len() <= 1, "{}: {changes:?}", policy.name());
        }
    }

    #[test]
    fn a_clock_that_jumps_decides_nothing(jump_s in -600_i64..100_000, rate in 0.0_f64..30.0) {
        prop_assume!(!(0..=10).contains(&jump_s));
        for policy in policies() {
            // Windows end by the clock, and a window that ended while the host slept has ended.
            if policy == Policy::Step {
                continue;
            }
            let mut life = Life::new(rules(policy));
            life.settle(rate, 30);
            let now = Duration::from_secs(30);
            let jumped = if jump_s < 0 {
                now.saturating_sub(Duration::from_secs(jump_s.unsigned_abs()))
            } else {
                now + Duration::from_secs(jump_s as u64)
            };
            let mut metrics = life.metrics;
            metrics.requests += 1000;
            let decision = life.scaler.observe(&metrics, jumped, &life.rules);
            prop_assert_eq!(decision, None);
        }
    }
}

proptest! {
    // Each is a tape of two minutes for every policy.
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_tape_replays_to_the_same_decisions(
        rates in prop::collection::vec(0.0_f64..30.0, 1..30), hold in 1_u16..10,
    ) {
        for policy in policies() {
            let limits = rules(policy);
            let mut life = Life::new(limits.clone());
            let mut tape = Tape::new(1, 0, Moment::ZERO, &limits);
            // More readings than a tape keeps, so that its base has taken some in.
            for (at, rate) in rates.iter().cycle().take(120).enumerate() {
                for _ in 0..4 {
                    life.beat(*rate);
                    let now = Duration::from_millis(250) * life.beat as u32;
                    tape.observe(&life.metrics, now, &limits);
                    if life.beat.is_multiple_of(50) {
                        tape.hold((at % 2 == 0).then_some(hold), now);
                    }
                }
            }
            let log = serde_json::to_string(&tape.log("acts")).unwrap();
            let log: super::Log = serde_json::from_str(&log).unwrap();
            for (_, again, before) in log.replay() {
                prop_assert_eq!(again, before);
            }
        }
    }
}

#[test]
fn nothing_is_decided_while_most_slots_are_replaced_or_none_is_ready() {
    for (ready, replacing) in [(0, 0), (1, 2)] {
        let mut life = Life::new(rules(Policy::Elastic(Elastic)));
        life.settle(1.0, 20);
        for beat in 1..20 {
            let mut metrics = life.metrics;
            metrics.requests += 20 * beat;
            (metrics.ready, metrics.replacing, metrics.running) = (ready, replacing, 3);
            let now = Duration::from_secs(20) + Duration::from_millis(250) * beat as u32;
            assert_eq!(life.scaler.observe(&metrics, now, &life.rules), None);
        }
    }
}

#[test]
fn spares_count_as_capacity() {
    let settled = |spares: u16| {
        let mut life = Life::new(rules(Policy::Elastic(Elastic)));
        life.metrics.spares = spares;
        life.settle(9.0, 60);
        life.scaler.desired(&life.rules)
    };
    assert!(settled(2) < settled(0), "{} {}", settled(2), settled(0));
}

#[test]
fn an_answer_of_a_program_is_used_once() {
    let policy = policies().remove(4);
    let mut life = Life::new(rules(policy));
    life.settle(1.0, 2);
    let mut limits = life.rules.clone();
    life.scaler
        .apply(&Input::Answer(3), Moment::ZERO, &mut limits);
    let decisions = life.settle(1.0, 5);
    assert_eq!(decisions.len(), 1);
    assert_eq!((decisions[0].from, decisions[0].to), (1, 4));
    assert_eq!(decisions[0].reason, "the program answered +3");
    assert_eq!(read_answer(" -2\n"), Some(-2));
    assert_eq!(read_answer("two"), None);
}

#[test]
fn a_hold_outlives_every_policy_and_a_change_of_policy() {
    for policy in policies() {
        let mut limits = rules(policy);
        let mut scaler = Scaler::new(1, 0, Moment::ZERO);
        let decision = scaler.hold(Some(5), &limits);
        assert_eq!((decision.from, decision.to), (1, 5));
        let other = rules(Policy::Elastic(Elastic));
        scaler.apply(&Input::Rules(other), Moment::ZERO, &mut limits);
        assert_eq!(scaler.desired(&limits), 5, "{}", limits.policy.name());
        assert!(scaler.is_held());
    }
}

#[test]
fn the_first_window_after_another_policy_counts_what_comes_in_it() {
    for policy in policies().into_iter().filter(|one| *one != Policy::Step) {
        let name = policy.name();
        let mut life = Life::new(rules(policy));
        life.settle(10.0, 60);
        let mut limits = life.rules.clone();
        let now = Duration::from_mins(1);
        let step = Input::Rules(rules(Policy::Step));
        life.scaler.apply(&step, now, &mut limits);
        life.rules = limits;
        life.settle(10.0, 2);
        let counted = life.scaler.count(&life.rules);
        assert!((10..=30).contains(&counted), "{name}: {counted}");
    }
}

#[test]
fn floors_hold_on_their_days_and_over_midnight() {
    // 1970-01-01 was a Thursday.
    let at = |day: u32, hour: u32| f64::from(day * 86_400 + hour * 3600);
    let weekdays = Span::parse("mon-fri 08:00-18:00 4").unwrap();
    assert!(weekdays.applies(at(0, 8)) && !weekdays.applies(at(0, 18)));
    assert!(weekdays.applies(at(1, 12)) && !weekdays.applies(at(2, 12)));
    let night = Span::parse("sat 22:00-02:00 2").unwrap();
    assert!(night.applies(at(2, 23)) && night.applies(at(3, 1)) && !night.applies(at(2, 1)));
    for bad in [
        "",
        "4",
        "08:00 4",
        "mon 25:00-26:00 1",
        "foo 08:00-09:00 1",
        "08:00-09:00 many",
        "08:00-08:00 1",
    ] {
        assert_eq!(Span::parse(bad), None, "{bad:?}");
    }
}
