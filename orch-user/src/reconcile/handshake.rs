//! Backends whose clients' SYNs stay without an answer while those of others do not, whatever a probe from this
//! host says: their answers may leave by another interface, or a rule of their own drop what is from outside.
//! Pure.

use std::collections::BTreeMap;

use orch_common::{counter::Failure, slot::SlotKey};

use crate::{dataplane::SlotReading, state::Moment};

/// Connections are counted for so long at a time, where so many come that it shows.
const WINDOW: Moment = Moment::from_secs(2);
/// The same where few come.
const LONG_WINDOW: Moment = Moment::from_secs(10);
/// So often in a row, and it is no chance.
const LIMIT: u32 = 3;
/// Fewer connections in a window say nothing.
const SOME: u64 = 5;

/// What the slots have been seen to do.
#[derive(Debug, Default)]
pub(super) struct Handshakes(BTreeMap<SlotKey, Seen>);

/// A slot at the beginning of its window.
#[derive(Debug, Default)]
struct Seen {
    generation: u32,
    connections: u64,
    timeouts: u64,
    since: Moment,
    /// Windows in a row in which most were lost.
    bad: u32,
    /// When hardly any were lost in a window, last.
    well_at: Option<Moment>,
}

/// What came to a slot in a window, or in one that is not over.
#[derive(Clone, Copy)]
struct Window {
    age: Moment,
    came: u64,
    lost: u64,
}

impl Window {
    const fn is_bad(self) -> bool {
        self.lost >= SOME && 2 * self.lost >= self.came
    }

    const fn is_well(self) -> bool {
        self.came >= SOME && 10 * self.lost <= self.came
    }

    /// Whether it has lasted long enough for what came.
    fn is_over(self) -> bool {
        self.age >= LONG_WINDOW || self.age >= WINDOW && (self.is_bad() || self.came >= SOME)
    }
}

impl Seen {
    fn new(reading: &SlotReading, now: Moment) -> Self {
        Self {
            generation: reading.generation,
            connections: reading.connections,
            timeouts: timeouts(reading),
            since: now,
            ..Self::default()
        }
    }

    fn window(&self, reading: &SlotReading, now: Moment) -> Window {
        Window {
            age: now.saturating_sub(self.since),
            came: reading.connections.saturating_sub(self.connections),
            lost: timeouts(reading).saturating_sub(self.timeouts),
        }
    }

    /// Begins the next window if this one is over.
    fn close(&mut self, reading: &SlotReading, compared: bool, now: Moment) {
        let window = self.window(reading, now);
        if !window.is_over() {
            return;
        }
        *self = Self {
            bad: if window.is_bad() && compared {
                self.bad + 1
            } else {
                0
            },
            well_at: window.is_well().then_some(now).or(self.well_at),
            ..Self::new(reading, now)
        };
    }

    fn has_been_well(&self, now: Moment) -> bool {
        self.well_at
            .is_some_and(|at| now.saturating_sub(at) <= LONG_WINDOW)
    }
}

impl Handshakes {
    /// The slots most of whose connections were lost, now for three windows, while another of their service
    /// lost hardly any.
    pub(super) fn look(
        &mut self,
        readings: &BTreeMap<SlotKey, SlotReading>,
        now: Moment,
    ) -> Vec<SlotKey> {
        self.0.retain(|key, seen| {
            let reading = readings.get(key);
            reading.is_some_and(|reading| reading.generation == seen.generation)
        });
        let well = self.well(readings, now);
        let mut long = Vec::new();
        for (key, reading) in readings {
            let seen = self
                .0
                .entry(*key)
                .or_insert_with(|| Seen::new(reading, now));
            let mut peers = well.iter().filter(|other| *other != key);
            let compared = peers.any(|other| other.service == key.service);
            seen.close(reading, compared, now);
            if seen.bad >= LIMIT && seen.since == now {
                long.push(*key);
            }
        }
        long
    }

    /// Slots that lose hardly any, in their window or in one just before.
    fn well(&self, readings: &BTreeMap<SlotKey, SlotReading>, now: Moment) -> Vec<SlotKey> {
        let is_well = |(key, seen): &(&SlotKey, &Seen)| {
            let window = readings.get(key).map(|reading| seen.window(reading, now));
            window.is_some_and(|window| {
                window.is_well() || window.came < SOME && seen.has_been_well(now)
            })
        };
        self.0.iter().filter(is_well).map(|(key, _)| *key).collect()
    }
}

fn timeouts(reading: &SlotReading) -> u64 {
    let timeouts = reading.counters.failures.get(Failure::Timeout as usize);
    timeouts.copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use orch_common::{
        counter::{Bytes, SlotCounters},
        slot::SlotState,
    };

    use super::*;

    const fn key(slot: u16) -> SlotKey {
        SlotKey { service: 0, slot }
    }

    fn reading(slot: u16, generation: u32, connections: u64, timeouts: u64) -> SlotReading {
        let mut counters = SlotCounters {
            requests: 0,
            excluded: 0,
            responses: [0; 6],
            failures: [0; Failure::COUNT],
        };
        counters.failures[Failure::Timeout as usize] = timeouts;
        SlotReading {
            key: key(slot),
            port: 8000 + slot,
            address: None,
            state: SlotState::Ready,
            generation,
            live: 0,
            connections,
            passed_by: None,
            counters,
            in_flight: 0,
            bytes: Bytes::default(),
        }
    }

    /// What is found after each of these windows, so many seconds long: what comes to slots 0 and 1 in
    /// each of the seconds, and what of it is lost.
    fn found(seconds: u64, windows: &[[(u64, u64); 2]]) -> Vec<usize> {
        let mut handshakes = Handshakes::default();
        let mut sums = [(100, 50); 2];
        let mut second = 0;
        let mut look = |sums: [(u64, u64); 2], second| {
            let readings = [0, 1].map(|slot: u16| {
                let (came, lost) = sums[usize::from(slot)];
                (key(slot), reading(slot, 1, came, lost))
            });
            handshakes.look(&readings.into(), Moment::from_secs(second))
        };
        assert!(look(sums, 0).is_empty());
        let mut found = Vec::new();
        for (at, window) in windows.iter().enumerate() {
            for last in (0..seconds).rev() {
                second += 1;
                for (sum, (came, lost)) in sums.iter_mut().zip(window) {
                    sum.0 += came;
                    sum.1 += lost;
                }
                let slots = look(sums, second);
                assert!(slots.iter().all(|slot| *slot == key(1)), "{slots:?}");
                assert!(last == 0 || slots.is_empty(), "window {at} is not over");
                if !slots.is_empty() {
                    found.push(at);
                }
            }
        }
        found
    }

    #[test]
    fn one_that_is_deaf_for_three_windows_is_found() {
        assert_eq!(found(2, &[[(50, 0), (20, 15)]; 4]), [2, 3]);
        assert_eq!(found(2, &[[(50, 5), (20, 10)]; 3]), [2]);
        assert_eq!(found(5, &[[(9, 0), (1, 1)]; 3]), [2], "with few clients");
    }

    #[test]
    fn what_happens_to_all_or_now_and_then_is_nobody_s_fault() {
        let none = [0; 0];
        assert_eq!(found(2, &[[(50, 30), (50, 30)]; 5]), none, "all of them");
        let alone = [(0, 0), (50, 50)];
        assert_eq!(found(2, &[alone; 15]), none, "nobody to compare with");
        let few = [(50, 0), (4, 2)];
        assert_eq!(found(1, &[few, [(50, 0); 2], few, [(50, 0); 2]]), none);
        assert_eq!(found(2, &[[(50, 0), (50, 24)]; 5]), none, "not even half");
        let (bad, good) = ([(50, 0), (50, 50)], [(50, 0), (50, 0)]);
        assert_eq!(found(2, &[bad, bad, good, bad, bad]), none);
    }

    /// One that hears again begins anew, and so does a peer that was well long ago say nothing.
    #[test]
    fn a_peer_that_nobody_asks_any_more_says_nothing() {
        let mut windows = vec![[(50, 0), (50, 0)]];
        windows.extend([[(0, 0), (50, 0)]; 6]);
        windows.extend([[(0, 0), (50, 50)]; 9]);
        assert_eq!(found(2, &windows), [0; 0]);
    }

    #[test]
    fn another_backend_begins_anew() {
        let mut handshakes = Handshakes::default();
        for (at, generation) in [1, 1, 1, 2, 2, 2].into_iter().enumerate() {
            let at = at as u64 + 1;
            let readings = [
                (key(0), reading(0, 1, 50 * at, 0)),
                (key(1), reading(1, generation, 50 * at, 50 * at)),
            ];
            let found = handshakes.look(&readings.into(), Moment::from_secs(2 * at));
            assert!(found.is_empty(), "{at}");
        }
    }
}
