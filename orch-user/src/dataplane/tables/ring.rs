//! Which slots have their turn?

use std::collections::BTreeMap;

use orch_common::{
    layout::map,
    select,
    service::{Balance, Ring, RingKey, Turn},
};

use super::Tables;
use crate::{dataplane::DataplaneError, plan::warmup::WHOLE};

/// Most turns of a ring all of which are looked at, but for one of each slot.
const FEW: u32 = 64;

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
            Balance::LeastConnections => Ring::new(few_turns(&served)),
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

    /// Has some slots have less than their whole share, in parts of [`WHOLE`], from now on.
    pub(in super::super) fn set_shares(
        &mut self,
        service: u16,
        shares: &BTreeMap<u16, u8>,
    ) -> Result<(), DataplaneError> {
        let before = self.shares.insert(service, shares.clone());
        let before = before.unwrap_or_default();
        let slots = self.ring(service);
        if slots.is_empty() || before == *shares {
            return Ok(());
        }
        let set = self.set_ring(service, &slots);
        if set.is_err() {
            self.shares.insert(service, before);
        }
        set
    }

    /// Slots with their weights, of which some have only a part.
    fn served(&self, service: u16, slots: &[u16]) -> Vec<Turn> {
        let choice = self.choices.get(usize::from(service));
        let weights = choice.map_or(&[][..], |choice| &choice.weights);
        served(slots, weights, self.shares.get(&service))
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

/// Weights are by slot, 1 behind their end. Where some slots have only a part of theirs, all are counted in
/// parts.
fn served(slots: &[u16], weights: &[u8], shares: Option<&BTreeMap<u16, u8>>) -> Vec<Turn> {
    let share_of = |slot: u16| shares.and_then(|shares| shares.get(&slot)).copied();
    let whole = if slots.iter().any(|slot| share_of(*slot).is_some()) {
        WHOLE
    } else {
        1
    };
    let parts = slots.iter().map(|slot| {
        let weight = weights.get(usize::from(*slot)).copied().unwrap_or(1);
        u32::from(weight) * u32::from(share_of(*slot).unwrap_or(whole))
    });
    let parts: Vec<u32> = parts.collect();
    let most = parts.iter().copied().max().unwrap_or(1);
    let fit = |part: u32| match most {
        0..=255 => part,
        _ => (part * 255 / most).max(1),
    };
    let turn = |(slot, part): (&u16, &u32)| Turn {
        slot: *slot as u8,
        weight: fit(*part) as u8,
    };
    slots.iter().zip(&parts).map(turn).collect()
}

/// Turns for those with equally many connections for their weight. All turns are looked at for each
/// connection: where weights are great, fewer turns are in proportion as well as they can be.
fn few_turns(served: &[Turn]) -> Vec<Turn> {
    let sum: u32 = served.iter().map(|turn| u32::from(turn.weight)).sum();
    let part = |turn: &Turn| Turn {
        weight: (u32::from(turn.weight) * FEW / sum.max(FEW)).max(1) as u8,
        ..*turn
    };
    let parts: Vec<Turn> = served.iter().map(part).collect();
    let whole = |turn: Turn| served.iter().find(|one| one.slot == turn.slot).copied();
    select::turns(&parts).filter_map(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(slots: &[u16], weights: &[u8], shares: &[(u16, u8)]) -> Vec<u8> {
        let shares = shares.iter().copied().collect();
        let served = served(slots, weights, Some(&shares));
        served.iter().map(|turn| turn.weight).collect()
    }

    #[test]
    fn a_part_of_a_share_is_fewer_turns() {
        assert_eq!(weights(&[0, 1, 2], &[], &[]), [1, 1, 1]);
        assert_eq!(weights(&[0, 1, 2], &[], &[(1, 3)]), [10, 3, 10]);
        assert_eq!(weights(&[0, 1], &[3], &[(0, 5)]), [15, 10]);
        assert_eq!(
            weights(&[0, 1], &[], &[(2, 5)]),
            [1, 1],
            "it is not in the ring"
        );
    }

    #[test]
    fn few_turns_are_in_proportion_and_have_whole_weights() {
        let of = |weights: &[u8]| {
            let slots: Vec<u16> = (0..weights.len() as u16).collect();
            few_turns(&served(&slots, weights, None))
        };
        let count = |turns: &[Turn], slot| turns.iter().filter(|turn| turn.slot == slot).count();
        let turns = of(&[1, 2, 3]);
        assert_eq!([0, 1, 2].map(|slot| count(&turns, slot)), [1, 2, 3]);
        let turns = of(&[100, 50, 1]);
        assert_eq!([0, 1, 2].map(|slot| count(&turns, slot)), [42, 21, 1]);
        assert!(
            turns
                .iter()
                .all(|turn| turn.weight == [100, 50, 1][usize::from(turn.slot)])
        );
        assert_eq!(of(&[7; 3]).len(), 3);
        assert_eq!(of(&[1; 64]).len(), 64);
    }

    #[test]
    fn great_weights_keep_their_proportions() {
        let seen = weights(&[0, 1, 2], &[100, 50, 100], &[(2, 1)]);
        assert_eq!(seen, [255, 127, 25]);
        assert_eq!(weights(&[0, 1], &[100, 1], &[(1, 1)]), [255, 1]);
    }
}
