//! Spares: ready backends without a slot.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{Action, Planner, Want};
use crate::config::SpareKind;
use crate::state::{FIRST_SPARE, Life, Moment, Next, Running, SlotSeen};

impl Planner<'_> {
    /// Which spare goes into which slot, now: the one that has been well for longest first, and one
    /// whose program has yet to start last.
    pub(super) fn hand_out(&self) -> BTreeMap<u16, u16> {
        let spares = self.seen.slots.range(FIRST_SPARE..);
        let mut ready: Vec<_> = spares
            .filter(|(_, spare)| self.fits(spare))
            .map(|(number, spare)| {
                let current = spare.current.as_ref();
                let since = current.and_then(|current| current.health.since);
                Reverse((spare.is_gated(), since, *number))
            })
            .collect();
        ready.sort_unstable();
        let mut taken = BTreeMap::new();
        for slot in self.wanted().filter(|slot| self.needs_backend(*slot)) {
            let Some(Reverse((gated, since, spare))) = ready.last().copied() else {
                break;
            };
            if self.backs_off(slot) && (gated || self.is_later(since, slot)) {
                continue;
            }
            ready.pop();
            taken.insert(slot, spare);
        }
        taken
    }

    /// Whether a spare waits for the slot to be empty, or will do once that has waited.
    pub(super) fn has_gated_spare(&self, slot: u16) -> bool {
        let mut spares = self.seen.slots.range(FIRST_SPARE..);
        !self.wish.apart.contains_key(&slot)
            && spares.any(|(_, spare)| spare.is_gated() && self.fits(spare))
    }

    /// Whether a spare has been well only since the slot began to fail. Like one that has yet to start, it
    /// waits as a new backend would: it is there for the others.
    fn is_later(&self, since: Option<Moment>, number: u16) -> bool {
        let slot = self.seen.slots.get(&number);
        slot.is_some_and(|slot| since.is_none_or(|since| since > slot.failing_since))
    }

    fn backs_off(&self, number: u16) -> bool {
        let slot = self.seen.slots.get(&number);
        slot.is_some_and(|slot| self.now < slot.retry_at)
    }

    /// What runs has its port; where that is the slot's, only what has yet to begin can take it.
    fn fits(&self, spare: &SlotSeen) -> bool {
        let current = spare.current.as_ref();
        let usable = spare.is_gated() || (self.wish.overlap && spare.can_serve());
        usable && current.is_some_and(|current| current.spec == self.wish.spec)
    }

    /// Whether a spare can go into the slot. A crash loop is no reason to wait for one that is well:
    /// it is the next spare that has to wait.
    fn needs_backend(&self, number: u16) -> bool {
        if self.wish.apart.contains_key(&number) {
            return false;
        }
        let Some(slot) = self.seen.slots.get(&number) else {
            return true;
        };
        let room = slot.current.is_none() || self.parts(number, slot, self.want(number)).is_some();
        room && slot.next == Next::None
    }

    pub(super) fn plan_spares(&self, actions: &mut Vec<Action>) {
        let end = FIRST_SPARE.saturating_add(self.wish.spares);
        for number in FIRST_SPARE..end {
            if !self.seen.slots.contains_key(&number) && self.may_make_spares() {
                actions.push(Action::Create {
                    service: self.index,
                    slot: number,
                });
            }
        }
        for (number, spare) in self.seen.slots.range(FIRST_SPARE..) {
            if self.taken.values().any(|taken| taken == number) {
                continue;
            }
            let want = if *number < end {
                Want::Warm
            } else {
                Want::Gone
            };
            match &spare.current {
                Some(current) => self.plan_spare(*number, spare, current, want, actions),
                None if spare.next == Next::None && !self.may_make_spares() => {}
                None => self.plan_next(*number, spare, want, actions),
            }
        }
    }

    /// One that runs.
    fn plan_spare(
        &self,
        number: u16,
        spare: &SlotSeen,
        current: &Running,
        want: Want,
        actions: &mut Vec<Action>,
    ) {
        // What has begun cannot be put behind a gate again, and what waits there is not what runs.
        let gated = self.wish.spare_kind == SpareKind::Gated;
        let outdated = current.spec != self.wish.spec || current.gated != gated;
        let frozen = self.wish.spare_kind == SpareKind::Frozen;
        match current.life {
            Life::Stopping => {}
            _ if current.fault.is_some() => {
                self.plan_stop(number, current, Moment::ZERO, actions);
            }
            // It has no flows that would have to finish.
            _ if outdated || want.is_gone() => {
                self.plan_stop(number, current, self.wish.stop_grace, actions);
            }
            _ if spare.can_serve() && current.frozen != frozen => {
                actions.push(Action::Freeze {
                    service: self.index,
                    spare: number,
                    frozen,
                });
            }
            Life::Running | Life::Draining { .. } => {}
        }
    }

    /// Spares are made once some slot is steady and none is busy, so that they take nothing from those
    /// that start. One that fails again and again holds up no other's spares while it rests.
    fn may_make_spares(&self) -> bool {
        let mut steady = self.wanted().next().is_none();
        for number in self.wanted() {
            match self.mood(number) {
                Mood::Steady => steady = true,
                Mood::Tried | Mood::Resting => {}
                Mood::Busy => return false,
            }
        }
        steady
    }

    fn mood(&self, number: u16) -> Mood {
        let Some(slot) = self.seen.slots.get(&number) else {
            return Mood::Busy;
        };
        let waits = self.now < slot.retry_at;
        match &slot.current {
            _ if slot.next != Next::None => Mood::Busy,
            Some(it) if it.fault.is_none() && it.health.since.is_some() => {
                if waits {
                    Mood::Tried
                } else {
                    Mood::Steady
                }
            }
            Some(it) if it.fault.is_none() => Mood::Busy,
            _ if waits => Mood::Resting,
            _ => Mood::Busy,
        }
    }
}

/// How a slot is, for those who would make spares.
enum Mood {
    /// Its backend starts, or is about to.
    Busy,
    /// It is well.
    Steady,
    /// It is well, and was not just before.
    Tried,
    /// It has failed, and waits until it is tried again.
    Resting,
}
