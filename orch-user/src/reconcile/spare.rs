//! Spares: put into slots, frozen and thawed.

use std::time::Duration;

use super::{
    Controller,
    adopt::short,
    execute::whole,
    tables::{Outcome, Tables},
};
use orch_common::slot::{SlotKey, SlotState};

use crate::{
    dataplane::Reach,
    kept::PLACES,
    runtime::{BackendId, RuntimeError, RuntimeKind},
    state::{Cause, FIRST_SPARE, KernelSlot, Next, ServiceSeen, SlotSeen},
};

impl<T: Tables> Controller<T> {
    /// Puts a spare into a slot. All that it takes besides is the kernel's entry and the ring, which
    /// the plan names next; the backend before it is ended beside.
    pub(super) fn take_spare(
        &mut self,
        key: SlotKey,
        spare: SlotKey,
        grace: Duration,
    ) -> Outcome<()> {
        let now = self.now();
        let first = self.first_generation;
        self.expect(key, spare)?;
        if !self.freeze(spare, false) || !self.open(spare, key) {
            return Ok(());
        }
        let taken = self.slot_mut(spare).and_then(|spare| spare.current.take());
        let Some(mut running) = taken else {
            return Ok(());
        };
        let begins = running.gated;
        if begins {
            running.begin(now);
        }
        self.probes.remove(&spare);
        if let Some(place) = self.slot_mut(spare) {
            *place = SlotSeen::new(first);
            place.touched_at = now;
        }
        self.part(key, grace);
        if running.netns.is_none()
            && let Some(seen) = self.observed.services.get(usize::from(key.service))
        {
            running.address = seen.expected_address(key.slot);
        }
        let Some(slot) = self.slot_or_new(key, first) else {
            return Ok(());
        };
        let text = format!("{}, a spare, takes the slot", short(&running.id.0));
        slot.current = Some(running);
        slot.touched_at = now;
        self.unkept = true;
        self.record(key, "spare", text);
        self.begin_probing(key, begins);
        Ok(())
    }

    /// Keeps for a later controller which backend is in which slot: this one's label says otherwise.
    pub(super) fn keep_places(&mut self) {
        if !std::mem::take(&mut self.unkept) {
            return;
        }
        let of = |service: &ServiceSeen| {
            let slots = service.slots.range(..FIRST_SPARE);
            let current = slots.filter_map(|(slot, seen)| Some((seen.current.as_ref()?, *slot)));
            current
                .map(|(one, slot)| (one.id.0.clone(), slot))
                .collect()
        };
        let names = self
            .services
            .iter()
            .map(|hosted| hosted.config.name.clone());
        let places = names.zip(self.observed.services.iter().map(of)).collect();
        if let Err(error) = PLACES.write(&self.config.state_dir, &self.instance(), &places) {
            let dir = self.config.state_dir.display();
            log::warn!("the next controller may not know which slot a spare has: {dir}: {error}");
        }
    }

    /// A spare that will listen on the slot's own port: before it does, the kernel knows the new
    /// generation. Flows of the backend before it are dead then, and outsiders stay off the port.
    fn expect(&mut self, key: SlotKey, spare: SlotKey) -> Outcome<()> {
        let first = self.first_generation;
        let spare = self.slot(spare).and_then(|spare| spare.current.as_ref());
        if spare.is_none_or(|spare| spare.netns.is_some()) {
            return Ok(());
        }
        let service = self.observed.services.get(usize::from(key.service));
        let address = service.map(|seen| seen.expected_address(key.slot));
        let slot = self.slot_or_new(key, first);
        let (Some(slot), Some(address)) = (slot, address) else {
            return Ok(());
        };
        let generation = slot.generation;
        let to = KernelSlot {
            state: SlotState::Starting,
            generation,
            address,
        };
        self.set_slot(key, to)
    }

    /// Has the data plane do beforehand what takes long. Where it cannot, the slot's turn will tell.
    pub(super) fn prepare(&mut self, key: SlotKey) {
        let current = self.slot(key).and_then(|slot| slot.current.as_ref());
        let Some((netns, address)) =
            current.and_then(|one| Some((one.netns.clone()?, one.address)))
        else {
            return;
        };
        if let Err(error) = self.tables.prepare(&Reach::Direct { netns }, address) {
            log::debug!("cannot prepare for {address}: {}", whole(&error));
        }
    }

    /// Takes the processor from a spare, or gives it back; false, and it is condemned, where that
    /// cannot be. A frozen one is not asked how it is: it would not answer.
    pub(super) fn freeze(&mut self, key: SlotKey, frozen: bool) -> bool {
        let current = self.slot(key).and_then(|slot| slot.current.as_ref());
        let Some(current) = current.filter(|current| current.frozen != frozen) else {
            return true;
        };
        let (id, kind, pid) = (current.id.clone(), current.runtime, current.pid);
        if let Err(error) = self.set_frozen(kind, &id, pid, frozen) {
            self.condemn(key, Cause::Freezer(whole(&error)));
            return false;
        }
        if let Some(current) = self.slot_mut(key).and_then(|slot| slot.current.as_mut()) {
            current.frozen = frozen;
        }
        if frozen {
            self.probes.remove(&key);
        } else {
            self.begin_probing(key, false);
        }
        true
    }

    /// Has a spare that waits at its gate become the program of a slot; false, and it is condemned,
    /// where it cannot.
    fn open(&mut self, key: SlotKey, to: SlotKey) -> bool {
        let Some(hosted) = self.services.get(usize::from(to.service)) else {
            return false;
        };
        let order = hosted.order(to.slot);
        let current = self.slot(key).and_then(|slot| slot.current.as_ref());
        let Some(current) = current.filter(|current| current.gated) else {
            return true;
        };
        let opened = match (self.runtimes.get(current.runtime), current.pid) {
            (Some(runtime), Some(pid)) => runtime.open(&current.id, pid, &order),
            _ => Err(RuntimeError::Gate {
                id: current.id.clone(),
                source: std::io::ErrorKind::NotFound.into(),
            }),
        };
        if let Err(error) = &opened {
            self.condemn(key, Cause::Gate(whole(error)));
        }
        opened.is_ok()
    }

    pub(super) fn set_frozen(
        &self,
        kind: RuntimeKind,
        id: &BackendId,
        pid: Option<u32>,
        frozen: bool,
    ) -> Result<(), RuntimeError> {
        match (self.runtimes.get(kind), pid) {
            (Some(runtime), Some(pid)) => runtime.set_frozen(id, pid, frozen),
            _ => Err(RuntimeError::Freezer {
                id: id.clone(),
                source: std::io::ErrorKind::NotFound.into(),
            }),
        }
    }

    /// A place for a spare that runs already.
    pub(super) fn free_spare_place(&self, service: u16) -> Option<SlotKey> {
        let seen = self.observed.services.get(usize::from(service))?;
        let taken = |number: &u16| {
            let place = seen.slots.get(number);
            place.is_some_and(|place| place.current.is_some())
        };
        let slot = (FIRST_SPARE..2 * FIRST_SPARE).find(|number| !taken(number))?;
        Some(SlotKey { service, slot })
    }

    /// Whether some spare of a service is on its way in or out, or was after `asked_at`.
    pub(super) fn spares_move(&self, service: u16, asked_at: crate::state::Moment) -> bool {
        let seen = self.observed.services.get(usize::from(service));
        let mut spares = seen
            .into_iter()
            .flat_map(|seen| seen.slots.range(FIRST_SPARE..));
        spares.any(|(_, spare)| spare.next != Next::None || spare.touched_at >= asked_at)
    }
}
