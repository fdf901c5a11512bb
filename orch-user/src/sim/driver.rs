//! Who decides in a simulation: a policy of the controller, or a reference beside it.

use std::{collections::VecDeque, time::Duration};

use super::world::World;
use crate::{
    config::ScaleConfig,
    scale::{Decision, Metrics, Scaler},
};

/// How many copies should be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// In the ring.
    pub copies: u16,
    /// Running: these, or more that are warm beside it.
    pub warm: u16,
}

/// Decides, four times a second.
pub trait Driver {
    /// Takes in a reading.
    fn tick(&mut self, now: Duration, metrics: &Metrics) -> Wish;
}

/// A policy of the controller, by the code of the controller.
#[derive(Clone, Debug)]
pub struct Own {
    /// The policy and its limits.
    pub rules: ScaleConfig,
    scaler: Scaler,
    /// What was decided, and when.
    pub decisions: Vec<(Duration, Decision)>,
}

impl Own {
    /// A service that begins with `first` copies.
    pub fn new(rules: ScaleConfig, first: u16) -> Self {
        Self {
            scaler: Scaler::new(first, 0, Duration::ZERO),
            rules,
            decisions: Vec::new(),
        }
    }
}

impl Driver for Own {
    fn tick(&mut self, now: Duration, metrics: &Metrics) -> Wish {
        if let Some(decision) = self.scaler.observe(metrics, now, &self.rules) {
            self.decisions.push((now, decision));
        }
        Wish {
            copies: self.scaler.copies(&self.rules),
            warm: self.scaler.warm(&self.rules),
        }
    }
}

/// Policies that nobody can configure: they know what a copy can do, and decide once a second.
#[derive(Clone, Debug)]
pub enum Formula {
    /// `ceil(rate / service rate)`.
    Ceil,
    /// `rate / service rate + beta * sqrt(..)`, plus what drains the backlog in 2 s, held for 10 s.
    Sqrt(f64),
    /// As many copies as this, always.
    Static(u16),
    /// The copies that the trace will need until a copy that is ordered now is there: per second.
    Oracle(Vec<u16>),
}

/// A formula, with what it remembers.
#[derive(Clone, Debug)]
pub struct Reference {
    formula: Formula,
    service_rate: f64,
    start: Duration,
    max: u16,
    /// When the load begins.
    lead: Duration,
    wanted: u16,
    last: (Duration, u64),
    held: VecDeque<(Duration, u16)>,
}

impl Reference {
    /// A formula for a world whose copies answer so many requests a second and take so long to start.
    pub fn new(formula: Formula, world: &World, max: u16) -> Self {
        Self {
            formula,
            service_rate: world.service_rate(),
            start: world.start.mean(),
            max,
            lead: world.lead,
            wanted: world.first,
            last: (Duration::ZERO, 0),
            held: VecDeque::new(),
        }
    }
}

/// Between two decisions of a formula.
const SECOND: Duration = Duration::from_secs(1);
/// For how long [`Formula::Sqrt`] keeps what it wanted.
const HOLD: Duration = Duration::from_secs(10);
/// In how many seconds it wants the backlog gone.
const DRAIN_S: f64 = 2.0;

impl Driver for Reference {
    fn tick(&mut self, now: Duration, metrics: &Metrics) -> Wish {
        let now = now.saturating_sub(self.lead);
        let (at, requests) = self.last;
        let whole = now >= at + SECOND;
        if whole || matches!(self.formula, Formula::Oracle(_) | Formula::Static(_)) {
            let span = now.saturating_sub(at).max(SECOND).as_secs_f64();
            let load = (metrics.requests - requests) as f64 / span / self.service_rate;
            if whole {
                self.last = (now, metrics.requests);
            }
            self.wanted = self.decide(now, load, metrics).clamp(1, self.max);
        }
        Wish {
            copies: self.wanted,
            warm: self.wanted,
        }
    }
}

impl Reference {
    fn decide(&mut self, now: Duration, load: f64, metrics: &Metrics) -> u16 {
        match &self.formula {
            Formula::Ceil => load.ceil() as u16,
            Formula::Static(copies) => *copies,
            Formula::Sqrt(beta) => {
                let busy = f64::from(metrics.ready);
                let waiting = (metrics.in_flight as f64 - busy).max(0.0);
                let backlog = waiting / (self.service_rate * DRAIN_S);
                let wanted = (load + beta * load.sqrt() + backlog).ceil() as u16;
                self.held.push_back((now, wanted));
                while self.held.front().is_some_and(|(at, _)| now >= *at + HOLD) {
                    self.held.pop_front();
                }
                let held = self.held.iter().map(|(_, wanted)| *wanted);
                held.max().unwrap_or(wanted)
            }
            Formula::Oracle(needs) => {
                let from = now.as_secs() as usize;
                let to = (now + self.start).as_secs_f64().floor() as usize;
                let ahead = needs.iter().skip(from).take(to + 1 - from);
                ahead.copied().max().unwrap_or(1)
            }
        }
    }
}
