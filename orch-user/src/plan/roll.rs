//! Replacing backends that are well but not what the configuration wants: one slot at a time.

use std::cmp::Reverse;

use crate::state::{FIRST_SPARE, Life, Running, ServiceSeen, SlotSeen, Wish};

/// How many slots should be in the ring: `copies`, and more in two cases, so that traffic always
/// has somewhere to go. A single copy that must be replaced although it is well gets company for
/// the time, where the limit allows it. And copies too many stay while the others are all out.
pub(super) fn slots_to_serve(wish: &Wish, seen: &ServiceSeen) -> u16 {
    if wish.copies == 0 {
        return 0;
    }
    let mut wanted = seen.slots.range(..wish.copies);
    if wish.copies == 1 && wish.limit > 1 {
        let outdated = seen
            .slots
            .get(&0)
            .is_some_and(|slot| is_outdated(slot, wish.spec_of(0)));
        if outdated {
            return 2;
        }
    }
    if wanted.any(|(_, slot)| slot.can_serve()) {
        return wish.copies;
    }
    // None of the wanted ones can serve: keep the lowest surplus one that can, and what is below.
    seen.slots
        .range(wish.copies..FIRST_SPARE)
        .find(|(number, slot)| {
            seen.ring.as_ref().is_some_and(|ring| ring.contains(number)) && slot.can_serve()
        })
        .map_or(wish.copies, |(number, _)| number + 1)
}

/// The slot whose backend is to go next for a new one. None of the ring while any other slot that
/// should serve does not: one disturbance at a time.
pub(super) fn choose(wish: &Wish, seen: &ServiceSeen, serve: u16) -> Option<u16> {
    let wanted = 0..serve.max(wish.warm);
    let candidate = |number: &u16| {
        let slot = seen.slots.get(number)?;
        let calm = slot.current.as_ref()?.life == Life::Running;
        (calm && is_outdated(slot, wish.spec_of(*number)))
            .then_some((seen.in_ring(*number), Reverse(*number)))
    };
    // One that is out of the ring already goes first: that disturbs nobody.
    let (in_ring, Reverse(chosen)) = wanted.filter_map(|number| candidate(&number)).min()?;
    if !in_ring {
        return Some(chosen);
    }
    let disturbed = (0..serve).filter(|number| *number != chosen).any(|number| {
        !seen.in_ring(number) || !seen.slots.get(&number).is_some_and(SlotSeen::can_serve)
    });
    (!disturbed).then_some(chosen)
}

fn is_outdated(slot: &SlotSeen, spec: &str) -> bool {
    let outdated = |current: &Running| current.fault.is_none() && current.spec != spec;
    slot.current.as_ref().is_some_and(outdated)
}
