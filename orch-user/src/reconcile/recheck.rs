//! Copies that were well by one check, and are asked by another one: who is wrong if they fail it?

use orch_common::slot::SlotKey;

use super::{Controller, adopt::short, tables::Tables};
use crate::{
    health::Answer,
    state::{Cause, FIRST_SPARE, Running},
};

impl<T: Tables> Controller<T> {
    /// Probes the backends of a service by its new rules.
    pub(super) fn probe_anew(&mut self, service: u16) {
        let Some(seen) = self.observed.services.get_mut(usize::from(service)) else {
            return;
        };
        let slots = seen.slots.iter_mut().filter_map(|(slot, state)| {
            let health = &mut state.current.as_mut()?.health;
            health.untried = health.since.is_some();
            Some((*slot, !health.untried))
        });
        for (slot, fresh) in slots.collect::<Vec<_>>() {
            let key = SlotKey { service, slot };
            if self.probes.contains_key(&key) {
                self.begin_probing(key, fresh);
            }
        }
    }

    /// A copy fails a check that is new to it. It is replaced if another copy of what it is has passed that
    /// check; else a slip in the file would take all copies away at once.
    pub(super) fn doubt(&mut self, key: SlotKey, answer: Answer) {
        if self.has_passed(key) {
            return self.condemn(key, Cause::Unhealthy(answer));
        }
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        let note = format!("the new check {answer}, as no copy has passed it: it stays as it was");
        if slot.note == note {
            return;
        }
        slot.note.clone_from(&note);
        let id = slot.current.as_ref().map(|current| current.id.0.clone());
        let text = format!("{}: {note}", short(&id.unwrap_or_default()));
        self.record(key, "unhealthy", text);
    }

    /// Whether another copy of the same has passed the check that is in force.
    fn has_passed(&self, key: SlotKey) -> bool {
        let Some(seen) = self.observed.services.get(usize::from(key.service)) else {
            return false;
        };
        let spec = |slot: u16| {
            let slot = seen.slots.get(&slot)?;
            slot.current.as_ref().map(|current| current.spec.as_str())
        };
        let own = spec(key.slot);
        let passed = |current: &Running| {
            let health = &current.health;
            current.fault.is_none() && health.since.is_some() && !health.untried
        };
        let mut slots = seen.slots.range(..FIRST_SPARE);
        slots.any(|(number, slot)| {
            let current = slot.current.as_ref();
            spec(*number) == own && current.is_some_and(passed)
        })
    }
}
