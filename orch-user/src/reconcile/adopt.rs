//! The beginning: what an earlier controller left running is taken over in place.

use std::collections::BTreeMap;

use orch_common::slot::{SlotKey, SlotState};

use super::{Controller, RunError, execute::whole, hosted::Hosted, tables::Tables};
use crate::{
    dataplane::SlotReading,
    health::Health,
    kept::PLACES,
    runtime::{Backend, RuntimeKind},
    scale::Tape,
    state::{FIRST_SPARE, KernelSlot, Moment, Running, ServiceSeen, SlotSeen, Stray},
};

/// Slots by identity, by service.
type Places = BTreeMap<String, BTreeMap<String, u16>>;

impl<T: Tables> Controller<T> {
    /// Learns what is there: services from the configuration, slots from the kernel, backends from
    /// the runtimes.
    pub(super) async fn begin(&mut self) -> Result<(), RunError> {
        let now = self.now();
        let reading = self.tables.read()?;
        self.readings = reading.slots.iter().map(|slot| (slot.key, *slot)).collect();
        let services = std::mem::take(&mut self.config.services);
        self.tables.set_services(&services)?;
        for service in services {
            self.observed.services.push(ServiceSeen {
                start_port: service.start_port,
                ..ServiceSeen::default()
            });
            let delivery = self.delivery_of(&service);
            self.services.push(Hosted::new(service, delivery, now));
        }
        self.recall_retired();
        self.learn_kernel(&reading.slots)?;
        let needed: Vec<_> = self.services.iter().map(|hosted| hosted.kind).collect();
        let runtimes: Vec<_> = self.runtimes.all().cloned().collect();
        let kept = PLACES.read(&self.config.state_dir, &self.instance());
        for runtime in runtimes {
            let kind = runtime.kind();
            match runtime.list().await {
                Ok(backends) => self.adopt_all(kind, &kept, backends),
                Err(source) if needed.contains(&kind) => {
                    let runtime = kind.name();
                    return Err(RunError::List { runtime, source });
                }
                // A runtime that nobody needs may be absent.
                Err(error) => log::debug!("{} backends cannot be listed: {error}", kind.name()),
            }
        }
        self.start_policies(now);
        self.recall_held();
        Ok(())
    }

    fn learn_kernel(&mut self, slots: &[SlotReading]) -> Result<(), RunError> {
        for slot in slots {
            self.first_generation = self.first_generation.max(slot.generation.wrapping_add(1));
            let service = self
                .observed
                .services
                .get_mut(usize::from(slot.key.service));
            // Another port: it was another service's slot, when the file was another.
            let service = service.filter(|seen| seen.port(slot.key.slot) == slot.port);
            let Some(seen) = service else {
                self.tables.remove_slot(slot.key)?;
                self.readings.remove(&slot.key);
                continue;
            };
            let mut known = SlotSeen::new(slot.generation.wrapping_add(1));
            known.live = slot.live;
            known.kernel = Some(KernelSlot {
                state: slot.state,
                generation: slot.generation,
                address: seen.expected_address(slot.key.slot),
            });
            seen.slots.insert(slot.key.slot, known);
        }
        Ok(())
    }

    fn adopt_all(&mut self, kind: RuntimeKind, kept: &Places, mut backends: Vec<Backend>) {
        // Of two in one slot the one that runs and fits is kept, then the younger.
        backends.sort_by_key(|backend| {
            let hosted = self
                .services
                .iter()
                .find(|h| h.config.name == backend.service);
            let fits = hosted.is_some_and(|hosted| hosted.spec == backend.spec);
            (!backend.running, !fits, backend.age)
        });
        // First those whose slot is known: a spare that was put into a slot is still labelled as
        // one, and the slot's label may be that of a backend on its way out.
        let (placed, others): (Vec<_>, Vec<_>) = backends
            .into_iter()
            .partition(|backend| self.place_known(kind, kept, backend).is_some());
        for backend in placed.into_iter().chain(others) {
            let place = self
                .place_known(kind, kept, &backend)
                .or_else(|| self.place_for(kind, &backend));
            if let Some(key) = place {
                self.adopt(key, kind, backend);
            } else {
                let stray = Stray {
                    runtime: kind,
                    stopping: false,
                    retry_at: Moment::ZERO,
                    grace: self.stray_grace(),
                    left: None,
                };
                self.observed.strays.insert(backend.id, stray);
            }
        }
    }

    fn service_of(&self, kind: RuntimeKind, backend: &Backend) -> Option<u16> {
        let hosted = |hosted: &Hosted| hosted.config.name == backend.service && hosted.kind == kind;
        let service = self.services.iter().position(hosted)?;
        backend.running.then_some(service as u16)
    }

    fn is_free(&self, key: SlotKey) -> bool {
        self.slot(key).is_none_or(|slot| slot.current.is_none())
    }

    /// The free slot in which this backend was, as the kernel has it or an earlier controller has kept it.
    fn place_known(&self, kind: RuntimeKind, kept: &Places, backend: &Backend) -> Option<SlotKey> {
        self.place_in_kernel(kind, backend).or_else(|| {
            let service = self.service_of(kind, backend)?;
            let slot = *kept.get(&backend.service)?.get(&backend.id.0)?;
            let key = SlotKey { service, slot };
            (slot < FIRST_SPARE && self.is_free(key)).then_some(key)
        })
    }

    /// The free slot in which the kernel has this backend.
    fn place_in_kernel(&self, kind: RuntimeKind, backend: &Backend) -> Option<SlotKey> {
        let service = self.service_of(kind, backend)?;
        let mut slots = self.readings.values();
        let known = slots
            .find(|slot| slot.key.service == service && slot.address == Some(backend.address))?;
        (backend.netns.is_some() && self.is_free(known.key)).then_some(known.key)
    }

    /// The free slot that a running backend belongs to by its label, or a place for a spare.
    fn place_for(&self, kind: RuntimeKind, backend: &Backend) -> Option<SlotKey> {
        let service = self.service_of(kind, backend)?;
        let Some(slot) = backend.slot else {
            return self.free_spare_place(service);
        };
        let key = SlotKey { service, slot };
        (slot < FIRST_SPARE && self.is_free(key)).then_some(key)
    }

    fn adopt(&mut self, key: SlotKey, kind: RuntimeKind, backend: Backend) {
        let now = self.now();
        let first = self.first_generation;
        if backend.slot.is_none()
            && let Err(error) = self.set_frozen(kind, &backend.id, backend.pid, false)
        {
            // Whether it was frozen is not known. If so, its probes will tell.
            log::debug!("{}", whole(&error));
        }
        let Some(slot) = self.slot_or_new(key, first) else {
            return;
        };
        let mut health = Health::default();
        if let Some(kernel) = &mut slot.kernel {
            slot.generation = kernel.generation;
            // What is reached directly is told again: the data plane has to learn its namespace.
            if backend.netns.is_none() {
                kernel.address = backend.address;
            }
            if kernel.state == SlotState::Ready {
                health = Health::trusted(now);
            }
        }
        let trusted = health.since.is_some();
        let gated = backend.gated;
        let what = match (trusted, gated) {
            (true, _) => "which stays in the ring",
            (false, true) => "which waits at its gate",
            (false, false) => "which is probed first",
        };
        let (id, address) = (short(&backend.id.0), backend.address);
        let text = format!("adopted {id} at {address}, {what}");
        slot.current = Some(Running::new(backend, kind, health, now));
        self.record(key, "adopted", text);
        if gated {
            self.prepare(key);
        } else {
            self.begin_probing(key, !trusted);
        }
    }

    /// As many copies as there were, until the policy knows better.
    fn start_policies(&mut self, now: Moment) {
        for (hosted, seen) in self.services.iter_mut().zip(&self.observed.services) {
            let is = |slot: &SlotSeen, states: &[SlotState]| {
                let state = slot.kernel.map(|kernel| kernel.state);
                slot.current.is_some() && state.is_some_and(|state| states.contains(&state))
            };
            let apart = [
                SlotState::Draining,
                SlotState::Stopping,
                SlotState::Starting,
            ];
            let served = |slot: &SlotSeen| slot.current.is_some() && !is(slot, &apart);
            let mut slots = seen.slots.range(..FIRST_SPARE).rev();
            let highest = slots.clone().find(|(_, slot)| served(slot));
            // Where none served, one may have been on its way for those who wait.
            let begins = slots.any(|(_, slot)| is(slot, &[SlotState::Starting]));
            let copies = highest.map_or(u16::from(begins), |(number, _)| number + 1);
            let limits = &hosted.config.scale;
            hosted.policy = Tape::new(copies.clamp(limits.min, limits.max), 0, now, limits);
        }
        self.read_counts(now);
        for hosted in &mut self.services {
            let rules = &hosted.config.scale;
            let copies = hosted.policy.scaler().copies(rules);
            hosted.policy = Tape::new(copies, hosted.totals.requests, now, rules);
        }
    }
}

/// The first characters of an id, which tell backends apart for a person.
pub(super) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
