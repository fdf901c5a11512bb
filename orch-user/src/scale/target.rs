//! The policy `target`: target tracking, as the Kubernetes Horizontal Pod Autoscaler does it
//! (kubernetes.io, "Horizontal Pod Autoscaling": algorithm details, and configurable scaling
//! behaviour with its default values).
//!
//! Every `sync`: `desired = ceil(ready * utilisation / target)`, where the utilisation is requests
//! per second over what the ready copies can answer per second, as learnt. Within `tolerance` of the
//! target nothing changes. Up: at most to the double or by 4, whichever is more. Down: to the most
//! that was wanted within `stabilisation`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Advice, History, Limits};
use crate::state::Moment;

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// How busy copies should be, above 0.0, up to 1.0.
    pub target: f64,
    /// A ratio of utilisation to target so near to 1 changes nothing.
    pub tolerance: f64,
    /// Between two decisions, and the span of the rate.
    pub sync: Duration,
    /// So long a need must be gone before copies go.
    pub stabilisation: Duration,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            target: 0.7,
            tolerance: 0.1,
            sync: Duration::from_secs(15),
            stabilisation: Duration::from_mins(5),
        }
    }
}

impl Target {
    /// Copies by the formula alone, and the utilisation. `None` while nothing is known.
    pub(super) fn need(&self, history: &History, limits: Limits) -> Option<(u16, f64)> {
        let last = history.last();
        if last.service_rate <= 0.0 {
            return None;
        }
        let ready = f64::from((last.ready + last.spares).max(1));
        let rate = history.request_rate(self.sync.as_secs_f64());
        let utilisation = rate / (ready * last.service_rate);
        let ratio = utilisation / self.target;
        if (ratio - 1.0).abs() <= self.tolerance {
            return Some((history.desired, utilisation));
        }
        let fastest = (ready * 2.0).max(ready + 4.0);
        let wanted = (ready * ratio).min(fastest) - f64::from(last.spares);
        Some((limits.clamp(wanted), utilisation))
    }

    pub(super) fn decide(&self, history: &History, limits: Limits, now: Moment) -> Advice {
        let Some((need, utilisation)) = self.need(history, limits) else {
            return Advice {
                desired: limits.clamp(f64::from(history.desired)),
                reason: "nothing is known of what a copy can do".to_owned(),
            };
        };
        let hold = self.stabilisation.as_secs_f64();
        let desired = need.max(history.desired.min(history.most_wanted(now, hold)));
        let desired = limits.clamp(f64::from(desired));
        let reason = format!(
            "copies are {:.0}% busy, the target is {:.0}%: {} of them wanted, most within {} was {desired}",
            utilisation * 100.0,
            self.target * 100.0,
            need,
            super::in_words(self.stabilisation),
        );
        Advice { desired, reason }
    }
}
