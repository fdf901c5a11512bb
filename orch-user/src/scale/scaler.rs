//! A service's policy with all that it remembers.

use serde::{Deserialize, Serialize};

use super::{
    Decision, History, Limits, Metrics, Policy,
    heuristic::Question,
    step::{self, Step},
};
use crate::{config::ScaleConfig, state::Moment};

/// Readings that are further apart say nothing of what was between them: the host slept.
const GAP_S: f64 = 10.0;

/// Something that a policy was told: what it decides follows from these alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// A reading.
    Read(Metrics),
    /// A person sets the number, or hands back.
    Hold(Option<u16>),
    /// A person zeroes the window.
    Reset,
    /// Somebody waits for a service without copies.
    Wake,
    /// The service has had nothing to do for long: why it needs no copy.
    Rest(String),
    /// An external program answered.
    Answer(i32),
    /// The file says something else.
    Rules(ScaleConfig),
}

/// Decides for one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaler {
    step: Step,
    history: History,
    held: Option<u16>,
    read_at: Option<Moment>,
    /// Copies that may run now, so that no more than `max_surge` start at a time.
    allowed: u16,
}

impl Scaler {
    /// A scaler that wants `desired` copies and has seen `total` requests so far.
    pub fn new(desired: u16, total: u64, now: Moment) -> Self {
        Self {
            step: Step::new(desired, total, now),
            history: History::new(desired),
            held: None,
            read_at: None,
            allowed: u16::MAX,
        }
    }

    /// Copies wanted.
    pub fn desired(&self, rules: &ScaleConfig) -> u16 {
        match &rules.policy {
            Policy::Step => self.step.copies(),
            _ => self.held.unwrap_or(self.history.desired),
        }
    }

    /// Copies that should be in the ring: those wanted, as far as they may start by now.
    pub fn copies(&self, rules: &ScaleConfig) -> u16 {
        self.desired(rules).min(self.allowed)
    }

    /// Copies that should run, in the ring or warm beside it.
    pub fn warm(&self, rules: &ScaleConfig) -> u16 {
        match &rules.policy {
            Policy::Step => self.step.warm(rules).min(self.allowed),
            _ => self.copies(rules),
        }
    }

    /// Takes in whatever comes. New rules replace the old ones.
    pub fn apply(
        &mut self,
        input: &Input,
        now: Moment,
        rules: &mut ScaleConfig,
    ) -> Option<Decision> {
        match input {
            Input::Read(metrics) => self.observe(metrics, now, rules),
            Input::Hold(to) => Some(self.hold(*to, rules)),
            Input::Reset => Some(self.reset(now, rules)),
            Input::Wake => self.rouse(now, rules),
            Input::Rest(reason) => self.rest(reason.clone(), now, rules),
            Input::Answer(delta) => {
                self.history.answer = Some(*delta);
                None
            }
            Input::Rules(new) => {
                self.change_policy(new, rules, now);
                *rules = new.clone();
                None
            }
        }
    }

    /// Another policy begins where the one before it ends.
    fn change_policy(&mut self, new: &ScaleConfig, old: &ScaleConfig, now: Moment) {
        if std::mem::discriminant(&new.policy) == std::mem::discriminant(&old.policy) {
            return;
        }
        let wanted = self.wanted(old);
        let total = self.step.total();
        self.step = Step::new(wanted, total, now);
        self.step.hold(self.held);
        self.history = History::new(wanted);
        self.read_at = None;
    }

    /// Copies that the policy wants, whatever a person holds.
    fn wanted(&self, rules: &ScaleConfig) -> u16 {
        match &rules.policy {
            Policy::Step => self.step.wanted(),
            _ => self.history.desired,
        }
    }

    /// Takes in a reading, and decides.
    pub fn observe(
        &mut self,
        metrics: &Metrics,
        now: Moment,
        rules: &ScaleConfig,
    ) -> Option<Decision> {
        self.allowed = match rules.max_surge {
            0 => u16::MAX,
            surge => metrics.ready.saturating_add(surge).max(1),
        };
        if rules.policy == Policy::Step {
            let decision = self.step.observe(metrics.requests, now, rules);
            self.history.desired = self.step.copies();
            return decision;
        }
        self.step.pass_over(metrics.requests, now);
        self.follow(metrics, now, rules)
    }

    fn follow(&mut self, metrics: &Metrics, now: Moment, rules: &ScaleConfig) -> Option<Decision> {
        let limits = self.limits(rules);
        if self.jumped(now) {
            self.history.forget();
        }
        self.read_at = Some(now);
        self.history.push(now, *metrics);
        let clamped = self.history.desired.clamp(limits.min, limits.max);
        if clamped != self.history.desired {
            let reason = format!("the limits are {}..{} now", limits.min, limits.max);
            return self.decided(now, clamped, reason);
        }
        let due = self
            .history
            .decided_at
            .is_none_or(|at| now >= at + rules.policy.every());
        let sleeps = self.history.desired == 0;
        if sleeps && !rules.policy.wakes() {
            return None;
        }
        let unsettled = metrics.ready == 0 && !sleeps || metrics.replacing * 2 > metrics.running;
        if !due || unsettled || self.history.span_s() <= 0.0 {
            return None;
        }
        self.history.decided_at = Some(now);
        if let Some(need) = rules.policy.need(&self.history, limits) {
            self.history.advise(now, need);
        }
        let advice = rules.policy.decide(&self.history, limits, now);
        self.history.answer = None;
        if advice.desired == self.history.desired {
            return None;
        }
        self.decided(now, advice.desired, advice.reason)
    }

    /// What a policy may choose from. A service with copies loses the last one when it has had nothing
    /// to do for long, and not by a policy.
    fn limits(&self, rules: &ScaleConfig) -> Limits {
        let min = match self.history.desired {
            0 => rules.min,
            _ => rules.min.max(1),
        };
        let max = rules.max;
        Limits { min, max }
    }

    /// Whether it has no copies by its policy, so that somebody who waits gets it one.
    pub fn sleeps(&self, rules: &ScaleConfig) -> bool {
        self.held.is_none() && self.desired(rules) == 0
    }

    fn rouse(&mut self, now: Moment, rules: &ScaleConfig) -> Option<Decision> {
        if !self.sleeps(rules) {
            return None;
        }
        let by_step = self.step.wake();
        self.history.change(now, 1);
        if rules.policy == Policy::Step {
            return by_step;
        }
        let reason = step::SOMEBODY_WAITS.to_owned();
        Some(Decision {
            from: 0,
            to: 1,
            reason,
        })
    }

    /// A number that a person holds stays.
    fn rest(&mut self, reason: String, now: Moment, rules: &ScaleConfig) -> Option<Decision> {
        if self.held.is_some() {
            return None;
        }
        let from = self.desired(rules);
        let _ = self.step.rest(reason.clone());
        self.history.forget();
        self.history.change(now, 0);
        Some(Decision {
            from,
            to: 0,
            reason,
        })
    }

    /// Whether the clock went back, or so far ahead that nobody knows what was between.
    fn jumped(&self, now: Moment) -> bool {
        self.read_at
            .is_some_and(|at| now < at || now.saturating_sub(at).as_secs_f64() > GAP_S)
    }

    fn decided(&mut self, now: Moment, to: u16, reason: String) -> Option<Decision> {
        let from = self.history.desired;
        self.history.change(now, to);
        self.held.is_none().then_some(Decision { from, to, reason })
    }

    /// What an external program is to be asked.
    pub fn question(&self, interval: std::time::Duration, rules: &ScaleConfig) -> Question {
        let limits = self.limits(rules);
        Question::new(&self.history, interval, limits)
    }

    /// Requests counted: in the open window, or for policies without windows over `interval`.
    pub fn count(&self, rules: &ScaleConfig) -> u64 {
        if rules.policy == Policy::Step {
            return self.step.count();
        }
        let (_, then) = self.history.before(rules.interval.as_secs_f64());
        self.history.last().requests.saturating_sub(then.requests)
    }

    /// When the loop has to wake for a decision: a window's end is not to wait for the next reading.
    pub fn wake(&self, rules: &ScaleConfig) -> Option<Moment> {
        (rules.policy == Policy::Step).then(|| self.step.window_end(rules))?
    }

    /// When the next decision falls that time alone brings.
    pub fn window_end(&self, rules: &ScaleConfig) -> Option<Moment> {
        if rules.policy == Policy::Step {
            return self.step.window_end(rules);
        }
        let every = rules.policy.every();
        let decided_at = self.history.decided_at.filter(|_| !every.is_zero())?;
        Some(decided_at + every)
    }

    /// The number that a person holds it at.
    pub const fn held(&self) -> Option<u16> {
        self.held
    }

    /// Whether a person holds the number.
    pub const fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Overrides the policy, or hands back to it.
    pub fn hold(&mut self, to: Option<u16>, rules: &ScaleConfig) -> Decision {
        let from = self.desired(rules);
        let by_step = self.step.hold(to);
        self.held = to;
        if let (Policy::Manual, Some(to)) = (&rules.policy, to) {
            self.history.desired = to;
        }
        if rules.policy == Policy::Step {
            return by_step;
        }
        let reason = match to {
            Some(to) => format!("set to {to} by hand"),
            None => format!(
                "handed back to the policy, which wants {}",
                self.history.desired
            ),
        };
        let to = self.desired(rules);
        Decision { from, to, reason }
    }

    /// Zeroes what was counted and goes to the fewest copies.
    pub fn reset(&mut self, now: Moment, rules: &ScaleConfig) -> Decision {
        let from = self.desired(rules);
        let by_step = self.step.reset(now, rules);
        self.history.forget();
        self.history.change(now, rules.min);
        if rules.policy == Policy::Step {
            return by_step;
        }
        Decision {
            from,
            to: self.desired(rules),
            reason: by_step.reason,
        }
    }
}
