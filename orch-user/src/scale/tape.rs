//! A live service's scaler, with a tape of what it was told and what it decided: the tape replays
//! to the same decisions (`orch sim --from-events`), and its counts are a trace (`orch record`).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Decision, Input, Metrics, Scaler};
use crate::{config::ScaleConfig, state::Moment};

/// Inputs that are kept: at four readings a second, 17 minutes. Older ones go into `base`.
/// In tests fewer, so that they come to the end of it.
const KEPT: usize = if cfg!(test) { 256 } else { 4096 };
/// Seconds whose requests are remembered: six hours.
const SECONDS: usize = 6 * 3600;

/// An input, and what was decided upon it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Moment,
    /// What the scaler was told.
    pub input: Input,
    /// What it decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

/// What `orch record --decisions` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// Name of the service.
    pub service: String,
    /// The scaler before the first entry.
    pub base: Scaler,
    /// The rules before the first entry.
    pub rules: ScaleConfig,
    /// What came then, oldest first.
    pub entries: Vec<Entry>,
}

/// Requests in each second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Requests per second, the oldest first; the last second may not be over.
    pub counts: VecDeque<u64>,
    second: u64,
    total: Option<u64>,
}

impl Seconds {
    fn read(&mut self, total: u64, now: Moment) {
        let second = now.as_secs();
        let came = total.saturating_sub(self.total.unwrap_or(total));
        self.total = Some(total);
        if self.counts.is_empty() {
            self.second = second;
            self.counts.push_back(0);
        }
        let passed = second.saturating_sub(self.second).min(SECONDS as u64);
        for _ in 0..passed {
            if self.counts.len() == SECONDS {
                self.counts.pop_front();
            }
            self.counts.push_back(0);
        }
        self.second = self.second.max(second);
        if let Some(last) = self.counts.back_mut() {
            *last += came;
        }
    }
}

/// A scaler with its tape.
#[derive(Clone, Debug)]
pub struct Tape {
    scaler: Scaler,
    base: Scaler,
    rules: ScaleConfig,
    base_rules: ScaleConfig,
    entries: VecDeque<Entry>,
    seconds: Seconds,
}

impl Tape {
    /// A scaler that wants `desired` copies and has seen `total` requests so far.
    pub fn new(desired: u16, total: u64, now: Moment, rules: &ScaleConfig) -> Self {
        let scaler = Scaler::new(desired, total, now);
        Self {
            base: scaler.clone(),
            scaler,
            rules: rules.clone(),
            base_rules: rules.clone(),
            entries: VecDeque::new(),
            seconds: Seconds::default(),
        }
    }

    /// What is not to be changed without the tape's knowledge.
    pub const fn scaler(&self) -> &Scaler {
        &self.scaler
    }

    /// Takes in a reading, and decides.
    pub fn observe(
        &mut self,
        metrics: &Metrics,
        now: Moment,
        rules: &ScaleConfig,
    ) -> Option<Decision> {
        self.seconds.read(metrics.requests, now);
        if self.rules != *rules {
            self.tell(now, Input::Rules(rules.clone()));
        }
        self.tell(now, Input::Read(*metrics))
    }

    /// Overrides the policy, or hands back to it.
    pub fn hold(&mut self, to: Option<u16>, now: Moment) -> Option<Decision> {
        self.tell(now, Input::Hold(to))
    }

    /// Zeroes the window.
    pub fn reset(&mut self, now: Moment) -> Option<Decision> {
        self.tell(now, Input::Reset)
    }

    /// Somebody waits for a service without copies.
    pub fn wake(&mut self, now: Moment) -> Option<Decision> {
        self.scaler.sleeps(&self.rules).then_some(())?;
        self.tell(now, Input::Wake)
    }

    /// The service has had nothing to do for long.
    pub fn rest(&mut self, reason: String, now: Moment) -> Option<Decision> {
        (self.scaler.desired(&self.rules) > 0).then_some(())?;
        self.tell(now, Input::Rest(reason))
    }

    /// Takes the answer of an external program.
    pub fn answer(&mut self, delta: i32, now: Moment) {
        self.tell(now, Input::Answer(delta));
    }

    fn tell(&mut self, at: Moment, input: Input) -> Option<Decision> {
        let decision = self.scaler.apply(&input, at, &mut self.rules);
        if self.entries.len() == KEPT {
            self.shorten();
        }
        self.entries.push_back(Entry {
            at,
            input,
            decision: decision.clone(),
        });
        decision
    }

    /// Lets the older half go into the base, from which the younger half replays the same.
    fn shorten(&mut self) {
        for entry in self.entries.drain(..KEPT / 2) {
            self.base
                .apply(&entry.input, entry.at, &mut self.base_rules);
        }
    }

    /// Requests in each second, as far back as is remembered.
    pub const fn seconds(&self) -> &Seconds {
        &self.seconds
    }

    /// All there is of the tape.
    pub fn log(&self, service: &str) -> Log {
        Log {
            service: service.to_owned(),
            base: self.base.clone(),
            rules: self.base_rules.clone(),
            entries: self.entries.iter().cloned().collect(),
        }
    }
}

impl Log {
    /// The rules at the end.
    pub fn last_rules(&self) -> ScaleConfig {
        let rules = self
            .entries
            .iter()
            .rev()
            .find_map(|entry| match &entry.input {
                Input::Rules(rules) => Some(rules.clone()),
                _ => None,
            });
        rules.unwrap_or_else(|| self.rules.clone())
    }

    /// Lets the policy decide again. Returns what it decides, beside what it had decided.
    pub fn replay(&self) -> Vec<(Moment, Option<Decision>, Option<Decision>)> {
        let (mut scaler, mut rules) = (self.base.clone(), self.rules.clone());
        let again = self.entries.iter().filter_map(|entry| {
            let now = scaler.apply(&entry.input, entry.at, &mut rules);
            let any = now.is_some() || entry.decision.is_some();
            any.then(|| (entry.at, now, entry.decision.clone()))
        });
        again.collect()
    }
}
