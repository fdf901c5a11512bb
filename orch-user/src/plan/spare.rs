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
                let since = spare.current.as_ref().map(|current| current.health.since);
                Reverse((spare.is_gated(), since, *number))
            })
            .collect();
        ready.sort_unstable();
        let mut taken = BTreeMap::new();
        for slot in self.wanted().filter(|slot| self.needs_backend(*slot)) {
            let Some(Reverse((gated, _, spare))) = ready.last().copied() else {
                break;
            };
            // What has yet to start may fail as the one before did: it waits as that would.
            if gated && self.backs_off(slot) {
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

    /// Spares are made once all slots are well, so that they take nothing from those that start. A
    /// slot that fails again and again makes them wait as it would wait without them.
    fn may_make_spares(&self) -> bool {
        let calm = |slot: &SlotSeen| {
            let well = slot
                .current
                .as_ref()
                .is_some_and(|current| current.fault.is_none() && current.health.since.is_some());
            well && slot.next == Next::None && self.now >= slot.retry_at
        };
        let mut wanted = self.wanted();
        wanted.all(|number| self.seen.slots.get(&number).is_some_and(calm))
    }
}
