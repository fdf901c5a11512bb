//! A slot that is new in the ring takes its share of the turns little by little (`slow_start`): a copy
//! whose caches are cold is not to get as much as the others at once.

use std::{collections::BTreeMap, time::Duration};

use crate::state::Moment;

/// Parts of a whole share.
pub const WHOLE: u8 = 10;

/// The slots of a service that are new in its ring.
#[derive(Clone, Debug, Default)]
pub struct Warmup {
    since: BTreeMap<u16, Moment>,
}

impl Warmup {
    /// The ring changes. Who comes beside others is new; where nobody was, all begin alike.
    pub fn change(&mut self, before: &[u16], after: &[u16], now: Moment) {
        self.since.retain(|slot, _| after.contains(slot));
        let stays = |slot: &u16| before.contains(slot);
        if after.iter().any(stays) {
            let new = after.iter().filter(|slot| !stays(slot));
            self.since.extend(new.map(|slot| (*slot, now)));
        }
    }

    /// Shares of the slots that have not their whole one yet, in parts of [`WHOLE`]: from one on, evenly
    /// over `slow_start`.
    pub fn shares(&mut self, slow_start: Duration, now: Moment) -> BTreeMap<u16, u8> {
        let age = |since: Moment| now.saturating_sub(since);
        self.since.retain(|_, since| age(*since) < slow_start);
        let share = |since: Moment| {
            let gone = age(since).as_secs_f64() / slow_start.as_secs_f64();
            1 + (gone * f64::from(WHOLE - 1)) as u8
        };
        let slots = self.since.iter();
        slots.map(|(slot, since)| (*slot, share(*since))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn shares(warmup: &mut Warmup, at: u64) -> Vec<(u16, u8)> {
        let shares = warmup.shares(TEN, Moment::from_secs(at));
        shares.into_iter().collect()
    }

    #[test]
    fn a_new_slot_comes_to_its_share_little_by_little() {
        let mut warmup = Warmup::default();
        warmup.change(&[0, 1], &[0, 1, 2], Moment::from_secs(100));
        let seen = [100, 105, 109, 110].map(|at| shares(&mut warmup, at));
        assert_eq!(seen, [vec![(2, 1)], vec![(2, 5)], vec![(2, 9)], vec![]]);
    }

    #[test]
    fn where_nobody_was_all_begin_alike() {
        let mut warmup = Warmup::default();
        warmup.change(&[], &[0, 1], Moment::from_secs(100));
        warmup.change(&[0], &[1], Moment::from_secs(100));
        assert_eq!(shares(&mut warmup, 100), []);
    }

    #[test]
    fn who_leaves_and_comes_back_is_new_again() {
        let mut warmup = Warmup::default();
        warmup.change(&[0], &[0, 1], Moment::from_secs(100));
        warmup.change(&[0, 1], &[0], Moment::from_secs(104));
        assert_eq!(shares(&mut warmup, 104), []);
        warmup.change(&[0], &[0, 1], Moment::from_secs(106));
        assert_eq!(shares(&mut warmup, 111), [(1, 5)]);
    }

    #[test]
    fn without_slow_start_nobody_is_held_back() {
        let mut warmup = Warmup::default();
        warmup.change(&[0], &[0, 1], Moment::from_secs(100));
        assert!(
            warmup
                .shares(Duration::ZERO, Moment::from_secs(100))
                .is_empty()
        );
    }
}
