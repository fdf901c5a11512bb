//! What the controller sees: probes, what runtimes notice, the kernel's counts, and the full list
//! of backends every few seconds, because streams of events die silently.

use orch_common::{
    counter::{Failure, SlotCounters},
    flow::SWEEP_SECONDS,
    slot::SlotKey,
};

use super::{Controller, Event, adopt::short, execute::whole, tables::Tables};
use crate::{
    dataplane::SlotReading,
    health::{Answer, Verdict, polls::Poll},
    runtime::{Backend, BackendId, RuntimeError, RuntimeEvent, RuntimeKind},
    state::{Cause, FIRST_SPARE, Life, Moment, Next, Stray},
};

/// Seconds between two full lists.
const RESYNC_SECONDS: u64 = 5;

impl<T: Tables> Controller<T> {
    pub(super) fn probed(&mut self, key: SlotKey, id: &BackendId, answer: Answer) {
        let now = self.now();
        let Some(hosted) = self.services.get(usize::from(key.service)) else {
            return;
        };
        let rules = hosted.config.health.clone();
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        let Some(current) = slot.current.as_mut() else {
            return;
        };
        if current.id != *id || current.fault.is_some() {
            return;
        }
        let good_at = current.health.good_at;
        let before = current.health.last;
        let poll = Poll::of(answer, current.health.since.is_some());
        let verdict = current.health.judge(answer, &rules, current.seen_at, now);
        if answer.is_its_own() {
            self.polls.entry(key).or_default().push(poll);
        }
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        match verdict {
            Verdict::Starting => slot.note = format!("not well yet: its probe {answer}"),
            Verdict::Suspect => slot.note = format!("its probe {answer}"),
            Verdict::FirstGood if key.slot >= FIRST_SPARE => {
                let text = format!("{} is ready", short(&id.0));
                slot.note.clear();
                slot.broken = None;
                self.prepare(key);
                self.record(key, "ready", text);
            }
            Verdict::Good | Verdict::FirstGood => slot.note.clear(),
            Verdict::Doubtful => self.doubt(key, answer),
            Verdict::Unhealthy => {
                if let Some(good_at) = good_at {
                    let took = now.saturating_sub(good_at).as_secs_f64();
                    self.detection.add(took);
                }
                self.condemn(key, Cause::Unhealthy(answer));
            }
            Verdict::StartLimit => self.condemn(key, Cause::StartLimit(answer)),
        }
        self.dirty |= before != Some(answer);
        if matches!(verdict, Verdict::Good | Verdict::FirstGood) {
            self.clear(key);
        }
    }

    /// The backend in the slot has to go, at once.
    pub(super) fn condemn(&mut self, key: SlotKey, cause: Cause) {
        let now = self.now();
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        let Some(current) = &slot.current else {
            return;
        };
        if current.fault.is_some() || current.life == Life::Stopping {
            return;
        }
        let text = format!("{} is replaced: {cause}", short(&current.id.0));
        let (name, kind) = match cause {
            Cause::Exited(_) | Cause::Gone => (cause.name(), "exited"),
            _ => (cause.name(), "unhealthy"),
        };
        slot.fail(cause, now);
        if kind == "exited" {
            self.polls.entry(key).or_default().push(Poll::Bad);
        }
        if key.slot < FIRST_SPARE {
            self.count_replacement(key.service, name);
        }
        self.record(key, kind, text);
        self.replay_soon();
    }

    pub(super) fn noticed(&mut self, event: RuntimeEvent) {
        match event {
            RuntimeEvent::Exited { id, how } => self.exited(id, how),
            RuntimeEvent::Lost { runtime, why } => self.runtime_lost(runtime, &why),
            RuntimeEvent::Back { runtime } => self.runtime_back(runtime),
        }
    }

    fn exited(&mut self, id: BackendId, how: String) {
        if let Some(key) = self.find(&id) {
            return self.condemn(key, Cause::Exited(how));
        }
        // Its start may not be reported yet. Without any start under way it is none of ours, and
        // must not be kept: pids come again.
        if self.is_starting() {
            self.early_exits.push((id, how));
        }
    }

    /// Whether any backend is being started.
    pub(super) fn is_starting(&self) -> bool {
        let mut slots = self
            .observed
            .services
            .iter()
            .flat_map(|seen| seen.slots.values());
        slots.any(|slot| slot.next == Next::Starting)
    }

    fn find(&self, id: &BackendId) -> Option<SlotKey> {
        let services = self.observed.services.iter().enumerate();
        let mut slots = services.flat_map(|(service, seen)| {
            let slots = seen.slots.iter();
            slots.map(move |(slot, state)| (service as u16, *slot, state))
        });
        let is_it = |(service, slot, state): (u16, u16, &crate::state::SlotSeen)| {
            let current = state.current.as_ref()?;
            (current.id == *id).then_some(SlotKey { service, slot })
        };
        slots.find_map(is_it)
    }

    pub(super) fn tick(&mut self) {
        let now = self.now();
        self.ticked_at = now;
        self.read_counts(now);
        self.observe_policies(now);
        self.suspect();
        self.mind_interfaces();
        self.retry_held();
        self.mind_the_gateway();
        let second = now.as_secs();
        if second == self.second {
            return;
        }
        self.second = second;
        self.dirty = true;
        self.sync_host();
        self.renew_terms();
        self.mind_stand_ins();
        self.keep_places();
        self.mind_handshakes(now);
        for service in 0..self.services.len() as u16 {
            if let Err(error) = self.share_out(service) {
                self.troubled(&error);
            }
        }
        for hosted in &mut self.services {
            hosted.remember(now);
        }
        self.read_latencies();
        if second.is_multiple_of(u64::from(SWEEP_SECONDS)) {
            match self.tables.sweep() {
                Ok(flows) => self.flows = flows,
                Err(error) => self.troubled(&error),
            }
        }
        if second.is_multiple_of(RESYNC_SECONDS) {
            self.compare();
            self.resync(None);
        }
    }

    /// Reads what the kernel has counted.
    pub(super) fn read_counts(&mut self, now: Moment) {
        let reading = match self.tables.read() {
            Ok(reading) => reading,
            Err(error) => return self.troubled(&error),
        };
        self.reasons = reading.reasons;
        for hosted in &mut self.services {
            hosted.totals = hosted.retired;
        }
        self.readings.clear();
        for slot in reading.slots {
            self.readings.insert(slot.key, slot);
            if let Some(hosted) = self.services.get_mut(usize::from(slot.key.service)) {
                hosted.totals += slot.counters;
            }
            self.recall(&slot, now);
            if let Some(seen) = self.slot_mut(slot.key) {
                seen.live = slot.live;
            }
        }
        for seen in &mut self.observed.services {
            seen.read_at = now;
        }
    }

    pub(super) fn observe_policies(&mut self, now: Moment) {
        if self.closing.is_some() {
            return;
        }
        for service in 0..self.services.len() {
            let Some(metrics) = self.measure(service, now) else {
                return;
            };
            let Some(hosted) = self.services.get_mut(service) else {
                return;
            };
            if let Some(decision) = hosted.policy.observe(&metrics, now, &hosted.config.scale) {
                self.decided(service, decision);
            }
            self.consult(service, now);
            self.let_rest(service, now);
        }
    }

    /// Takes the copies from a service that has had nothing to do for long.
    fn let_rest(&mut self, service: usize, now: Moment) {
        let waits = self.waiting(service as u16) > 0;
        let (Some(hosted), Some(seen)) = (
            self.services.get_mut(service),
            self.observed.services.get(service),
        ) else {
            return;
        };
        let served = seen.ring.as_ref().is_some_and(|ring| !ring.is_empty());
        let live = seen.slots.values().any(|slot| slot.live > 0);
        let of_service = |slot: &&SlotReading| usize::from(slot.key.service) == service;
        let slots = self.readings.values().filter(of_service);
        let connections: u64 = slots.map(|slot| slot.connections).sum();
        let traffic = hosted.totals.requests + hosted.totals.excluded + connections;
        let use_of_it = (traffic, live || waits || !served);
        let reason = hosted.rest.observe(use_of_it, now, &hosted.config.scale);
        if let Some(decision) = reason.and_then(|reason| hosted.policy.rest(reason, now)) {
            self.decided(service, decision);
        }
    }

    fn read_latencies(&mut self) {
        let keys: Vec<_> = self.readings.keys().copied().collect();
        for key in keys {
            match self.tables.latency(key) {
                Ok(histogram) => {
                    self.latencies.insert(key, histogram);
                }
                Err(error) => return self.troubled(&error),
            }
        }
    }

    pub(super) fn sync_host(&mut self) {
        match self.tables.sync_host() {
            Ok(sentences) => {
                for text in sentences {
                    self.door.journal.record("", None, "uplink", text);
                }
            }
            Err(error) => self.troubled(&error),
        }
    }

    /// Asks a runtime, or all that are in use, what runs.
    pub(super) fn resync(&mut self, only: Option<RuntimeKind>) {
        let asked_at = self.now();
        let runtimes: Vec<_> = self.runtimes.all().cloned().collect();
        for runtime in runtimes {
            let kind = runtime.kind();
            let used = self.services.iter().any(|hosted| hosted.kind == kind);
            if !used || only.is_some_and(|only| only != kind) {
                continue;
            }
            // One that hangs is not asked again until it has answered.
            if !self.listing.insert(kind) {
                continue;
            }
            let report = self.report.clone();
            tokio::spawn(async move {
                let result = runtime.list().await;
                let _ = report.send(Event::Listed {
                    runtime: kind,
                    asked_at,
                    result,
                });
            });
        }
    }

    pub(super) fn listed(
        &mut self,
        runtime: RuntimeKind,
        asked_at: Moment,
        result: Result<Vec<Backend>, RuntimeError>,
    ) {
        self.listing.remove(&runtime);
        let backends = match result {
            Ok(backends) => backends,
            Err(error) => return self.runtime_lost(runtime, &whole(&error)),
        };
        self.runtime_back(runtime);
        for key in self.missing(runtime, asked_at, &backends) {
            self.condemn(key, Cause::Gone);
        }
        let grace = self.stray_grace();
        for backend in backends {
            if self.is_stray(&backend, asked_at) {
                self.observed.strays.entry(backend.id).or_insert(Stray {
                    runtime,
                    stopping: false,
                    retry_at: asked_at,
                    grace,
                    left: None,
                });
            }
        }
    }

    /// Slots whose backend should be in the list as running, and is not.
    fn missing(&self, kind: RuntimeKind, asked_at: Moment, listed: &[Backend]) -> Vec<SlotKey> {
        let runs = |id: &BackendId| {
            listed
                .iter()
                .any(|backend| backend.running && backend.id == *id)
        };
        let mut missing = Vec::new();
        for (service, seen) in self.observed.services.iter().enumerate() {
            for (slot, state) in &seen.slots {
                let Some(current) = &state.current else {
                    continue;
                };
                let settled = current.runtime == kind
                    && state.touched_at < asked_at
                    && current.life != Life::Stopping;
                if settled && !runs(&current.id) {
                    missing.push(SlotKey {
                        service: service as u16,
                        slot: *slot,
                    });
                }
            }
        }
        missing
    }

    /// Whether a listed backend belongs nowhere. One that may be on its way in or out does not
    /// count: the list may be older than what is known here.
    fn is_stray(&self, backend: &Backend, asked_at: Moment) -> bool {
        if self.find(&backend.id).is_some() {
            return false;
        }
        let named = |hosted: &super::hosted::Hosted| hosted.config.name == backend.service;
        let Some(service) = self.services.iter().position(named) else {
            return true;
        };
        let service = service as u16;
        let Some(slot) = backend.slot else {
            return !self.spares_move(service, asked_at);
        };
        let key = SlotKey { service, slot };
        self.slot(key)
            .is_none_or(|slot| slot.next == Next::None && slot.touched_at < asked_at)
    }
}

/// Counters of nothing.
pub(super) const NOTHING: SlotCounters = SlotCounters {
    requests: 0,
    excluded: 0,
    responses: [0; 6],
    failures: [0; Failure::COUNT],
};
