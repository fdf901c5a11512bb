//! What a copy can do, and how long it takes to come: learnt from the counts of its slot.
//!
//! **Service rate.** Where requests wait, a copy answers as fast as it can. Intervals between two
//! readings in which at least `n` requests were in flight at both ends are put together by
//! `log2(n)`; the fastest of these classes is the rate. It is the most that a copy can do
//! ("saturated") once a class is slower than its requests would be if none of them waited:
//! by Little's law `n` requests that take `S` seconds each are answered at `n / S`. Until then,
//! and until a class has been seen for long enough, the rate is what one request after the other
//! would give, `1 / S`, with `S` from requests that had a copy for themselves.

use std::{collections::BTreeMap, time::Duration};

use crate::state::Moment;

/// Classes of requests in flight: 1, 2.., 4.., and so on.
const CLASSES: usize = 12;
/// Seconds of busy time that the learnt rate remembers, about.
const MEMORY_S: f64 = 60.0;
/// Samples of starts and of single requests that are remembered, about.
const SAMPLES: f64 = 8.0;
/// A class counts once so many responses were seen in it.
const ENOUGH: f64 = 3.0;
/// A class whose rate is below this part of what it would be without waiting is saturated.
const SATURATED: f64 = 0.7;

/// Where a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A copy is on its way.
    Starting,
    /// It is well.
    Ready,
    /// Anything else.
    Other,
}

/// What the kernel has counted for a slot.
#[derive(Clone, Copy, Debug)]
pub struct SlotCount {
    /// Number of the slot.
    pub slot: u16,
    /// Where it is.
    pub phase: Phase,
    /// Requests.
    pub requests: u64,
    /// Responses.
    pub responses: u64,
    /// Sum of response times.
    pub time: Duration,
    /// Requests that have begun and wait for a response.
    pub in_flight: u64,
}

/// What was learnt of a service's copies.
#[derive(Clone, Debug, Default)]
pub struct Learner {
    slots: BTreeMap<u16, Slot>,
    read_at: Moment,
    classes: [Class; CLASSES],
    alone: Mean,
    starts: Mean,
    in_flight: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    requests: u64,
    responses: u64,
    time: Duration,
    in_flight: u64,
    /// One request came to an idle copy and nothing came since.
    alone: bool,
    phase: Phase,
    since: Moment,
}

#[derive(Clone, Copy, Debug, Default)]
struct Class {
    seconds: f64,
    responses: f64,
}

/// A mean that forgets.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    fn add(&mut self, value: f64, weight: f64) {
        let keep = (1.0 - weight / SAMPLES).max(0.0);
        self.sum = self.sum * keep + value * weight;
        self.weight = self.weight * keep + weight;
    }

    fn get(self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

impl Learner {
    /// Takes in what the slots have counted.
    pub fn read(&mut self, now: Moment, counts: impl Iterator<Item = SlotCount>) {
        let before = std::mem::replace(&mut self.read_at, now);
        let seconds = now.saturating_sub(before).as_secs_f64();
        self.in_flight = 0;
        let mut slots = std::mem::take(&mut self.slots);
        let mut seen = BTreeMap::new();
        for count in counts {
            let slot = self.slot(slots.remove(&count.slot), count, seconds, (before, now));
            self.in_flight += slot.in_flight;
            seen.insert(count.slot, slot);
        }
        self.slots = seen;
    }

    fn slot(
        &mut self,
        before: Option<Slot>,
        count: SlotCount,
        seconds: f64,
        at: (Moment, Moment),
    ) -> Slot {
        let (earlier, now) = at;
        let SlotCount {
            requests,
            responses,
            time,
            phase,
            ..
        } = count;
        let mut slot = before
            .filter(|slot| slot.requests <= requests && slot.responses <= responses)
            .unwrap_or(Slot {
                requests,
                responses,
                time,
                in_flight: 0,
                alone: false,
                phase,
                since: earlier,
            });
        if slot.phase != phase {
            if slot.phase == Phase::Starting && phase == Phase::Ready {
                self.starts
                    .add(now.saturating_sub(slot.since).as_secs_f64(), 1.0);
            }
            // It came right after the reading before, which is where decisions are made.
            (slot.phase, slot.since) = (phase, earlier);
        }
        // Some of the others will never be answered, their client or their copy being gone.
        let in_flight = count.in_flight.min(requests.saturating_sub(responses));
        let came = requests - slot.requests;
        let answered = responses - slot.responses;
        let took = time.saturating_sub(slot.time).as_secs_f64();
        self.learn_alone(&mut slot, came, answered, took, in_flight);
        self.learn_rate(slot.in_flight.min(in_flight), answered, seconds);
        slot.requests = requests;
        slot.responses = responses;
        slot.time = time;
        slot.in_flight = in_flight;
        slot
    }

    /// A request that had its copy for itself tells how long one takes. Where many come and go
    /// between two readings, their mean does, as long as it is the shortest seen.
    fn learn_alone(&mut self, slot: &mut Slot, came: u64, answered: u64, took: f64, left: u64) {
        let was_idle = slot.in_flight == 0;
        let single = (was_idle && came == 1) || (slot.alone && came == 0);
        if single && answered == 1 && left == 0 {
            self.alone.add(took, 1.0);
        } else if answered >= 8 {
            let mean = took / answered as f64;
            if self.alone.get().is_none_or(|alone| mean < alone) {
                self.alone = Mean::default();
                self.alone.add(mean, 1.0);
            }
        }
        slot.alone = single && left == 1;
    }

    fn learn_rate(&mut self, least: u64, answered: u64, seconds: f64) {
        let Some(class) = least.checked_ilog2() else {
            return;
        };
        let class = (class as usize).min(CLASSES - 1);
        if let Some(class) = self.classes.get_mut(class) {
            let keep = (1.0 - seconds / MEMORY_S).max(0.0);
            class.seconds = class.seconds * keep + seconds;
            class.responses = class.responses * keep + answered as f64;
        }
    }

    /// Requests in flight, of those that count.
    pub const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Responses per second of a busy copy, and whether no copy can do more.
    pub fn service_rate(&self) -> Option<(f64, bool)> {
        let alone = self.alone.get().filter(|alone| *alone > 0.0);
        let one_by_one = alone.map(|alone| 1.0 / alone);
        // A single request in flight at both ends of an interval may have been two with a pause.
        let classes = self.classes.iter().enumerate().skip(1);
        let seen = classes.filter(|(_, class)| class.responses >= ENOUGH);
        let rates = seen.map(|(log, class)| (log, class.responses / class.seconds));
        let mut most: Option<(f64, bool)> = None;
        for (log, rate) in rates {
            let unhindered = one_by_one.map(|rate| rate * f64::from(1_u32 << log));
            // Without a single request to compare with: twice as many that are no faster.
            let waits = match unhindered {
                Some(unhindered) => rate < SATURATED * unhindered,
                None => most.is_some_and(|(slower, _)| rate < 1.4 * slower),
            };
            let (before, saturated) = most.unwrap_or((0.0, false));
            most = Some((rate.max(before), saturated || waits));
        }
        match (most, one_by_one) {
            (Some((rate, saturated)), Some(alone)) if !saturated => Some((rate.max(alone), false)),
            (Some(most), _) => Some(most),
            (None, Some(alone)) => Some((alone, false)),
            (None, None) => None,
        }
    }

    /// Seconds that a request takes which does not wait.
    pub fn alone_s(&self) -> Option<f64> {
        self.alone.get()
    }

    /// Seconds from the order of a copy to its readiness.
    pub fn start_s(&self) -> Option<f64> {
        self.starts.get()
    }
}
