//! How long did replacements take, of all since the controller started?

/// Upper bounds of the buckets, in seconds.
pub(super) const BOUNDS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// Durations by size; nothing is ever taken back, as a histogram of Prometheus must be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Durations {
    /// For each bound, how many took no longer.
    pub(super) up_to: [u64; BOUNDS.len()],
    /// How many there were.
    pub count: u64,
    /// What they took together, in seconds.
    pub sum_s: f64,
}

impl Durations {
    /// One more, in seconds.
    pub fn add(&mut self, took_s: f64) {
        for (count, bound) in self.up_to.iter_mut().zip(BOUNDS) {
            *count += u64::from(took_s <= bound);
        }
        self.count += 1;
        self.sum_s += took_s;
    }
}

impl FromIterator<f64> for Durations {
    fn from_iter<I: IntoIterator<Item = f64>>(took_s: I) -> Self {
        let mut all = Self::default();
        took_s.into_iter().for_each(|one| all.add(one));
        all
    }
}
