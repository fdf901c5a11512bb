//! The choice of a slot.

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

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
