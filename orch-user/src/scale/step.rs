//! The policy `step`: a window counts requests, and its end decides
//! `floor(count / requests_per_replica) + 1`.
//!
//! The window starts at the first counted request after idleness, not on a free-running clock: a
//! clock's boundary would fall anywhere in a burst and take copies away in the middle of it.
//! Counts inside a window only grow, so the next size is known before its end: `warm` says it.

use serde::{Deserialize, Serialize};

use crate::{
    config::ScaleConfig,
    scale::{Decision, in_words},
    state::Moment,
};

/// Why a service without copies gets its first one.
pub(super) const SOMEBODY_WAITS: &str = "a connection waits";

/// The policy's memory for one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    desired: u16,
    held: Option<u16>,
    window: Option<Window>,
    total: u64,
    read_at: Moment,
    idle_since: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Window {
    start: Moment,
    base: u64,
}

impl Step {
    /// A policy that wants `desired` copies and has seen `total` requests so far.
    pub const fn new(desired: u16, total: u64, now: Moment) -> Self {
        Self {
            desired,
            held: None,
            window: None,
            total,
            read_at: now,
            idle_since: now,
        }
    }

    /// Requests seen in all.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Requests that are another policy's to judge: no window of this one counts them.
    pub(super) const fn pass_over(&mut self, total: u64, now: Moment) {
        self.total = total;
        self.read_at = now;
    }

    /// Copies that the policy wants, whatever a person holds.
    pub const fn wanted(&self) -> u16 {
        self.desired
    }

    /// Copies that should be in the ring.
    pub fn copies(&self) -> u16 {
        self.held.unwrap_or(self.desired)
    }

    /// Copies that should run, in the ring or warm beside it: `copies`, or what the window's end
    /// will decide at the least.
    pub fn warm(&self, rules: &ScaleConfig) -> u16 {
        if self.held.is_some() || self.desired == 0 {
            return self.copies();
        }
        self.copies().max(size_for(self.count(), rules))
    }

    /// Requests counted in the open window; 0 while none is open.
    pub fn count(&self) -> u64 {
        self.window
            .map_or(0, |window| self.total.saturating_sub(window.base))
    }

    /// When the open window ends.
    pub fn window_end(&self, rules: &ScaleConfig) -> Option<Moment> {
        self.window.map(|window| window.start + rules.interval)
    }

    /// Takes in how many requests there have been in all. Call often: a window is taken to start
    /// at the last call that saw no request, which is never later than its first request.
    pub fn observe(&mut self, total: u64, now: Moment, rules: &ScaleConfig) -> Option<Decision> {
        if self.window.is_none() && total > self.total && self.desired > 0 {
            self.window = Some(Window {
                start: self.read_at,
                base: self.total,
            });
        }
        self.total = total;
        self.read_at = now;
        let clamped = self.desired.clamp(rules.min, rules.max);
        if clamped != self.desired {
            let reason = format!("the limits are {}..{} now", rules.min, rules.max);
            return self.decide(clamped, reason);
        }
        if self.window_end(rules).is_some_and(|end| now >= end) {
            return self.end_window(now, rules);
        }
        // No request for a whole further interval: that is a window too, one that counted nothing.
        let idle = self.window.is_none() && now >= self.idle_since + rules.interval;
        if idle && self.desired > rules.min.max(1) {
            return self.end_window(now, rules);
        }
        None
    }

    fn end_window(&mut self, now: Moment, rules: &ScaleConfig) -> Option<Decision> {
        let count = self.count();
        let per_copy = rules.requests_per_replica.max(1);
        let reason = format!(
            "window of {} counted {count}: floor({count}/{per_copy})+1 = {}, limits {}..{}",
            in_words(rules.interval),
            count / per_copy + 1,
            rules.min,
            rules.max,
        );
        self.window = None;
        self.idle_since = now;
        self.decide(size_for(count, rules), reason)
    }

    /// What the policy wants changes silently while a person holds the number.
    fn decide(&mut self, to: u16, reason: String) -> Option<Decision> {
        let from = std::mem::replace(&mut self.desired, to);
        self.held.is_none().then_some(Decision { from, to, reason })
    }

    /// Whether a person holds the number.
    pub const fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Overrides the policy, or hands back to it.
    pub fn hold(&mut self, to: Option<u16>) -> Decision {
        let from = self.copies();
        self.held = to;
        let reason = match to {
            Some(to) => format!("set to {to} by hand"),
            None => format!("handed back to the policy, which wants {}", self.desired),
        };
        Decision {
            from,
            to: self.copies(),
            reason,
        }
    }

    /// Somebody waits for a service without copies: the first one. A number that a person holds
    /// stays.
    pub fn wake(&mut self) -> Option<Decision> {
        (self.desired == 0 && self.held.is_none()).then(|| {
            self.desired = 1;
            Decision {
                from: 0,
                to: 1,
                reason: SOMEBODY_WAITS.to_owned(),
            }
        })
    }

    /// No copies, until somebody waits. A number that a person holds stays.
    pub fn rest(&mut self, reason: String) -> Option<Decision> {
        if self.desired == 0 || self.held.is_some() {
            return None;
        }
        self.window = None;
        self.decide(0, reason)
    }

    /// Zeroes the window. A service whose window counts nothing wants its fewest copies, at once
    /// and not an interval later: whoever resets wants the state from which a test begins.
    /// A number that a person holds stays.
    pub fn reset(&mut self, now: Moment, rules: &ScaleConfig) -> Decision {
        let from = self.copies();
        self.window = None;
        self.idle_since = now;
        self.read_at = now;
        self.desired = rules.min;
        Decision {
            from,
            to: self.copies(),
            reason: format!("window zeroed by hand, limits {}..{}", rules.min, rules.max),
        }
    }
}

pub(super) fn size_for(count: u64, rules: &ScaleConfig) -> u16 {
    let size = count / rules.requests_per_replica.max(1) + 1;
    u16::try_from(size)
        .unwrap_or(u16::MAX)
        .clamp(rules.min, rules.max)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::SpareKind;

    const RULES: ScaleConfig = ScaleConfig {
        interval: Duration::from_mins(2),
        requests_per_replica: 20,
        min: 1,
        max: 10,
        spares: 0,
        spare_kind: SpareKind::Running,
        policy: crate::scale::Policy::Step,
        max_surge: 0,
        idle: Duration::ZERO,
    };

    fn at(seconds: f64) -> Moment {
        Duration::from_secs_f64(seconds)
    }

    /// Reads four times a second until `end`, with no new request; returns the decisions.
    fn idle(step: &mut Step, total: u64, start: f64, end: f64) -> Vec<(f64, u16)> {
        let ticks = ((end - start) * 4.0) as u64;
        (1..=ticks)
            .filter_map(|tick| {
                let now = start + tick as f64 / 4.0;
                let decision = step.observe(total, at(now), &RULES)?;
                Some((now, decision.to))
            })
            .collect()
    }

    #[test]
    fn sizes_at_the_steps() {
        for (count, size) in [
            (0, 1),
            (19, 1),
            (20, 2),
            (39, 2),
            (40, 3),
            (68, 4),
            (9999, 10),
        ] {
            assert_eq!(size_for(count, &RULES), size, "{count} requests");
        }
    }

    #[test]
    fn a_window_starts_with_its_first_request_and_ends_an_interval_later() {
        let mut step = Step::new(1, 0, at(0.0));
        assert_eq!(idle(&mut step, 0, 0.0, 1000.0), []);
        assert_eq!(step.window_end(&RULES), None);
        step.observe(1, at(1000.2), &RULES);
        step.observe(20, at(1000.4), &RULES);
        assert_eq!(step.window_end(&RULES), Some(at(1120.0)));
        assert_eq!((step.copies(), step.warm(&RULES), step.count()), (1, 2, 20));
        assert_eq!(step.observe(20, at(1119.9), &RULES), None);
        let decision = step.observe(20, at(1120.0), &RULES).unwrap();
        assert_eq!((decision.from, decision.to), (1, 2));
        assert_eq!(
            decision.reason,
            "window of 2m counted 20: floor(20/20)+1 = 2, limits 1..10"
        );
        assert_eq!((step.count(), step.copies()), (0, 2));
    }

    #[test]
    fn the_next_window_waits_for_a_request() {
        let mut step = Step::new(1, 0, at(0.0));
        step.observe(20, at(0.25), &RULES);
        assert_eq!(idle(&mut step, 20, 0.25, 200.0), [(120.0, 2)]);
        // 4 requests 80 s after the boundary: their window decides 120 s later, not before.
        step.observe(24, at(200.25), &RULES);
        assert_eq!(idle(&mut step, 24, 200.25, 319.75), []);
        assert_eq!(idle(&mut step, 24, 319.75, 321.0), [(320.0, 1)]);
    }

    #[test]
    fn an_idle_service_goes_down_after_a_further_interval() {
        let mut step = Step::new(1, 0, at(0.0));
        step.observe(65, at(0.25), &RULES);
        assert_eq!(
            idle(&mut step, 65, 0.25, 2000.0),
            [(120.0, 4), (240.0, 1)],
            "and stays quiet at the bottom"
        );
    }

    #[test]
    fn a_reset_zeroes_the_window_and_goes_to_the_bottom() {
        let mut step = Step::new(4, 100, at(0.0));
        step.observe(130, at(1.0), &RULES);
        assert_eq!(step.reset(at(2.0), &RULES).to, 1);
        assert_eq!((step.count(), step.warm(&RULES)), (0, 1));
        assert_eq!(idle(&mut step, 130, 2.0, 500.0), []);
    }

    #[test]
    fn a_held_number_outlives_windows_and_gives_back_what_the_policy_wants() {
        let mut step = Step::new(1, 0, at(0.0));
        assert_eq!(step.hold(Some(5)).to, 5);
        step.observe(45, at(0.25), &RULES);
        assert_eq!(step.warm(&RULES), 5);
        assert_eq!(
            idle(&mut step, 45, 0.25, 121.0),
            [],
            "no decision of its own"
        );
        assert_eq!(step.copies(), 5);
        let back = step.hold(None);
        assert_eq!((back.from, back.to), (5, 3));
    }

    #[test]
    fn new_limits_hold_at_once() {
        let mut step = Step::new(5, 0, at(0.0));
        let rules = ScaleConfig { max: 3, ..RULES };
        let decision = step.observe(0, at(1.0), &rules).unwrap();
        assert_eq!((decision.from, decision.to), (5, 3));
    }
}
