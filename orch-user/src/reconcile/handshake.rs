//! Backends whose clients' SYNs stay without an answer while those of others do not, whatever a probe from this
//! host says: their answers may leave by another interface, or a rule of their own drop what is from outside.
//! Pure.

use std::collections::BTreeMap;

use orch_common::{counter::Failure, slot::SlotKey};

use crate::{dataplane::SlotReading, state::Moment};

/// Connections are counted for so long at a time.
const WINDOW: Moment = Moment::from_secs(10);
/// So often in a row, and it is no chance.
const LIMIT: u32 = 3;
/// Fewer connections in a window say nothing.
const SOME: u64 = 5;

/// What the slots have been seen to do.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    since: Moment,
    slots: BTreeMap<SlotKey, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    generation: u32,
    connections: u64,
    timeouts: u64,
    /// Windows in a row in which most were lost.
    bad: u32,
}

/// What came to a slot in a window.
struct Window {
    came: u64,
    lost: u64,
}

impl Window {
    const fn is_bad(&self) -> bool {
        self.lost >= SOME && 2 * self.lost >= self.came
    }

    const fn is_well(&self) -> bool {
        self.came >= SOME && 10 * self.lost <= self.came
    }
}

impl Handshakes {
    /// At the end of a window: the slots most of whose connections were lost, now for long, while others
    /// of their service lost hardly any.
    pub(super) fn look(
        &mut self,
        readings: &BTreeMap<SlotKey, SlotReading>,
        now: Moment,
    ) -> Vec<SlotKey> {
        if now < self.since + WINDOW {
            return Vec::new();
        }
        self.since = now;
        let windows: BTreeMap<SlotKey, Window> = readings
            .iter()
            .filter_map(|(key, reading)| Some((*key, self.window(reading)?)))
            .collect();
        self.slots.retain(|key, _| readings.contains_key(key));
        let mut long = Vec::new();
        for (key, seen) in &mut self.slots {
            let mut peers = windows
                .iter()
                .filter(|(other, _)| other.service == key.service);
            let bad = peers.any(|(_, window)| window.is_well())
                && windows.get(key).is_some_and(Window::is_bad);
            seen.bad = if bad { seen.bad + 1 } else { 0 };
            if seen.bad >= LIMIT {
                long.push(*key);
            }
        }
        long
    }

    /// What came since the last look; nothing if that was another backend.
    fn window(&mut self, reading: &SlotReading) -> Option<Window> {
        let timeouts = reading.counters.failures.get(Failure::Timeout as usize);
        let timeouts = timeouts.copied().unwrap_or_default();
        let seen = self.slots.entry(reading.key).or_default();
        let window = Window {
            came: reading.connections.saturating_sub(seen.connections),
            lost: timeouts.saturating_sub(seen.timeouts),
        };
        let same = seen.generation == reading.generation;
        *seen = Seen {
            generation: reading.generation,
            connections: reading.connections,
            timeouts,
            bad: if same { seen.bad } else { 0 },
        };
        same.then_some(window)
    }
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

    /// What is found after each of these windows: what comes to slots 0 and 1, and what of it is lost.
    fn found(windows: &[[(u64, u64); 2]]) -> Vec<usize> {
        let mut handshakes = Handshakes::default();
        let mut sums = [(100, 50); 2];
        let mut look = |sums: [(u64, u64); 2], second| {
            let readings = [0, 1].map(|slot: u16| {
                let (came, lost) = sums[usize::from(slot)];
                (key(slot), reading(slot, 1, came, lost))
            });
            handshakes.look(&readings.into(), Moment::from_secs(second))
        };
        assert!(look(sums, 10).is_empty());
        let mut found = Vec::new();
        for (at, window) in windows.iter().enumerate() {
            for (sum, (came, lost)) in sums.iter_mut().zip(window) {
                sum.0 += came;
                sum.1 += lost;
            }
            let second = 20 + 10 * at as u64;
            assert!(look(sums, second - 1).is_empty(), "not yet");
            let slots = look(sums, second);
            assert!(slots.iter().all(|slot| *slot == key(1)), "{slots:?}");
            if !slots.is_empty() {
                found.push(at);
            }
        }
        found
    }

    #[test]
    fn one_that_is_deaf_for_three_windows_is_found() {
        assert_eq!(found(&[[(50, 0), (20, 15)]; 4]), [2, 3]);
        assert_eq!(found(&[[(50, 5), (20, 10)]; 3]), [2]);
    }

    #[test]
    fn what_happens_to_all_or_now_and_then_is_nobody_s_fault() {
        assert_eq!(found(&[[(50, 30), (50, 30)]; 5]), [0; 0], "all of them");
        assert_eq!(
            found(&[[(4, 0), (50, 50)]; 5]),
            [0; 0],
            "nobody to compare with"
        );
        assert_eq!(found(&[[(50, 0), (4, 4)]; 5]), [0; 0], "too few");
        assert_eq!(found(&[[(50, 0), (50, 24)]; 5]), [0; 0], "not even half");
        let (bad, good) = ([(50, 0), (50, 50)], [(50, 0), (50, 0)]);
        assert_eq!(found(&[bad, bad, good, bad, bad]), [0; 0]);
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
            let found = handshakes.look(&readings.into(), Moment::from_secs(10 * at));
            assert!(found.is_empty(), "{at}");
        }
    }
}
