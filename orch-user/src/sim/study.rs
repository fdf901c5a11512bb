//! Many runs: every policy on the same arrivals, over several seeds, beside references.

use std::time::Duration;

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use serde::Serialize;

use super::{
    driver::{Driver, Formula, Own, Reference},
    engine::run,
    outcome::Outcome,
    world::World,
};
use crate::{
    arrivals::pattern::{Arrivals, Pattern, Plan, Spacing},
    config::ScaleConfig,
    scale::{Decision, Policy, concurrency::Concurrency, elastic::Elastic, target::Target},
};

/// Who decides in a study.
#[derive(Clone, Debug, PartialEq)]
pub enum Contender {
    /// A policy of the controller.
    Own(Policy),
    /// `ceil(rate / service rate)`, once a second.
    Ceil,
    /// Square-root staffing with this factor, 2 s for the backlog, held for 10 s.
    Sqrt(f64),
    /// As many copies as this, always.
    Static(u16),
    /// Knows the trace.
    Oracle,
}

impl Contender {
    /// The controller's policies that decide by themselves, with defaults.
    pub fn policies() -> Vec<Self> {
        let all = [
            Policy::Step,
            Policy::Target(Target::default()),
            Policy::Concurrency(Concurrency::default()),
            Policy::Elastic(Elastic),
        ];
        all.into_iter().map(Self::Own).collect()
    }

    /// What nobody can configure, to compare with.
    pub fn references(max: u16) -> Vec<Self> {
        vec![
            Self::Ceil,
            Self::Sqrt(1.0),
            Self::Sqrt(2.0),
            Self::Static(1),
            Self::Static(max),
            Self::Oracle,
        ]
    }

    /// Its name in tables.
    pub fn name(&self) -> String {
        match self {
            Self::Own(policy) => policy.name().to_owned(),
            Self::Ceil => "(ceil)".to_owned(),
            Self::Sqrt(beta) => format!("(sqrt {beta})"),
            Self::Static(copies) => format!("(always {copies})"),
            Self::Oracle => "(oracle)".to_owned(),
        }
    }
}

/// A mean over seeds, and how far the true one may be off (95 %).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Half the width of its confidence interval.
    pub plus_minus: f64,
}

impl Mean {
    /// Of these values.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count.max(1.0);
        if values.len() < 2 {
            return Self {
                mean,
                plus_minus: 0.0,
            };
        }
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let free = count - 1.0;
        // Student's t at 97.5 %, by its expansion around the normal distribution's 1.96.
        let t = 1.960 + 2.372 / free + 2.823 / free.powi(2) + 2.556 / free.powi(3);
        Self {
            mean,
            plus_minus: t * (squares / free / count).sqrt(),
        }
    }
}

/// What a contender came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Who.
    pub policy: String,
    /// Requests.
    pub arrivals: Mean,
    /// Without an answer at the end.
    pub unanswered: Mean,
    /// Among them, those that found no copy.
    pub refused: Mean,
    /// Answered, or still waiting, after longer than the limit.
    pub late: Mean,
    /// The same in per cent of all.
    pub late_percent: Mean,
    /// Seconds of all copies together, from order to end.
    pub copy_seconds: Mean,
    /// Changes of the number.
    pub actions: Mean,
    /// Changes in the other direction than the one before.
    pub reversals: Mean,
    /// Response time, median, seconds.
    pub p50_s: Mean,
    /// The same, 99th percentile.
    pub p99_s: Mean,
    /// SPEC: copies missing over copies needed.
    pub under: Mean,
    /// SPEC: copies too many over copies needed.
    pub over: Mean,
    /// SPEC: part of the time with copies missing.
    pub time_under: Mean,
    /// SPEC: part of the time with too many.
    pub time_over: Mean,
}

/// What is compared.
#[derive(Clone, Debug)]
pub struct Study {
    /// When requests come; its seed is the first of as many as there are runs.
    pub plan: Plan,
    /// What they meet.
    pub world: World,
    /// Limits, and what else the policies share.
    pub rules: ScaleConfig,
    /// How many seeds.
    pub seeds: u64,
}

impl Study {
    /// Copies that each second's requests need, no fewer than the fewest and no more than the most.
    pub fn needs(&self, seed: u64) -> Vec<u16> {
        let mut counts = vec![0.0; self.world.end.as_secs_f64().ceil() as usize];
        for at in self.arrivals(seed) {
            if let Some(count) = counts.get_mut(at.as_secs() as usize) {
                *count += 1.0;
            }
        }
        let rate = self.world.service_rate();
        let copies = |count: &f64| (count / rate).ceil() as u16;
        let limited = |count| copies(count).clamp(self.rules.min.max(1), self.rules.max);
        counts.iter().map(limited).collect()
    }

    /// The requests of a run. They do not depend on the policy, nor on times of work.
    fn arrivals(&self, seed: u64) -> Arrivals {
        let seed = self.plan.seed.wrapping_add(seed);
        let plan = Plan {
            seed,
            ..self.plan.clone()
        };
        plan.arrivals()
    }

    fn driver(&self, contender: &Contender, seed: u64) -> Box<dyn Driver> {
        let formula = match contender {
            Contender::Own(policy) => {
                return Box::new(Own::new(self.rules_for(policy), self.world.first));
            }
            Contender::Ceil => Formula::Ceil,
            Contender::Sqrt(beta) => Formula::Sqrt(*beta),
            Contender::Static(copies) => Formula::Static(*copies),
            Contender::Oracle => Formula::Oracle(self.needs(seed)),
        };
        Box::new(Reference::new(formula, &self.world, self.rules.max))
    }

    /// One run.
    pub fn run(&self, contender: &Contender, seed: u64) -> Outcome {
        let mut driver = self.driver(contender, seed);
        let mut world = self.world.clone();
        if let Contender::Static(copies) = contender {
            world.first = *copies;
        }
        run(&world, rng(seed), self.arrivals(seed), &mut *driver)
    }

    /// What a policy of the controller decides in the first run, and why, from the beginning of the
    /// load on. References do not say.
    pub fn decisions(&self, contender: &Contender) -> Vec<(Duration, Decision)> {
        let Contender::Own(policy) = contender else {
            return Vec::new();
        };
        let mut own = Own::new(self.rules_for(policy), self.world.first);
        run(&self.world, rng(0), self.arrivals(0), &mut own);
        let decisions = own.decisions.into_iter();
        let of_load =
            |(at, decision): (Duration, _)| Some((at.checked_sub(self.world.lead)?, decision));
        decisions.filter_map(of_load).collect()
    }

    fn rules_for(&self, policy: &Policy) -> ScaleConfig {
        ScaleConfig {
            policy: policy.clone(),
            ..self.rules.clone()
        }
    }

    /// All seeds.
    pub fn score(&self, contender: &Contender) -> Score {
        self.score_and_tell(contender, || {})
    }

    /// The same; calls `told` after each run.
    pub fn score_and_tell(&self, contender: &Contender, told: impl Fn()) -> Score {
        let runs: Vec<(Outcome, _)> = (0..self.seeds)
            .map(|seed| {
                let outcome = self.run(contender, seed);
                let off = outcome.elasticity(&self.needs(seed));
                told();
                (outcome, off)
            })
            .collect();
        let mean = |value: &dyn Fn(&Outcome) -> f64| {
            Mean::of(&runs.iter().map(|(run, _)| value(run)).collect::<Vec<_>>())
        };
        let off = |value: &dyn Fn(&super::outcome::Elasticity) -> f64| {
            Mean::of(&runs.iter().map(|(_, off)| value(off)).collect::<Vec<_>>())
        };
        Score {
            policy: contender.name(),
            arrivals: mean(&|run| run.arrivals as f64),
            unanswered: mean(&|run| run.unanswered() as f64),
            refused: mean(&|run| run.refused as f64),
            late: mean(&|run| run.late as f64),
            late_percent: mean(&|run| 100.0 * run.late as f64 / run.arrivals.max(1) as f64),
            copy_seconds: mean(&Outcome::copy_s),
            actions: mean(&|run| f64::from(run.actions)),
            reversals: mean(&|run| f64::from(run.reversals)),
            p50_s: mean(&|run| run.times.quantile(0.5)),
            p99_s: mean(&|run| run.times.quantile(0.99)),
            under: off(&|off| off.under),
            over: off(&|off| off.over),
            time_under: off(&|off| off.time_under),
            time_over: off(&|off| off.time_over),
        }
    }
}

/// Randomness of times of work.
fn rng(seed: u64) -> Pcg64Mcg {
    Pcg64Mcg::seed_from_u64(seed)
}

/// The random client that copies of half a second can serve: its pauses are at least 50 ms, since
/// shorter ones ask for more than ten copies.
pub const RANDOM: Pattern = Pattern::Random { shortest_ms: 50 };

/// A trace as many independent users would have made it, or another pattern as it is.
pub fn plan(pattern: Pattern, duration: Option<Duration>) -> Plan {
    let spacing = match pattern {
        Pattern::Trace { .. } => Spacing::Poisson,
        _ => Spacing::Even,
    };
    Plan {
        pattern,
        duration,
        spacing,
        seed: 1,
    }
}

/// The world of the seeds: a copy works on one request at a time, for half a second.
pub fn seeds_world(start: Duration, end: Duration) -> World {
    World {
        service: super::dist::Dist::Fixed(Duration::from_millis(500)),
        start: super::dist::Dist::Fixed(start),
        concurrency: 1,
        max: 10,
        first: 1,
        end,
        late: Duration::from_secs(2),
        stop: Duration::ZERO,
        phase: Duration::ZERO,
        lead: Duration::ZERO,
        spares: 0,
    }
}
