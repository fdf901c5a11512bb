//! Random numbers that come again with the same seed.

use std::{
    env,
    ops::RangeInclusive,
    time::{SystemTime, UNIX_EPOCH},
};

/// A generator. Its seed is printed, so a failure shows it; `ORCH_SEED` sets it.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// With the seed of the environment, or a new one.
    pub fn new() -> Self {
        let given = env::var("ORCH_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let time = SystemTime::now().duration_since(UNIX_EPOCH);
            time.map_or(1, |time| time.as_nanos() as u64)
        });
        println!("repeat with ORCH_SEED={seed}");
        Self(seed)
    }

    /// A number in the range (splitmix64).
    pub fn roll(&mut self, range: RangeInclusive<usize>) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let size = (range.end() - range.start() + 1) as u64;
        range.start() + (mixed % size) as usize
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}
