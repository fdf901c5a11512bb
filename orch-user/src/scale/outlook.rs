//! What the open window would decide if it ended now: for whoever looks, not for the policy.

use crate::{
    config::ScaleConfig,
    scale::{Policy, Scaler, step::size_for},
};

/// The decision that is coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Copies, if the window ended now.
    pub would: u16,
    /// With so many requests in the window it would be one copy more; `None` at the most copies.
    pub next_step: Option<u64>,
}

/// The outlook of a service: of its open window, or where the policy has no windows, what is wanted.
pub fn of(scaler: &Scaler, rules: &ScaleConfig) -> Outlook {
    if rules.policy == Policy::Step {
        return of_window(scaler.count(rules), rules);
    }
    Outlook {
        would: scaler.desired(rules),
        next_step: None,
    }
}

/// The outlook of a window that has counted so many requests.
pub fn of_window(count: u64, rules: &ScaleConfig) -> Outlook {
    let would = size_for(count, rules);
    let step = u64::from(would).saturating_mul(rules.requests_per_replica.max(1));
    Outlook {
        would,
        next_step: (would < rules.max).then_some(step),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::SpareKind;

    #[test]
    fn one_request_before_the_step_it_stays() {
        let rules = ScaleConfig {
            interval: Duration::from_mins(2),
            requests_per_replica: 20,
            min: 2,
            max: 4,
            idle: Duration::ZERO,
            spares: 0,
            spare_kind: SpareKind::Running,
            policy: Policy::Step,
            max_surge: 0,
        };
        for (count, would, next_step) in [
            (0, 2, Some(40)),
            (39, 2, Some(40)),
            (40, 3, Some(60)),
            (60, 4, None),
            (999, 4, None),
        ] {
            let outlook = Outlook { would, next_step };
            assert_eq!(of_window(count, &rules), outlook, "{count}");
        }
    }
}
