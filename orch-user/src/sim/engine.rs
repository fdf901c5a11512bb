//! The simulator: copies with queues, a controller that reads their counts four times a second,
//! and clients that send no matter what. Times are whole nanoseconds since the start.
//!
//! It does what the real thing does: a connection is given to a copy, round robin over the ring,
//! when it comes, and waits there; copies start and drain side by side; the greatest slot goes
//! first, out of the ring at once, and is stopped at the first reading that finds it without a
//! request. Until then it may come back; a slot whose copy is being stopped has to wait for that.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use rand_pcg::Pcg64Mcg;

use super::{
    driver::Driver,
    outcome::{Outcome, Sample},
    world::World,
};
use crate::{
    beat::BEAT,
    scale::{Learner, Metrics, Phase, SlotCount},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Absent,
    Starting,
    Well,
    Draining,
    Stopping,
}

struct Copy {
    life: Life,
    generation: u32,
    since: u64,
    waiting: VecDeque<u64>,
    working: usize,
    requests: u64,
    responses: u64,
    time: u64,
}

impl Copy {
    fn is_idle(&self) -> bool {
        self.working == 0 && self.waiting.is_empty()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Answered { slot: u16, came: u64 },
    Started { slot: u16, generation: u32 },
    Stopped { slot: u16 },
    SpareStarted,
}

/// A run under way. Its time begins `lead` before the load does.
pub struct Engine<'a> {
    world: &'a World,
    rng: Pcg64Mcg,
    queue: BinaryHeap<Reverse<(u64, Happening)>>,
    copies: Vec<Copy>,
    ring: Vec<u16>,
    cursor: usize,
    wanted: (u16, u16),
    spares: u16,
    spares_coming: u16,
    /// Requests that were begun.
    begun: usize,
    /// Copies that were ordered.
    started: usize,
    learner: Learner,
    outcome: Outcome,
}

const fn ns(time: Duration) -> u64 {
    time.as_nanos() as u64
}

/// Lets the arrivals come and the driver decide, and says what became of it.
pub fn run(
    world: &World,
    rng: Pcg64Mcg,
    arrivals: impl Iterator<Item = Duration>,
    driver: &mut dyn Driver,
) -> Outcome {
    let absent = |_| Copy {
        life: Life::Absent,
        generation: 0,
        since: 0,
        waiting: VecDeque::new(),
        working: 0,
        requests: 0,
        responses: 0,
        time: 0,
    };
    let mut engine = Engine {
        world,
        rng,
        queue: BinaryHeap::new(),
        copies: (0..world.max).map(absent).collect(),
        ring: Vec::new(),
        cursor: 0,
        wanted: (world.first, world.first),
        spares: world.spares,
        spares_coming: 0,
        begun: 0,
        started: 0,
        learner: Learner::default(),
        outcome: Outcome::default(),
    };
    engine.begin();
    engine.go(arrivals, driver);
    engine.finish()
}

impl Engine<'_> {
    fn begin(&mut self) {
        if !self.world.lead.is_zero() {
            let spares = std::mem::take(&mut self.spares);
            self.settle(0, false);
            self.spares = spares;
            return;
        }
        for copy in self.copies.iter_mut().take(usize::from(self.world.first)) {
            copy.life = Life::Well;
        }
        self.swap_ring();
    }

    /// When everything ends.
    const fn end(&self) -> u64 {
        ns(self.world.lead) + ns(self.world.end)
    }

    fn go(&mut self, arrivals: impl Iterator<Item = Duration>, driver: &mut dyn Driver) {
        let (lead, end) = (ns(self.world.lead), self.end());
        let arrivals = arrivals.map(|at| lead + ns(at));
        let mut arrivals = arrivals.take_while(|at| *at < end).peekable();
        // A controller reads for the first time a beat after its beginning.
        let mut tick = ns(if lead == 0 { self.world.phase } else { BEAT });
        loop {
            let happening = self.queue.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
            let arrival = arrivals.peek().copied().unwrap_or(u64::MAX);
            let next = happening.min(arrival).min(tick);
            // An answer of the last moment is an answer.
            if next > end || (next == end && happening > end) {
                return;
            }
            if happening == next {
                if let Some(Reverse((at, happening))) = self.queue.pop() {
                    self.happen(at, happening);
                }
            } else if arrival == next {
                arrivals.next();
                self.arrive(next);
            } else {
                self.tick(next, driver);
                tick += ns(BEAT);
            }
        }
    }

    fn arrive(&mut self, now: u64) {
        self.outcome.arrivals += 1;
        let turn = self.cursor;
        self.cursor += 1;
        let slot = turn
            .checked_rem(self.ring.len())
            .and_then(|at| self.ring.get(at));
        let Some(&slot) = slot else {
            self.outcome.refused += 1;
            return;
        };
        if let Some(copy) = self.copies.get_mut(usize::from(slot)) {
            copy.requests += 1;
            copy.waiting.push_back(now);
        }
        self.work(slot, now);
    }

    /// Has a copy take up what waits, as far as it can.
    fn work(&mut self, slot: u16, now: u64) {
        let Some(copy) = self.copies.get_mut(usize::from(slot)) else {
            return;
        };
        while copy.working < self.world.concurrency
            && let Some(came) = copy.waiting.pop_front()
        {
            copy.working += 1;
            let time = self.world.service.draw(self.begun, &mut self.rng);
            let at = now.saturating_add(ns(time));
            self.begun += 1;
            self.queue
                .push(Reverse((at, Happening::Answered { slot, came })));
        }
    }

    fn happen(&mut self, now: u64, happening: Happening) {
        match happening {
            Happening::Answered { slot, came } => self.answer(slot, came, now),
            Happening::Started { slot, generation } => {
                let copy = self.copies.get_mut(usize::from(slot));
                if let Some(copy) = copy.filter(|copy| copy.generation == generation) {
                    copy.life = Life::Well;
                    self.settle(now, false);
                }
            }
            Happening::Stopped { slot } => self.stopped(slot, now),
            Happening::SpareStarted => {
                self.spares_coming -= 1;
                self.spares += 1;
            }
        }
    }

    fn answer(&mut self, slot: u16, came: u64, now: u64) {
        let took = now - came;
        self.outcome.answered += 1;
        self.outcome.late += u64::from(took > ns(self.world.late));
        self.outcome.times.record(took);
        let Some(copy) = self.copies.get_mut(usize::from(slot)) else {
            return;
        };
        copy.working -= 1;
        copy.responses += 1;
        copy.time += took;
        self.work(slot, now);
    }

    fn tick(&mut self, now: u64, driver: &mut dyn Driver) {
        let moment = Duration::from_nanos(now);
        let counts = (0_u16..).zip(&self.copies).map(|(slot, copy)| SlotCount {
            slot,
            phase: match copy.life {
                Life::Starting => Phase::Starting,
                Life::Well => Phase::Ready,
                Life::Draining | Life::Stopping | Life::Absent => Phase::Other,
            },
            requests: copy.requests,
            responses: copy.responses,
            time: Duration::from_nanos(copy.time),
            in_flight: (copy.waiting.len() + copy.working) as u64,
        });
        self.learner.read(moment, counts);
        let metrics = self.metrics(now);
        let before = self.wanted.0;
        let wish = driver.tick(moment, &metrics);
        self.wanted = (
            wish.copies.min(self.world.max),
            wish.warm.min(self.world.max),
        );
        self.outcome.changed(before, self.wanted.0);
        self.settle(now, true);
        let Some(at) = moment.checked_sub(self.world.lead) else {
            return;
        };
        let waiting: usize = self.copies.iter().map(|copy| copy.waiting.len()).sum();
        self.outcome.samples.push(Sample {
            at,
            requests: metrics.requests,
            ready: self.count(Life::Well),
            running: self.running(),
            wanted: self.wanted.0,
            waiting: waiting as u64,
        });
    }

    fn metrics(&self, now: u64) -> Metrics {
        let (rate, saturated) = self.learner.service_rate().unwrap_or_default();
        Metrics {
            requests: self.outcome.arrivals,
            responses: self.outcome.answered,
            in_flight: self.learner.in_flight(),
            ready: self.count(Life::Well),
            starting: self.count(Life::Starting),
            running: self.running(),
            spares: self.spares,
            service_rate: rate,
            alone_s: self.learner.alone_s().unwrap_or_default(),
            saturated,
            start_s: self.learner.start_s().unwrap_or_default(),
            wall_s: now as f64 / 1e9,
            ..Metrics::default()
        }
    }

    fn count(&self, life: Life) -> u16 {
        self.copies.iter().filter(|copy| copy.life == life).count() as u16
    }

    fn running(&self) -> u16 {
        self.copies
            .iter()
            .filter(|copy| copy.life != Life::Absent)
            .count() as u16
    }

    /// Starts what is missing, and lets go what is too much. The counts are read whenever a copy
    /// begins to drain, so those that began before it are seen to be drained, if they are; `read`
    /// says that they were just read in any case.
    fn settle(&mut self, now: u64, read: bool) {
        let (_, warm) = self.wanted;
        let mut drained_last = None;
        for slot in 0..self.world.max {
            let Some(copy) = self.copies.get_mut(usize::from(slot)) else {
                return;
            };
            match copy.life {
                Life::Absent if slot < warm => self.start(slot, now),
                Life::Draining if slot < warm => copy.life = Life::Well,
                Life::Well if slot >= warm => {
                    copy.life = Life::Draining;
                    drained_last = Some(slot);
                }
                _ => {}
            }
        }
        if read || drained_last.is_some() {
            self.stop_drained(drained_last, now);
        }
        self.swap_ring();
    }

    /// Stops the copies that are read to have nothing left, but for the one that was not read since
    /// it began to drain.
    fn stop_drained(&mut self, but: Option<u16>, now: u64) {
        for (slot, copy) in (0..).zip(&mut self.copies) {
            if copy.life == Life::Draining && copy.is_idle() && but != Some(slot) {
                copy.life = Life::Stopping;
                let gone = now.saturating_add(ns(self.world.stop));
                self.queue
                    .push(Reverse((gone, Happening::Stopped { slot })));
            }
        }
    }

    fn start(&mut self, slot: u16, now: u64) {
        let by_spare = self.spares > 0;
        let Some(copy) = self.copies.get_mut(usize::from(slot)) else {
            return;
        };
        copy.since = now;
        copy.generation += 1;
        copy.life = if by_spare { Life::Well } else { Life::Starting };
        let generation = copy.generation;
        let time = self.world.start.draw(self.started, &mut self.rng);
        let ready = now.saturating_add(ns(time));
        self.started += 1;
        if by_spare {
            self.spares -= 1;
            self.spares_coming += 1;
            self.queue.push(Reverse((ready, Happening::SpareStarted)));
        } else {
            self.queue
                .push(Reverse((ready, Happening::Started { slot, generation })));
        }
    }

    /// A copy has ended. Its counts are read before they are forgotten.
    fn stopped(&mut self, slot: u16, now: u64) {
        let lead = ns(self.world.lead);
        if let Some(copy) = self.copies.get_mut(usize::from(slot)) {
            copy.life = Life::Absent;
            copy.generation += 1;
            self.outcome.copy_ns += now.saturating_sub(copy.since.max(lead));
        }
        self.settle(now, true);
    }

    fn swap_ring(&mut self) {
        let copies = self.wanted.0;
        let slots = (0..copies).zip(&self.copies);
        let well = slots.filter(|(_, copy)| copy.life == Life::Well);
        self.ring = well.map(|(slot, _)| slot).collect();
    }

    fn finish(mut self) -> Outcome {
        let (lead, end) = (ns(self.world.lead), self.end());
        let running = self.copies.iter().filter(|copy| copy.life != Life::Absent);
        let times = running.map(|copy| end - copy.since.max(lead));
        self.outcome.copy_ns += times.sum::<u64>();
        let spares = u64::from(self.world.spares);
        self.outcome.copy_ns += spares * ns(self.world.end);
        let late = ns(self.world.late);
        let waiting = self.copies.iter().flat_map(|copy| &copy.waiting);
        let overdue = waiting.filter(|came| end - **came > late).count() as u64;
        let working = self.queue.iter().filter(|Reverse((_, happening))| {
            matches!(happening, Happening::Answered { came, .. } if end - came > late)
        });
        self.outcome.late += overdue + working.count() as u64;
        self.outcome
    }
}
