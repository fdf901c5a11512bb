//! What a service has been seen to do: readings, bounded in time.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Metrics;
use crate::state::Moment;

/// Readings that are kept: at four a second, a little more than ten minutes.
const KEPT: usize = 2600;
/// Advice that is kept, one per change.
const ADVICE_KEPT: usize = 512;

/// What a policy decides from. The last reading is at `now`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    readings: VecDeque<(Moment, Metrics)>,
    /// What the policy wanted and from when on, oldest first: before limits of speed and hold.
    raw: VecDeque<(Moment, u16)>,
    /// Copies wanted now.
    pub desired: u16,
    /// When that last grew, and when it last shrank.
    pub grew_at: Option<Moment>,
    /// See `grew_at`.
    pub shrank_at: Option<Moment>,
    /// When the policy last decided, whatever it decided.
    pub decided_at: Option<Moment>,
    /// The last answer of an external program that was not used yet: more or fewer copies.
    pub answer: Option<i32>,
}

impl History {
    pub(super) fn new(desired: u16) -> Self {
        Self {
            desired,
            ..Self::default()
        }
    }

    pub(super) fn push(&mut self, now: Moment, metrics: Metrics) {
        if self.readings.len() == KEPT {
            self.readings.pop_front();
        }
        self.readings.push_back((now, metrics));
    }

    /// Forgets readings and advice: what came before says nothing of what is now.
    pub(super) fn forget(&mut self) {
        self.readings.clear();
        self.raw.clear();
        self.decided_at = None;
    }

    /// The last reading.
    pub fn last(&self) -> Metrics {
        self.readings
            .back()
            .map_or_else(Metrics::default, |last| last.1)
    }

    /// Seconds of the longest span that readings cover.
    pub fn span_s(&self) -> f64 {
        match (self.readings.front(), self.readings.back()) {
            (Some(first), Some(last)) => last.0.saturating_sub(first.0).as_secs_f64(),
            _ => 0.0,
        }
    }

    /// Readings from the latest to the oldest, each with its age in seconds.
    pub fn backwards(&self) -> impl Iterator<Item = (f64, &Metrics)> {
        let now = self.readings.back().map_or(Moment::ZERO, |last| last.0);
        let age = move |at: Moment| now.saturating_sub(at).as_secs_f64();
        let latest_first = self.readings.iter().rev();
        latest_first.map(move |(at, metrics)| (age(*at), metrics))
    }

    /// The latest reading that is at least so old, or else the oldest; with its age.
    pub fn before(&self, seconds: f64) -> (f64, Metrics) {
        // A reading that is a hair too young will do: clocks of readings jitter.
        let enough = seconds - 0.005;
        let found = self.backwards().find(|(age, _)| *age >= enough);
        let oldest = || self.backwards().last();
        let (age, metrics) = found.or_else(oldest).unwrap_or((0.0, &NOTHING));
        (age, *metrics)
    }

    /// Requests a second over the last so many seconds, or over as much of them as is known.
    pub fn request_rate(&self, seconds: f64) -> f64 {
        let (age, then) = self.before(seconds);
        let requests = self.last().requests.saturating_sub(then.requests);
        if age > 0.0 {
            requests as f64 / age
        } else {
            0.0
        }
    }

    /// Responses a second, the same.
    pub fn response_rate(&self, seconds: f64) -> f64 {
        let (age, then) = self.before(seconds);
        let responses = self.last().responses.saturating_sub(then.responses);
        if age > 0.0 {
            responses as f64 / age
        } else {
            0.0
        }
    }

    /// Mean of requests in flight over the last so many seconds.
    pub fn concurrency(&self, seconds: f64) -> f64 {
        let within = self.backwards().take_while(|(age, _)| *age < seconds);
        let (mut sum, mut count) = (0.0, 0_u32);
        for (_, metrics) in within {
            sum += metrics.in_flight as f64;
            count += 1;
        }
        sum / f64::from(count.max(1))
    }

    /// Notes what the policy would want if nothing slowed it down.
    pub(super) fn advise(&mut self, now: Moment, raw: u16) {
        if self.raw.back().is_some_and(|(_, last)| *last == raw) {
            return;
        }
        if self.raw.len() == ADVICE_KEPT {
            self.raw.pop_front();
        }
        self.raw.push_back((now, raw));
    }

    /// The most that was wanted within the last so many seconds, what is wanted now included.
    pub fn most_wanted(&self, now: Moment, seconds: f64) -> u16 {
        let mut most = 0;
        for (at, raw) in self.raw.iter().rev() {
            most = most.max(*raw);
            // This one was in force when the span began; what came before it was not.
            if now.saturating_sub(*at).as_secs_f64() >= seconds {
                break;
            }
        }
        most
    }

    /// Notes that so many copies are wanted from now on.
    pub(super) fn change(&mut self, now: Moment, to: u16) {
        match to.cmp(&self.desired) {
            std::cmp::Ordering::Greater => self.grew_at = Some(now),
            std::cmp::Ordering::Less => self.shrank_at = Some(now),
            std::cmp::Ordering::Equal => {}
        }
        self.desired = to;
    }
}

/// Of a service that nobody has read yet.
static NOTHING: Metrics = Metrics {
    requests: 0,
    responses: 0,
    errors: 0,
    in_flight: 0,
    ready: 0,
    starting: 0,
    running: 0,
    spares: 0,
    replacing: 0,
    p50_s: 0.0,
    p90_s: 0.0,
    p99_s: 0.0,
    service_rate: 0.0,
    saturated: false,
    alone_s: 0.0,
    start_s: 0.0,
    wall_s: 0.0,
};
