//! Histograms of response times: four buckets per octave, so a quantile is right within 12 %.

/// Buckets of a histogram. The last one also takes everything longer.
pub const BUCKETS: usize = 104;

/// Response times of a slot. Bucket bounds: [`upper_bound_ns`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Histogram {
    /// Sum of all times, in nanoseconds.
    pub sum_ns: u64,
    /// Responses per bucket.
    pub buckets: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            sum_ns: 0,
            buckets: [0; BUCKETS],
        }
    }
}

/// The bucket for a response that took so many nanoseconds.
#[must_use]
#[inline(always)]
pub const fn bucket(ns: u64) -> usize {
    let unit = ns >> 10;
    if unit < 4 {
        return unit as usize;
    }
    let octave = unit.ilog2();
    let quarter = (unit >> (octave - 2)) & 3;
    let index = (octave as usize - 1) * 4 + quarter as usize;
    if index < BUCKETS { index } else { BUCKETS - 1 }
}

/// The first time, in nanoseconds, that no longer belongs to the bucket.
#[must_use]
pub const fn upper_bound_ns(bucket: usize) -> u64 {
    if bucket < 4 {
        return (bucket as u64 + 1) << 10;
    }
    let octave = (bucket / 4 + 1) as u32;
    let quarter = (bucket % 4) as u64;
    ((4 + quarter + 1) << (octave - 2)) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_buckets_agree() {
        for index in 0..BUCKETS - 1 {
            let bound = upper_bound_ns(index);
            assert_eq!(bucket(bound - 1), index, "below {bound}");
            assert_eq!(bucket(bound), index + 1, "at {bound}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn buckets_are_narrow() {
        for index in 8..BUCKETS - 1 {
            let width = upper_bound_ns(index) as f64 / upper_bound_ns(index - 1) as f64;
            assert!(width <= 1.26, "bucket {index}: {width}");
        }
        assert!(
            upper_bound_ns(BUCKETS - 2) > 30_000_000_000,
            "covers half a minute"
        );
    }
}
