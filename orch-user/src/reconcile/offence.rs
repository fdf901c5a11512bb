//! A backend whose traffic fails while its probe is good: how often is that believed? A probe asks for
//! one path, and clients for others. Pure.

use orch_common::{
    counter::{Failure, SlotCounters},
    event::EventKind,
};

use crate::state::Moment;

/// So often within [`WITHIN`], and the traffic is believed.
const LIMIT: usize = 3;
/// A false alarm is forgotten after it, as the kernel does.
const WITHIN: Moment = Moment::from_mins(1);
/// Requests that were ended without a response, since the last time, that show that a backend which says
/// nothing is not only slow.
const CUT: u64 = 8;

/// What is held against the backend of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offences {
    generation: u32,
    cut: u64,
    at: Vec<Moment>,
}

impl Offences {
    /// The backend of this generation was passed by for such a reason, and its probe is good. Says
    /// whether that has come to the limit.
    pub(super) fn add(
        &mut self,
        generation: u32,
        kind: EventKind,
        counters: &SlotCounters,
        now: Moment,
    ) -> bool {
        let cut = cut(counters);
        if self.generation != generation {
            *self = Self {
                generation,
                cut,
                at: Vec::new(),
            };
        }
        let proven = match kind {
            EventKind::Failing => true,
            EventKind::Silent => cut.saturating_sub(self.cut) >= CUT,
            _ => false,
        };
        self.cut = cut;
        self.at.retain(|at| now.saturating_sub(*at) <= WITHIN);
        if proven {
            self.at.push(now);
        }
        proven && self.at.len() >= LIMIT
    }
}

/// Requests whose connection the backends of a slot have ended instead of answering.
fn cut(counters: &SlotCounters) -> u64 {
    [Failure::Reset, Failure::Closed]
        .iter()
        .filter_map(|kind| counters.failures.get(*kind as usize))
        .sum()
}

/// Whether one more of `desired` copies, of which so many serve, may be taken out for what its traffic
/// says: never the last one, and never more than a third of them at a time, or one.
pub(super) const fn may_go(desired: u16, serving: u16) -> bool {
    let third = if desired < 6 { 1 } else { desired / 3 };
    serving > 1 && desired.saturating_sub(serving) < third
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_secs(seconds)
    }

    fn with(resets: u64) -> SlotCounters {
        let mut counters = SlotCounters {
            requests: 0,
            excluded: 0,
            responses: [0; 6],
            failures: [0; Failure::COUNT],
        };
        counters.failures[Failure::Reset as usize] = resets;
        counters
    }

    #[test]
    fn errors_count_from_the_first_time() {
        let mut offences = Offences::default();
        let mut add =
            |generation, now| offences.add(generation, EventKind::Failing, &with(0), at(now));
        assert!(!add(1, 100));
        assert!(!add(1, 110));
        assert!(add(1, 120));
        assert!(!add(2, 121), "another backend");
        assert!(!add(2, 150));
        assert!(!add(2, 182), "a minute later");
        assert!(add(2, 190));
    }

    #[test]
    fn silence_counts_where_connections_were_ended() {
        let mut offences = Offences::default();
        let mut add = |resets, now| offences.add(1, EventKind::Silent, &with(resets), at(now));
        assert!(!add(500, 1), "who knows whose they were");
        assert!(!add(508, 2));
        assert!(!add(515, 3), "too few");
        assert!(!add(523, 4));
        assert!(add(540, 5));
    }

    #[test]
    fn a_third_may_go_and_never_the_last() {
        assert!(!may_go(1, 1));
        assert!(may_go(2, 2) && !may_go(2, 1));
        assert!(may_go(3, 3) && !may_go(3, 2));
        assert!(may_go(6, 5) && !may_go(6, 4));
    }
}
