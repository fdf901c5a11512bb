//! Which slots have their turn?

use orch_common::{
    layout::map,
    select,
    service::{Balance, Ring, RingKey, Turn},
};

use super::Tables;
use crate::dataplane::DataplaneError;

impl Tables {
    /// Writes the ring into the bank after the current one, then names it.
    pub(in super::super) fn set_ring(
        &mut self,
        service: u16,
        slots: &[u16],
    ) -> Result<(), DataplaneError> {
        let index = u32::from(service);
        let mut entry = self
            .services
            .get(&index, 0)
            .map_err(DataplaneError::map(map::SERVICES))?;
        let next = entry.ring.wrapping_add(1);
        let key = RingKey::new(service, next);
        let served = self.served(service, slots);
        let ring = match entry.balance {
            // Weights are compared at each choice; everybody is looked at once.
            Balance::LeastConnections => Ring::new(served.iter().copied()),
            Balance::RoundRobin | Balance::SourceIp => Ring::new(select::turns(&served)),
        };
        if entry.balance == Balance::SourceIp
            && let Some(table) = select::maglev(&served)
        {
            self.maglev
                .insert(key, table, 0)
                .map_err(DataplaneError::map(map::MAGLEV))?;
        }
        self.ring
            .insert(key, ring, 0)
            .map_err(DataplaneError::map(map::RING))?;
        entry.ring = next;
        self.services
            .insert(index, entry, 0)
            .map_err(DataplaneError::map(map::SERVICES))
    }

    /// Slots with their weights.
    fn served(&self, service: u16, slots: &[u16]) -> Vec<Turn> {
        let choice = self.choices.get(usize::from(service));
        let weight_of = |slot: u16| {
            let weights = &choice?.weights;
            weights.get(usize::from(slot)).copied()
        };
        let turn = |slot: &u16| Turn {
            slot: *slot as u8,
            weight: weight_of(*slot).unwrap_or(1),
        };
        slots.iter().map(turn).collect()
    }

    /// The slots of the ring in force, each once, in the order of their first turns.
    pub(in super::super) fn ring(&self, service: u16) -> Vec<u16> {
        let ring = self
            .services
            .get(&u32::from(service), 0)
            .and_then(|entry| self.ring.get(&RingKey::new(service, entry.ring), 0));
        let mut slots = Vec::new();
        for turn in ring.iter().flat_map(Ring::turns) {
            let slot = u16::from(turn.slot);
            if !slots.contains(&slot) {
                slots.push(slot);
            }
        }
        slots
    }
}
