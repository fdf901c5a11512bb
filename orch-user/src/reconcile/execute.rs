//! Executing the plan.

use std::{fmt::Display, sync::Arc, time::Duration};

use orch_common::slot::SlotKey;
use tokio::time::timeout;

use super::{
    Controller, Event,
    adopt::short,
    outcome::Done,
    tables::{Outcome, Tables},
};
use crate::{
    dataplane::SlotEntry,
    health::probe::{self, Target},
    plan::{Action, plan},
    runtime::{BackendId, Prepared, Runtime, RuntimeKind},
    state::{Cause, Fault, KernelSlot, Life, Moment, Next, SlotSeen},
};

/// Plans in a row after one event. Each makes the next possible; far fewer are ever needed, so
/// this only keeps a mistake from spinning.
const ROUNDS: usize = 16;
/// How long a condemned backend may live on so that the end of its log can be kept.
const TAIL_LIMIT: Duration = Duration::from_millis(300);
/// Between two reports of the same trouble.
const TROUBLE_AGAIN: Duration = Duration::from_secs(60);
/// Lines of that log.
const TAIL_LINES: usize = 5;

impl<T: Tables> Controller<T> {
    /// Plans and executes until nothing is left to do now, or the data plane refuses.
    pub(super) fn settle(&mut self) {
        for _ in 0..ROUNDS {
            let actions = plan(&self.desired(), &self.observed, self.now());
            if actions.is_empty() {
                return;
            }
            self.dirty = true;
            for action in actions {
                log::debug!("{action:?}");
                if !self.act(action) {
                    return;
                }
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
                self.set_slot(SlotKey { service, slot }, to)?
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
            Action::Create { service, slot } => self.create(SlotKey { service, slot }),
            Action::Start { service, slot } => self.start(SlotKey { service, slot }),
            Action::Discard { service, slot } => self.discard(SlotKey { service, slot }),
            Action::StopStray { id } => self.stop_stray(id),
        }
        Ok(())
    }

    fn set_slot(&mut self, key: SlotKey, to: KernelSlot) -> Outcome<()> {
        let Some(seen) = self.observed.services.get(usize::from(key.service)) else {
            return Ok(());
        };
        let entry = SlotEntry {
            address: to.address,
            port: seen.port(key.slot),
            state: to.state,
            generation: to.generation,
        };
        self.tables.set_slot(key, &entry)?;
        if let Some(slot) = self.slot_mut(key) {
            slot.kernel = Some(to);
        }
        Ok(())
    }

    fn remove_slot(&mut self, key: SlotKey) -> Outcome<()> {
        // Its counts go with it, and totals must not shrink.
        self.read_counts(self.now());
        self.tables.remove_slot(key)?;
        if let Some(last) = self.readings.remove(&key)
            && let Some(hosted) = self.services.get_mut(usize::from(key.service))
        {
            hosted.retired += last.counters;
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
        self.tables.set_ring(service, &slots)?;
        let Some(seen) = self.observed.services.get_mut(usize::from(service)) else {
            return Ok(());
        };
        let before = seen.ring.replace(slots.clone());
        for slot in slots {
            if !before.as_ref().is_some_and(|ring| ring.contains(&slot)) {
                self.entered(SlotKey { service, slot });
            }
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
                super::observe::keep_hundred(&mut self.recovery_s, took);
                self.record(key, "replaced", text);
            }
            None => self.record(key, "ready", format!("{id} is in the ring")),
        }
    }

    fn drain(&mut self, key: SlotKey, changed: bool) {
        let now = self.now();
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
            slot.broken = Some(Fault {
                at: now,
                cause: Cause::Changed,
            });
            self.count_replacement(key.service, "changed");
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

    fn stop(&mut self, key: SlotKey, grace: Duration) {
        let current = self.slot(key).and_then(|slot| slot.current.as_ref());
        let kind = current.map(|current| current.runtime);
        let Some(runtime) = kind.and_then(|kind| self.runtimes.get(kind)).cloned() else {
            return;
        };
        let Some(current) = self.slot_mut(key).and_then(|slot| slot.current.as_mut()) else {
            return;
        };
        current.life = Life::Stopping;
        let id = current.id.clone();
        let condemned = current.fault.is_some();
        self.probes.remove(&key);
        let report = self.report.clone();
        tokio::spawn(async move {
            let mut tail = None;
            if condemned {
                let asked = timeout(TAIL_LIMIT, runtime.log_tail(&id, TAIL_LINES)).await;
                tail = asked.ok().and_then(Result::ok);
            }
            let result = runtime.stop(&id, grace).await;
            let _ = report.send(Event::Done(Done::Stopped {
                key,
                id,
                tail,
                result,
            }));
        });
    }

    fn create(&mut self, key: SlotKey) {
        let first = self.first_generation;
        let Some(hosted) = self.services.get(usize::from(key.service)) else {
            return;
        };
        let (kind, order) = (hosted.kind, hosted.order(key.slot));
        let Some(runtime) = self.runtimes.get(kind).cloned() else {
            return;
        };
        if let Some(slot) = self.slot_or_new(key, first) {
            slot.next = Next::Creating;
        }
        let report = self.report.clone();
        tokio::spawn(async move {
            let result = runtime.create(&order).await;
            let _ = report.send(Event::Done(Done::Created { key, kind, result }));
        });
    }

    fn start(&mut self, key: SlotKey) {
        let (runtime, prepared) = self.take_prepared(key);
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        let (Some((kind, prepared)), Some(runtime)) = (prepared, runtime) else {
            slot.next = Next::None;
            return;
        };
        slot.next = Next::Starting;
        let report = self.report.clone();
        tokio::spawn(async move {
            let id = prepared.id.clone();
            let result = runtime.start(prepared).await;
            if result.is_err() {
                remove(runtime.as_ref(), &id).await;
            }
            let _ = report.send(Event::Done(Done::Started { key, kind, result }));
        });
    }

    fn discard(&mut self, key: SlotKey) {
        let (runtime, prepared) = self.take_prepared(key);
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        let (Some((_, prepared)), Some(runtime)) = (prepared, runtime) else {
            slot.next = Next::None;
            return;
        };
        slot.next = Next::Discarding;
        let report = self.report.clone();
        tokio::spawn(async move {
            remove(runtime.as_ref(), &prepared.id).await;
            let _ = report.send(Event::Done(Done::Discarded { key }));
        });
    }

    fn stop_stray(&mut self, id: BackendId) {
        let grace = self
            .services
            .first()
            .map_or(Duration::ZERO, |hosted| hosted.config.backend.stop_grace);
        let Some(stray) = self.observed.strays.get_mut(&id) else {
            return;
        };
        stray.stopping = true;
        let Some(runtime) = self.runtimes.get(stray.runtime).cloned() else {
            return;
        };
        let report = self.report.clone();
        tokio::spawn(async move {
            let result = runtime.stop(&id, grace).await;
            let _ = report.send(Event::Done(Done::StrayStopped { id, result }));
        });
    }

    /// Probes the backend in the slot from now on; every 50 ms at first if it is `fresh`.
    pub(super) fn begin_probing(&mut self, key: SlotKey, fresh: bool) {
        let Some(hosted) = self.services.get(usize::from(key.service)) else {
            return;
        };
        let Some(current) = self.slot(key).and_then(|slot| slot.current.as_ref()) else {
            return;
        };
        let target = Target {
            address: current.address,
            path: hosted.config.health.path.clone(),
        };
        let id = current.id.clone();
        let seed = id.0.clone();
        let report = self.report.clone();
        let report = move |answer| {
            let id = id.clone();
            report.send(Event::Probe { key, id, answer }).is_ok()
        };
        let prober = Arc::clone(&self.prober);
        let task = probe::spawn(prober, target, &hosted.config.health, fresh, &seed, report);
        self.probes.insert(key, task);
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

    fn take_prepared(
        &mut self,
        key: SlotKey,
    ) -> (Option<Arc<dyn Runtime>>, Option<(RuntimeKind, Prepared)>) {
        let prepared = self.prepared.remove(&key);
        let kind = prepared.as_ref().map(|(kind, _)| *kind);
        let runtime = kind.and_then(|kind| self.runtimes.get(kind)).cloned();
        (runtime, prepared)
    }

    /// Notes an event of a slot.
    pub(super) fn record(&mut self, key: SlotKey, kind: &str, text: String) {
        let hosted = self.services.get(usize::from(key.service));
        let name = hosted.map_or("", |hosted| hosted.config.name.as_str());
        self.door.journal.record(name, Some(key.slot), kind, text);
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

/// Removes a backend that never ran. What cannot be removed is found as a stray later.
async fn remove(runtime: &dyn Runtime, id: &BackendId) {
    if id.0.is_empty() {
        return;
    }
    if let Err(error) = runtime.stop(id, Duration::ZERO).await {
        log::debug!("cannot remove {id}: {error}");
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
