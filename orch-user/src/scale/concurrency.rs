//! The policy `concurrency`: requests in flight per copy, over a stable and a panic window, as
//! Knative's pod autoscaler does it (knative/serving, `config-autoscaler` and its documentation).
//!
//! Every 2 s: `desired = ceil(mean in flight over the window / (limit * 0.7))`. The stable window
//! decides, unless the panic window, a tenth of it, wants twice as many as are ready: then it does,
//! and no copy goes until a whole stable window has passed since. Down by half at the most.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Advice, History, Limits, in_words};
use crate::state::Moment;

/// Between two decisions.
pub const TICK: Duration = Duration::from_secs(2);
/// Part of the limit that copies should have in flight.
const UTILISATION: f64 = 0.7;
/// The panic window is this part of the stable one.
const PANIC_PART: f64 = 0.1;
/// Panic begins where this many times the ready copies are wanted.
const PANIC_FACTOR: f64 = 2.0;

/// A copy goes once the others would have this part of what they can.
const STAYS: f64 = 0.9;

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Concurrency {
    /// Requests in flight that one copy can have, above 0.0.
    pub limit: f64,
    /// The stable window.
    pub window: Duration,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            limit: 1.0,
            window: Duration::from_mins(1),
        }
    }
}

impl Concurrency {
    pub(super) fn decide(&self, history: &History, limits: Limits, now: Moment) -> Advice {
        let last = history.last();
        let window = self.window.as_secs_f64();
        let per_copy = self.limit * UTILISATION;
        let (stable, panic) = (
            history.concurrency(window),
            history.concurrency(window * PANIC_PART),
        );
        let spares = f64::from(last.spares);
        let ready = f64::from(last.ready.max(1));
        let (calm, urgent) = (stable / per_copy, panic / per_copy);
        if urgent.ceil() >= PANIC_FACTOR * ready {
            let desired = limits.clamp(urgent - spares).max(history.desired);
            let reason = format!(
                "{panic:.1} in flight over {:.0} s want {desired} copies of {per_copy:.1} each, at least twice the {ready} that are ready",
                window * PANIC_PART
            );
            let desired = limits.clamp(f64::from(desired));
            return Advice { desired, reason };
        }
        let recently = history.grew_at.is_some_and(|at| now < at + self.window);
        // Knative's formula alone would go to and fro where its result is near a whole number.
        let near = calm > STAYS * (f64::from(history.desired) - 1.0);
        let slowest = if recently || near {
            f64::from(history.desired)
        } else {
            (f64::from(history.desired) / 2.0).floor()
        };
        let desired = limits.clamp((calm - spares).max(slowest));
        let reason = format!(
            "{stable:.1} in flight over {} want {} copies of {per_copy:.1} each",
            in_words(self.window),
            calm.ceil()
        );
        Advice { desired, reason }
    }
}
