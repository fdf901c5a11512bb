//! Executing the plan.

use std::{fmt::Display, time::Duration};

use orch_common::slot::SlotKey;

use super::{
    Controller,
    adopt::short,
    tables::{Outcome, Tables},
};
use crate::{
    dataplane::{Reach, SlotEntry},
    plan::{Action, plan},
    state::{FIRST_SPARE, Fault, KernelSlot, Life, Moment, SlotSeen, Stray},
};

/// Plans in a row after one event. Each makes the next possible; far fewer are ever needed, so
/// this only keeps a mistake from spinning.
const ROUNDS: usize = 16;
/// Between two reports of the same trouble.
const TROUBLE_AGAIN: Duration = Duration::from_mins(1);

impl<T: Tables> Controller<T> {
    /// Plans and executes until nothing is left to do now, or the data plane refuses.
    pub(super) fn settle(&mut self) {
        for _ in 0..ROUNDS {
            let actions = plan(&self.desired(), &self.observed, self.now());
            if actions.is_empty() {
                return;
            }
            self.dirty = true;
            let mut refused = false;
            for action in actions {
                log::debug!("{action:?}");
                // The others are allowed as well: a slot that is refused holds up no other.
                refused |= !self.act(action);
            }
            if refused {
                return;
            }
        }
    }

    /// Executes one action; false where the data plane refuses.
    pub(super) fn act(&mut self, action: Action) -> bool {
        let outcome = self.execute(action);
        if let Err(error) = &outcome {
            self.troubled(error);
        }
        outcome.is_ok()
    }

    fn execute(&mut self, action: Action) -> Outcome<()> {
        match action {
            Action::SetSlot { service, slot, to } => {
                self.set_slot(SlotKey { service, slot }, to)?;
            }
            Action::RemoveSlot { service, slot } => self.remove_slot(SlotKey { service, slot })?,
            Action::SetRing { service, slots } => self.set_ring(service, slots)?,
            Action::Drain {
                service,
                slot,
                changed,
            } => self.drain(SlotKey { service, slot }, changed),
            Action::Resume { service, slot } => self.resume(SlotKey { service, slot }),
            Action::Stop {
                service,
                slot,
                grace,
            } => self.stop(SlotKey { service, slot }, grace),
            Action::Part {
                service,
                slot,
                grace,
            } => self.part(SlotKey { service, slot }, grace),
            Action::TakeSpare {
                service,
                slot,
                spare,
                grace,
            } => {
                let spare = SlotKey {
                    service,
                    slot: spare,
                };
                self.take_spare(SlotKey { service, slot }, spare, grace)?;
            }
            Action::Freeze {
                service,
                spare,
                frozen,
            } => {
                let slot = spare;
                self.freeze(SlotKey { service, slot }, frozen);
            }
            Action::Create { service, slot } => self.create(SlotKey { service, slot }),
            Action::Start { service, slot } => self.start(SlotKey { service, slot }),
            Action::Discard { service, slot } => self.discard(SlotKey { service, slot }),
            Action::StopStray { id } => self.stop_stray(id),
        }
        Ok(())
    }

    pub(super) fn set_slot(&mut self, key: SlotKey, to: KernelSlot) -> Outcome<()> {
        let Some(seen) = self.observed.services.get(usize::from(key.service)) else {
            return Ok(());
        };
        let current = seen.slots.get(&key.slot).and_then(|slot| {
            let current = slot.current.as_ref();
            current.filter(|current| current.address == to.address && current.fault.is_none())
        });
        let netns = current.and_then(|current| current.netns.clone());
        let entry = SlotEntry {
            address: to.address,
            reach: netns.map_or(Reach::Port, |netns| Reach::Direct { netns }),
            pid: current.and_then(|current| current.pid),
            port: seen.port(key.slot),
            state: to.state,
            generation: to.generation,
        };
        let set = self.tables.set_slot(key, &entry);
        if let Err(error) = &set
            && entry.reach != Reach::Port
        {
            self.refused_directly(key, error);
        }
        set?;
        if let Some(slot) = self.slot_mut(key) {
            slot.kernel = Some(to);
            slot.refused_since = None;
            slot.odd_before &= entry.reach == Reach::Port;
        }
        Ok(())
    }

    /// The backend makes room for another and is stopped beside it.
    pub(super) fn part(&mut self, key: SlotKey, grace: Duration) {
        let now = self.now();
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        let Some(current) = slot.current.take() else {
            return;
        };
        slot.stopped(now);
        self.probes.remove(&key);
        let stray = Stray {
            runtime: current.runtime,
            stopping: false,
            retry_at: Moment::ZERO,
            grace,
            left: Some(key),
        };
        self.observed.strays.insert(current.id, stray);
    }

    fn remove_slot(&mut self, key: SlotKey) -> Outcome<()> {
        // Its counts go with it, and totals must not shrink.
        self.read_counts(self.now());
        self.tables.remove_slot(key)?;
        if let Some(last) = self.readings.remove(&key) {
            self.retire(key.service, last.counters);
        }
        self.latencies.remove(&key);
        if let Some(slot) = self.slot_mut(key) {
            slot.kernel = None;
            slot.live = 0;
            slot.broken = None;
            slot.note.clear();
        }
        Ok(())
    }

    fn set_ring(&mut self, service: u16, slots: Vec<u16>) -> Outcome<()> {
        self.warm_up(service, &slots)?;
        self.tables.set_ring(service, &slots)?;
        let Some(seen) = self.observed.services.get_mut(usize::from(service)) else {
            return Ok(());
        };
        let before = seen.ring.replace(slots.clone());
        for slot in slots {
            if !before.as_ref().is_some_and(|ring| ring.contains(&slot)) {
                self.entered(SlotKey { service, slot });
                self.can_go(service);
            }
        }
        Ok(())
    }

    /// The ring is about to change: who is new in it begins with a small share.
    fn warm_up(&mut self, service: u16, slots: &[u16]) -> Outcome<()> {
        let now = self.now();
        let at = usize::from(service);
        let before = self.observed.services.get(at);
        let before = before.and_then(|seen| seen.ring.clone());
        if let Some(hosted) = self.services.get_mut(at) {
            hosted
                .warmup
                .change(&before.unwrap_or_default(), slots, now);
        }
        self.share_out(service)
    }

    /// Gives the slots that are new in the ring the share that they have by now.
    pub(super) fn share_out(&mut self, service: u16) -> Outcome<()> {
        let now = self.now();
        let Some(hosted) = self.services.get_mut(usize::from(service)) else {
            return Ok(());
        };
        let shares = hosted.warmup.shares(hosted.config.slow_start, now);
        if shares != hosted.shares {
            self.tables.set_shares(service, &shares)?;
            hosted.shares = shares;
        }
        Ok(())
    }

    /// A slot came into the ring: that ends what was wrong with it.
    fn entered(&mut self, key: SlotKey) {
        let now = self.now();
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        slot.note.clear();
        let broken = slot.broken.take();
        let Some(current) = &slot.current else {
            return;
        };
        let id = short(&current.id.0).to_owned();
        match broken {
            Some(Fault { at, cause }) => {
                let took = now.saturating_sub(at).as_secs_f64();
                let text = format!("{id} is in the ring {took:.2} s after the one before: {cause}");
                self.recovery.add(took);
                self.record(key, "replaced", text);
            }
            None => self.record(key, "ready", format!("{id} is in the ring")),
        }
    }

    fn drain(&mut self, key: SlotKey, changed: bool) {
        let now = self.now();
        // For the event: the last reading may be a tick old.
        self.read_counts(now);
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        let live = slot.live;
        let Some(current) = &mut slot.current else {
            return;
        };
        current.life = Life::Draining { since: now };
        let id = short(&current.id.0).to_owned();
        if changed {
            let cause = current.cause_to_drain();
            let name = cause.name();
            slot.broken = Some(Fault { at: now, cause });
            self.count_replacement(key.service, name);
        }
        let text = format!("{id} is out of the ring, {live} connections may finish");
        self.record(key, "draining", text);
    }

    fn resume(&mut self, key: SlotKey) {
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        slot.broken = None;
        if let Some(current) = &mut slot.current {
            current.life = Life::Running;
        }
    }

    pub(super) fn slot(&self, key: SlotKey) -> Option<&SlotSeen> {
        let service = self.observed.services.get(usize::from(key.service))?;
        service.slots.get(&key.slot)
    }

    pub(super) fn slot_mut(&mut self, key: SlotKey) -> Option<&mut SlotSeen> {
        let service = self.observed.services.get_mut(usize::from(key.service))?;
        service.slots.get_mut(&key.slot)
    }

    pub(super) fn slot_or_new(&mut self, key: SlotKey, generation: u32) -> Option<&mut SlotSeen> {
        let service = self.observed.services.get_mut(usize::from(key.service))?;
        let new = || SlotSeen::new(generation);
        Some(service.slots.entry(key.slot).or_insert_with(new))
    }

    /// Notes an event of a slot.
    pub(super) fn record(&mut self, key: SlotKey, kind: &str, text: String) {
        let hosted = self.services.get(usize::from(key.service));
        let name = hosted.map_or("", |hosted| hosted.config.name.as_str());
        let (slot, text) = match key.slot {
            FIRST_SPARE.. => (None, format!("spare {text}")),
            slot => (Some(slot), text),
        };
        self.door.journal.record(name, slot, kind, text);
        self.dirty = true;
    }

    pub(super) fn count_replacement(&mut self, service: u16, cause: &'static str) {
        if let Some(hosted) = self.services.get_mut(usize::from(service)) {
            *hosted.replacements.entry(cause).or_default() += 1;
        }
    }

    /// The data plane refused something: told once a minute, tried again with the next event.
    pub(super) fn troubled(&mut self, error: &dyn std::error::Error) {
        let (text, now) = (whole(error), self.now());
        let told = |(last, at): &(String, Moment)| *last == text && now < *at + TROUBLE_AGAIN;
        if !self.trouble.as_ref().is_some_and(told) {
            self.door.journal.record("", None, "error", text.clone());
            self.trouble = Some((text, now));
        }
    }
}

/// An error with all its causes, in one line.
pub(super) fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let parts = std::iter::once(&error as &dyn Display)
        .map(ToString::to_string)
        .chain(causes.map(ToString::to_string));
    parts.collect::<Vec<_>>().join(": ")
}
