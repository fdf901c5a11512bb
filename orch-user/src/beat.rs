//! When does what is done regularly happen? Each timer that fires alone wakes the whole process;
//! timers of the same moment wake it once.

use std::time::Duration;

use tokio::time::Instant;

/// Between two beats.
pub const BEAT: Duration = Duration::from_millis(250);

/// Moments a [`BEAT`] apart, shared by all who count from the same beginning.
#[derive(Clone, Copy, Debug)]
pub struct Beats {
    begin: Instant,
}

impl Beats {
    /// The first is at `begin`.
    pub const fn from(begin: Instant) -> Self {
        Self { begin }
    }

    /// The first after this moment.
    pub fn after(self, moment: Instant) -> Instant {
        let passed = moment.saturating_duration_since(self.begin);
        let beats = passed.as_nanos() / BEAT.as_nanos() + 1;
        // Overflows after 34 years.
        self.begin + BEAT * u32::try_from(beats).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_comes_after_each_moment_within_250_ms() {
        let begin = Instant::now();
        let beats = Beats::from(begin);
        for (moment, beat) in [
            (0, 250),
            (1, 250),
            (249, 250),
            (250, 500),
            (99_999, 100_000),
        ] {
            let after = beats.after(begin + Duration::from_millis(moment));
            assert_eq!(after, begin + Duration::from_millis(beat), "{moment}");
        }
    }
}
