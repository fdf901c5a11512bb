//! Does the kernel hold what it was told? What it has lost, by whatever mistake, it is told again.

use orch_common::slot::SlotKey;

use super::{Controller, tables::Tables};
use crate::{
    dataplane::SlotReading,
    state::{FIRST_SPARE, KernelSlot},
};

impl<T: Tables> Controller<T> {
    /// Compares rings, and slots as they have just been read, with what is believed of them, and
    /// believes the kernel. The plan does the rest.
    pub(super) fn compare(&mut self) {
        // What could not be read in this turn of the loop is older than what was told since.
        let mut seen = self.observed.services.iter();
        if seen.any(|seen| seen.read_at != self.ticked_at) {
            return;
        }
        for service in 0..self.services.len() as u16 {
            let ring = self.has_lost_ring(service);
            let slots = self.lost_slots(service);
            if !ring && slots.is_empty() {
                continue;
            }
            if let Some(seen) = self.observed.services.get_mut(usize::from(service)) {
                seen.ring = seen.ring.take().filter(|_| !ring);
                for slot in &slots {
                    if let Some(slot) = seen.slots.get_mut(slot) {
                        slot.kernel = None;
                    }
                }
            }
            let hosted = self.services.get(usize::from(service));
            let name = hosted.map_or("", |hosted| hosted.config.name.as_str());
            let text = "the kernel did not hold what it was told, and is told again".to_owned();
            self.door.journal.record(name, None, "error", text);
        }
    }

    fn has_lost_ring(&self, service: u16) -> bool {
        let seen = self.observed.services.get(usize::from(service));
        let Some(believed) = seen.and_then(|seen| seen.ring.as_ref()) else {
            return false;
        };
        // By weights its first turns may come in another order.
        let mut ring = self.tables.ring(service);
        ring.sort_unstable();
        ring != *believed
    }

    fn lost_slots(&self, service: u16) -> Vec<u16> {
        let Some(seen) = self.observed.services.get(usize::from(service)) else {
            return Vec::new();
        };
        let held = |slot: u16| self.readings.get(&SlotKey { service, slot });
        let believed = seen.slots.range(..FIRST_SPARE);
        let believed = believed.filter_map(|(slot, state)| Some((*slot, state.kernel?)));
        let lost =
            believed.filter(|(slot, kernel)| !held(*slot).is_some_and(|one| is(one, kernel)));
        lost.map(|(slot, _)| slot).collect()
    }
}

/// Whether the kernel holds a slot as it is believed to. Where its backend listens is not looked at:
/// of one that was adopted that is not known.
fn is(held: &SlotReading, believed: &KernelSlot) -> bool {
    held.address.is_some() && held.state == believed.state && held.generation == believed.generation
}
