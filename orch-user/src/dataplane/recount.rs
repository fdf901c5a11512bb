//! Flows that a full table has forgotten while they were open: found by counting, in a sweep, those that
//! are there. Connections come and go meanwhile, so that only what is certain is corrected; once it is
//! quiet, that is all.

use aya::maps::{Array, HashMap, MapData, MapError};
use orch_common::{
    command::{SlotCommand, Verb},
    flow::Census,
    layout::map,
    pulse::Pulse,
    slot::{Slot, SlotKey},
};

use super::{Dataplane, DataplaneError, slots::bare, tables::Tables};

/// A table that is so full, in parts of its size, may have been full.
const CROWDED: u64 = 2;

/// Whether and how flows are counted anew.
pub(super) struct Recount {
    census: Array<MapData, Census>,
    epoch: Array<MapData, u32>,
    /// Flows that the table has room for.
    capacity: u64,
    /// Since the table was crowded, not all counts have been seen to be right.
    doubtful: bool,
}

/// How many have begun, ever, and how many of those are counted as open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    begun: u64,
    open: u64,
}

/// The counts of a slot.
pub(super) struct Counts {
    key: SlotKey,
    generation: u32,
    connections: Count,
    requests: Count,
}

/// How many are counted as open too much (or, below zero, too little) for certain, and whether that is
/// all there can be. `present` are those that were there, at one moment or other between the counts.
fn forgotten(before: Count, present: u32, after: Count) -> (i64, bool) {
    let signed = |count: Count| count.open.cast_signed();
    let come = after.begun.wrapping_sub(before.begun).cast_signed();
    let there = i64::from(present);
    let least = signed(after) - come - there;
    let most = signed(before) + come - there;
    let certain = if least > 0 { least } else { most.min(0) };
    (certain, least == most)
}

fn amount(number: i64) -> i32 {
    let limits = (i64::from(i32::MIN), i64::from(i32::MAX));
    number.clamp(limits.0, limits.1) as i32
}

impl Recount {
    pub(super) fn new(
        census: Array<MapData, Census>,
        epoch: Array<MapData, u32>,
        capacity: u32,
    ) -> Self {
        Self {
            census,
            epoch,
            capacity: capacity.into(),
            // An earlier controller may have seen what this one has not.
            doubtful: true,
        }
    }

    /// Flows of a slot that the last sweep has found.
    fn found(&self, key: SlotKey) -> Result<Census, DataplaneError> {
        let epoch = self.epoch.get(&0, 0);
        let epoch = epoch.map_err(DataplaneError::map(map::EPOCH))?;
        let census = self.census.get(&key.index(), 0);
        let census = census.map_err(DataplaneError::map(map::CENSUS))?;
        Ok(if census.sweep == epoch {
            census
        } else {
            Census::default()
        })
    }
}

/// The maps that have the counts.
struct Books<'a> {
    slots: &'a HashMap<MapData, SlotKey, Slot>,
    pulses: &'a Array<MapData, Pulse>,
    tables: &'a Tables,
}

impl Books<'_> {
    /// Counts before a sweep: what has begun is read before what is open, since the kernel programs count
    /// in this order, so that nothing is missing among what is open.
    fn before(&self, key: SlotKey) -> Result<Counts, MapError> {
        let connections = self.slots.get(&key, 0)?.connections;
        let requests = self.requests(key);
        let slot = self.slots.get(&key, 0)?;
        Ok(Counts {
            key,
            generation: slot.generation,
            connections: Count {
                begun: connections,
                open: slot.live.wrapping_sub(slot.local),
            },
            requests: Count {
                begun: requests,
                open: self.pulses.get(&key.index(), 0)?.in_flight[0],
            },
        })
    }

    /// Counts after a sweep: the other way round, so that nothing is too much.
    fn after(&self, key: SlotKey) -> Result<Counts, MapError> {
        let local = self.slots.get(&key, 0)?.local;
        let slot = self.slots.get(&key, 0)?;
        let waiting = self.pulses.get(&key.index(), 0)?.in_flight[0];
        Ok(Counts {
            key,
            generation: slot.generation,
            connections: Count {
                begun: self.slots.get(&key, 0)?.connections,
                open: slot.live.wrapping_sub(local),
            },
            requests: Count {
                begun: self.requests(key),
                open: waiting,
            },
        })
    }

    fn requests(&self, key: SlotKey) -> u64 {
        let counters = self.tables.counters(key);
        counters.requests + counters.excluded
    }
}

impl Dataplane {
    const fn books(&self) -> Books<'_> {
        Books {
            slots: &self.slots,
            pulses: &self.pulses,
            tables: &self.tables,
        }
    }

    /// Before a sweep: the counts of all slots, if there is a doubt about them.
    pub(super) fn begin_recount(&self) -> Vec<Counts> {
        if !self.recount.doubtful {
            return Vec::new();
        }
        let keys = self.tables.counted().into_iter();
        // A slot of which only counts are left has no flows.
        keys.filter_map(|key| self.books().before(key).ok())
            .collect()
    }

    /// After a sweep that left so many flows.
    pub(super) fn end_recount(
        &mut self,
        before: &[Counts],
        left: u64,
    ) -> Result<(), DataplaneError> {
        let mut sure = true;
        for old in before {
            let Ok(new) = self.books().after(old.key) else {
                continue;
            };
            if new.generation != old.generation {
                sure = false;
                continue;
            }
            let found = self.recount.found(old.key)?;
            let live = forgotten(old.connections, found.live, new.connections);
            let waiting = forgotten(old.requests, found.waiting, new.requests);
            sure &= live == (0, true) && waiting == (0, true);
            if (live.0, waiting.0) != (0, 0) {
                self.command(&SlotCommand {
                    generation: new.generation,
                    live: amount(live.0),
                    waiting: amount(waiting.0),
                    ..bare(Verb::Correct, old.key)
                })?;
            }
        }
        let crowded = left * CROWDED >= self.recount.capacity;
        self.recount.doubtful = crowded || self.recount.doubtful && !sure;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(begun: u64, open: u64) -> Count {
        Count { begun, open }
    }

    #[test]
    fn what_is_certain_is_corrected_and_no_more() {
        let rows = [
            ("all are there", count(9, 5), 5, count(9, 5), (0, true)),
            ("two are not", count(9, 5), 3, count(9, 5), (2, true)),
            (
                "one came and was seen",
                count(9, 5),
                6,
                count(10, 6),
                (0, false),
            ),
            (
                "one came and was not",
                count(9, 5),
                5,
                count(10, 6),
                (0, false),
            ),
            (
                "two closed, seen or not",
                count(9, 5),
                4,
                count(9, 3),
                (0, false),
            ),
            (
                "of ten that are not, one came",
                count(20, 15),
                5,
                count(21, 16),
                (10, false),
            ),
            (
                "of ten that are not, one closed",
                count(20, 15),
                5,
                count(20, 14),
                (9, false),
            ),
            (
                "too many were taken out",
                count(9, 2),
                5,
                count(9, 2),
                (-3, true),
            ),
            (
                "below zero",
                count(9, 0_u64.wrapping_sub(2)),
                0,
                count(9, 0_u64.wrapping_sub(2)),
                (-2, true),
            ),
            ("none", count(0, 0), 0, count(0, 0), (0, true)),
        ];
        for (what, before, present, after, expected) in rows {
            assert_eq!(forgotten(before, present, after), expected, "{what}");
        }
    }

    /// Whatever comes, ends, or is forgotten in the middle of a sweep: no flow that is there is taken out.
    #[test]
    fn no_flow_that_is_there_is_taken_out() {
        for lost_before in 0..3_u64 {
            for come in 0..3_u64 {
                for ended in 0..3_u64 {
                    for lost in 0..3_u64 {
                        let there = 9_u64;
                        let before = count(100, there + lost_before);
                        let after = count(100 + come, before.open + come - ended);
                        // Seen are all that stayed, and any of those that came or went.
                        let stayed = there - ended - lost;
                        for seen in stayed..=there + come {
                            let (less, _) = forgotten(before, seen as u32, after);
                            assert!(
                                less <= (lost_before + lost) as i64,
                                "{before:?} {seen} {after:?}"
                            );
                            assert!(less >= 0, "{before:?} {seen} {after:?}");
                        }
                    }
                }
            }
        }
    }
}
