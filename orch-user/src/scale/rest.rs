//! When a service has had nothing to do for long enough to have no copies. Pure.

use std::time::Duration;

use crate::{config::ScaleConfig, scale::in_words, state::Moment};

/// What is remembered of a service's last use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    used_at: Moment,
    traffic: u64,
}

impl Rest {
    /// A service that is in use now.
    pub const fn new(now: Moment) -> Self {
        Self {
            used_at: now,
            traffic: 0,
        }
    }

    /// Somebody uses it, or wants to.
    pub fn touch(&mut self, now: Moment) {
        self.used_at = now;
    }

    /// Takes in how many requests and connections there have been in all, and whether any is open,
    /// waits or is being prepared for. Says why the service needs no copy, once it needs none.
    pub fn observe(
        &mut self,
        (traffic, busy): (u64, bool),
        now: Moment,
        rules: &ScaleConfig,
    ) -> Option<String> {
        if busy || traffic != self.traffic {
            self.traffic = traffic;
            self.used_at = now;
        }
        let sleeps = rules.min == 0 && rules.idle > Duration::ZERO;
        (sleeps && now >= self.used_at + rules.idle).then(|| {
            let idle = in_words(rules.idle);
            format!("no request for {idle} and no open connection: the next one starts a copy")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SpareKind;

    const RULES: ScaleConfig = ScaleConfig {
        interval: Duration::from_mins(2),
        requests_per_replica: 20,
        min: 0,
        max: 10,
        spares: 0,
        spare_kind: SpareKind::Running,
        idle: Duration::from_mins(1),
        policy: crate::scale::Policy::Step,
        max_surge: 0,
    };

    const fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_rests_after_so_long_without_a_request_or_an_open_connection() {
        let mut rest = Rest::new(at(0));
        assert_eq!(rest.observe((0, false), at(59), &RULES), None);
        assert_eq!(rest.observe((1, false), at(59), &RULES), None);
        assert_eq!(rest.observe((1, true), at(100), &RULES), None);
        assert_eq!(rest.observe((1, true), at(200), &RULES), None, "still open");
        assert_eq!(rest.observe((1, false), at(259), &RULES), None);
        let why = rest.observe((1, false), at(260), &RULES).unwrap();
        assert!(why.starts_with("no request for 1m"), "{why}");
    }

    #[test]
    fn it_never_rests_unless_the_file_says_so() {
        let never = [
            ScaleConfig { min: 1, ..RULES },
            ScaleConfig {
                idle: Duration::ZERO,
                ..RULES
            },
        ];
        for rules in never {
            assert_eq!(Rest::new(at(0)).observe((0, false), at(9999), &rules), None);
        }
    }
}
