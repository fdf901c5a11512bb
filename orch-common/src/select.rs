//! The choice of a slot.

use crate::{
    address::Address,
    layout::{MAGLEV_BYTES, MAGLEV_SIZE, RING_TURNS, SLOTS_PER_SERVICE},
    service::{Maglev, Turn},
};

/// Index into a ring of `len` slots for the `turn`-th pick: k slots and n picks give each n/k ± 1.
/// `None` for an empty ring.
#[must_use]
#[inline(always)]
pub fn round_robin(turn: u64, len: u32) -> Option<u32> {
    if len == 0 {
        return None;
    }
    Some((turn % u64::from(len)) as u32)
}

/// Whether one slot has fewer connections for its weight than another. Idle ones are equal, whatever
/// their weights: turns decide then, of which they have more or fewer.
#[must_use]
#[inline(always)]
pub const fn is_less_loaded(live: u64, weight: u8, than_live: u64, than_weight: u8) -> bool {
    // Connections of one slot are far fewer than what could overflow here.
    live.wrapping_mul(than_weight as u64) < than_live.wrapping_mul(weight as u64)
}

/// A hash of a client's address, evenly over `u32`.
#[must_use]
#[inline(always)]
pub const fn hash_of(address: &Address) -> u32 {
    let whole = u128::from_ne_bytes(*address);
    let (high, low) = ((whole >> 64) as u64, whole as u64);
    hash(mix(high) ^ low)
}

/// A hash of a number, evenly over `u32`.
#[must_use]
#[inline(always)]
pub const fn hash(number: u64) -> u32 {
    (mix(number) >> 32) as u32
}

/// The finalizer of `SplitMix64` (Steele and others, OOPSLA 2014).
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

/// Index into a Maglev table.
#[must_use]
#[inline(always)]
pub const fn maglev_index(hash: u32) -> usize {
    (hash % MAGLEV_SIZE as u32) as usize
}

/// Turns in proportion to the weights, each slot's as far apart as they can be: every step, all
/// gain their weight, and the one that has most is served and pays for all. Equal weights give
/// each slot one turn, in the order of `slots`. Weights of zero count as 1. More turns than a ring
/// has are scaled down, to one at the least.
pub fn turns(slots: &[Turn]) -> impl Iterator<Item = Turn> {
    let slots = &slots[..slots.len().min(SLOTS_PER_SERVICE)];
    let mut weights = [0_i32; SLOTS_PER_SERVICE];
    let mut credit = [0_i32; SLOTS_PER_SERVICE];
    let sum: u32 = slots.iter().map(|slot| u32::from(slot.weight.max(1))).sum();
    let common = slots.iter().fold(0, |common, slot| {
        greatest_common_divisor(common, u32::from(slot.weight.max(1)))
    });
    let fits = sum / common.max(1) <= RING_TURNS as u32;
    let room = (RING_TURNS - slots.len()) as u32;
    for (weight, slot) in weights.iter_mut().zip(slots) {
        let given = u32::from(slot.weight.max(1));
        *weight = if fits {
            given / common
        } else {
            given * room / sum + 1
        } as i32;
    }
    let total: i32 = weights.iter().sum();
    (0..total).filter_map(move |_| {
        let mut best = 0;
        for (at, weight) in weights.iter().enumerate() {
            credit[at] += weight;
            if credit[at] > credit[best] {
                best = at;
            }
        }
        credit[best] -= total;
        slots.get(best).copied()
    })
}

const fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// A table in which every slot has its share of the hashes, and keeps almost all of them when
/// another slot comes or goes (Eisenbud and others, "Maglev", NSDI 2016, 3.4). Each slot walks the
/// table in an order of its own and takes the next free place, in turn; a slot of weight w takes w
/// at a time. `None` without any slot.
#[must_use]
pub fn maglev(slots: &[Turn]) -> Option<Maglev> {
    const FREE: u8 = u8::MAX;
    let slots = &slots[..slots.len().min(SLOTS_PER_SERVICE)];
    if slots.is_empty() {
        return None;
    }
    let size = MAGLEV_SIZE as u32;
    let mut next = [0_u32; SLOTS_PER_SERVICE];
    let mut table = [FREE; MAGLEV_BYTES];
    let mut left = MAGLEV_SIZE;
    for (next, slot) in next.iter_mut().zip(slots) {
        *next = hash(u64::from(slot.slot)) % size;
    }
    loop {
        for (next, slot) in next.iter_mut().zip(slots) {
            let skip = hash(u64::from(slot.slot) | 1 << 32) % (size - 1) + 1;
            for _ in 0..slot.weight.max(1) {
                while table[*next as usize] != FREE {
                    *next = (*next + skip) % size;
                }
                table[*next as usize] = slot.slot;
                left -= 1;
                if left == 0 {
                    return Some(Maglev { slots: table });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{vec, vec::Vec};

    use super::*;

    fn slots(weights: &[u8]) -> Vec<Turn> {
        (0..)
            .zip(weights)
            .map(|(slot, weight)| Turn {
                slot,
                weight: *weight,
            })
            .collect()
    }

    fn order(weights: &[u8]) -> Vec<u8> {
        turns(&slots(weights)).map(|turn| turn.slot).collect()
    }

    /// The slot of every hash.
    fn table(slots: &[Turn]) -> Vec<u8> {
        maglev(slots).unwrap().slots[..MAGLEV_SIZE].to_vec()
    }

    fn shares(of: &[u8], count: usize) -> Vec<usize> {
        let mut shares = vec![0; count];
        for slot in of {
            shares[usize::from(*slot)] += 1;
        }
        shares
    }

    #[test]
    fn each_slot_gets_its_share() {
        for len in 1..=10_u32 {
            let mut picks = [0_u32; 10];
            for turn in 0..1000 {
                picks[round_robin(turn, len).unwrap() as usize] += 1;
            }
            let used = &picks[..len as usize];
            let (min, max) = (used.iter().min().unwrap(), used.iter().max().unwrap());
            assert!(max - min <= 1, "{len} slots: {used:?}");
        }
    }

    #[test]
    fn an_empty_ring_has_no_choice() {
        assert_eq!(round_robin(7, 0), None);
        assert_eq!(order(&[]), []);
        assert_eq!(maglev(&[]), None);
    }

    #[test]
    fn equal_weights_are_turns_in_order() {
        assert_eq!(order(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(order(&[7, 7]), [0, 1], "and no more turns than it takes");
        assert_eq!(order(&[0, 1]), [0, 1], "a weight of zero counts as one");
    }

    #[test]
    fn weights_are_turns_far_apart() {
        assert_eq!(order(&[3, 1]), [0, 0, 1, 0]);
        assert_eq!(order(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(shares(&order(&[100, 50, 1]), 3), [100, 50, 1]);
    }

    #[test]
    fn turns_fit_into_a_ring() {
        let many: Vec<u8> = (0..64).map(|slot| 37 + slot).collect();
        let order = order(&many);
        assert!(order.len() <= RING_TURNS, "{}", order.len());
        let shares = shares(&order, 64);
        assert!(shares.iter().all(|share| *share >= 1), "{shares:?}");
        assert!(shares[63] > shares[0], "{shares:?}");
    }

    #[test]
    fn the_less_loaded_is_the_one_with_room() {
        assert!(is_less_loaded(0, 1, 1, 1));
        assert!(!is_less_loaded(1, 1, 1, 1), "the first of two equals stays");
        assert!(is_less_loaded(1, 3, 1, 1), "1/3 is less than 1/1");
        assert!(is_less_loaded(2, 3, 1, 1));
        assert!(!is_less_loaded(3, 3, 1, 1));
        assert!(!is_less_loaded(0, 3, 0, 1), "idle ones are equal");
        assert!(!is_less_loaded(0, 1, 0, 3));
    }

    #[test]
    fn a_maglev_table_is_even_and_by_weight() {
        for count in [1_usize, 2, 3, 10, 16] {
            let shares = shares(&table(&slots(&vec![1; count])), count);
            let even = MAGLEV_SIZE / count;
            for share in &shares {
                assert!(share.abs_diff(even) <= 1, "{count} slots: {shares:?}");
            }
        }
        let shares = shares(&table(&slots(&[3, 1])), 2);
        assert!(shares[0].abs_diff(3 * MAGLEV_SIZE / 4) <= 2, "{shares:?}");
    }

    /// What is promised: when one of k slots goes, at most 2 % of the others' clients move.
    #[test]
    fn a_slot_that_goes_moves_few_others() {
        for count in 2..=32_u8 {
            let all = slots(&vec![1; usize::from(count)]);
            let before = table(&all);
            for gone in 0..count {
                let rest: Vec<Turn> = all.iter().copied().filter(|t| t.slot != gone).collect();
                let after = table(&rest);
                let others = before.iter().filter(|slot| **slot != gone).count();
                let moved = before
                    .iter()
                    .zip(&after)
                    .filter(|(before, after)| **before != gone && before != after)
                    .count();
                let most = others as f64 * (1.0 / f64::from(count) + 0.02);
                assert!(
                    (moved as f64) <= most,
                    "{count} slots without {gone}: {moved} of {others}"
                );
            }
        }
    }

    #[test]
    fn hashes_of_neighbours_are_spread() {
        let mut shares = vec![0; 16];
        for last in 0..4096_u32 {
            let mut address = [0; 16];
            address[12..].copy_from_slice(&(0x0A00_0000 + last).to_be_bytes());
            shares[(maglev_index(hash_of(&address)) * 16) / MAGLEV_BYTES] += 1;
        }
        assert!(
            shares.iter().all(|share| (150..400).contains(share)),
            "{shares:?}"
        );
    }
}
