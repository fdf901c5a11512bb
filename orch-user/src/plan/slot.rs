//! The steps of one slot.

use orch_common::slot::SlotState;

use super::{Action, Planner, Want};
use crate::state::{FIRST_SPARE, KernelSlot, Life, Moment, Next, Running, SlotSeen, Wish};

/// When time alone allows another step in this slot.
pub(super) fn moments(wish: &Wish, slot: &SlotSeen) -> impl Iterator<Item = Moment> {
    let drained = slot
        .current
        .as_ref()
        .and_then(|current| match current.life {
            Life::Draining { since } => Some(since + wish.drain_limit),
            _ => None,
        });
    let stop = slot.current.as_ref().map(|current| current.stop_at);
    [Some(slot.retry_at), drained, stop].into_iter().flatten()
}

impl Planner<'_> {
    pub(super) fn plan_slot(&self, number: u16, actions: &mut Vec<Action>) {
        let want = self.want(number);
        if let Some(spare) = self.taken.get(&number) {
            let slot = self.seen.slots.get(&number);
            let grace = slot.and_then(|slot| self.parts(number, slot, want));
            actions.push(Action::TakeSpare {
                service: self.index,
                slot: number,
                spare: *spare,
                grace: grace.unwrap_or_default(),
            });
            return;
        }
        let Some(slot) = self.seen.slots.get(&number) else {
            // Only a wanted number can be unknown.
            actions.push(Action::Create {
                service: self.index,
                slot: number,
            });
            return;
        };
        if let Some(grace) = self.parts(number, slot, want) {
            actions.push(Action::Part {
                service: self.index,
                slot: number,
                grace,
            });
            return;
        }
        self.plan_kernel(number, slot, want, actions);
        match &slot.current {
            Some(current) => self.plan_current(number, slot, current, want, actions),
            None => self.plan_next(number, slot, want, actions),
        }
    }

    /// Whether the slot belongs into the ring, now.
    pub(super) fn may_be_in_ring(&self, number: u16) -> bool {
        let Some(slot) = self.seen.slots.get(&number) else {
            return false;
        };
        let known = slot.kernel.is_some_and(|kernel| {
            kernel.state == SlotState::Ready && kernel.generation == slot.generation
        });
        known && self.may_serve(number, slot)
    }

    fn may_serve(&self, number: u16, slot: &SlotSeen) -> bool {
        self.want(number) == Want::Serve && self.roll != Some(number) && slot.can_serve()
    }

    fn plan_kernel(&self, number: u16, slot: &SlotSeen, want: Want, actions: &mut Vec<Action>) {
        let to = self.kernel_slot(number, slot, want);
        match to {
            Some(to) if slot.kernel != Some(to) => actions.push(Action::SetSlot {
                service: self.index,
                slot: number,
                to,
            }),
            None if slot.kernel.is_some() && !self.seen.in_ring(number) => {
                actions.push(Action::RemoveSlot {
                    service: self.index,
                    slot: number,
                });
            }
            _ => {}
        }
    }

    /// What the kernel should hold of the slot.
    fn kernel_slot(&self, number: u16, slot: &SlotSeen, want: Want) -> Option<KernelSlot> {
        let ring = self.seen.ring.as_ref();
        let in_ring = ring.is_some_and(|ring| ring.contains(&number));
        // As long as the ring names the slot, it stays ready: a packet may be choosing it.
        let state = if (in_ring && slot.current.is_some()) || self.may_serve(number, slot) {
            SlotState::Ready
        } else {
            slot.state(false, self.now)
        };
        let address = match &slot.current {
            // Where it cannot be reached yet, or any more, nobody is led to a container that may be
            // gone: the slot's port on this host refuses at once.
            Some(current)
                if current.netns.is_some() && !in_ring && !current.is_reached_directly() =>
            {
                self.seen.expected_address(number)
            }
            Some(current) => current.address,
            None if want.is_gone() && slot.next == Next::None => return None,
            // Nothing to say before a first backend is about to listen; from then on the kernel
            // keeps outsiders off the port.
            None if slot.kernel.is_none() && (slot.is_idle() || slot.next == Next::Creating) => {
                return None;
            }
            None => self.seen.expected_address(number),
        };
        Some(KernelSlot {
            state,
            generation: slot.generation,
            address,
        })
    }

    fn plan_current(
        &self,
        number: u16,
        slot: &SlotSeen,
        current: &Running,
        want: Want,
        actions: &mut Vec<Action>,
    ) {
        if self.seen.in_ring(number) {
            return;
        }
        let (service, slot_number) = (self.index, number);
        let outdated = current.spec != self.wish.spec_of(number);
        let condemned = current.fault.is_some();
        let leaves = want.is_gone() || self.roll == Some(number);
        // The next one is prepared while this one goes: that does not need the port.
        let spared = condemned && self.has_gated_spare(number);
        if !spared && (condemned || (outdated && current.life == Life::Stopping)) {
            self.plan_create(number, slot, want, actions);
        }
        match current.life {
            Life::Stopping => {}
            _ if condemned => self.plan_stop(number, current, Moment::ZERO, actions),
            Life::Running if leaves => actions.push(Action::Drain {
                service,
                slot: slot_number,
                changed: !want.is_gone(),
            }),
            Life::Running => {}
            Life::Draining { .. } if !want.is_gone() && !outdated && current.stop_at.is_zero() => {
                actions.push(Action::Resume {
                    service,
                    slot: slot_number,
                });
            }
            Life::Draining { since } => {
                if self.is_drained(slot, since) || self.now >= since + self.wish.drain_limit {
                    self.plan_stop(number, current, self.wish.stop_grace, actions);
                }
            }
        }
    }

    fn is_drained(&self, slot: &SlotSeen, since: Moment) -> bool {
        slot.live == 0 && self.seen.read_at > since
    }

    /// Whether the backend makes room now, so that another takes its place while it is being
    /// stopped; with which grace.
    pub(super) fn parts(&self, number: u16, slot: &SlotSeen, want: Want) -> Option<Moment> {
        let current = slot.current.as_ref()?;
        // One that has a port of this host has to give it back first, whatever comes after it.
        let beside = self.wish.overlaps(number) && current.netns.is_some();
        if !beside || want.is_gone() || self.seen.in_ring(number) {
            return None;
        }
        match current.life {
            Life::Stopping => None,
            _ if current.fault.is_some() => Some(Moment::ZERO),
            // With flows that outlast the drain limit it stays where they find it, until its grace is
            // over: another generation would end them at once.
            Life::Draining { since } if current.spec != self.wish.spec_of(number) => {
                self.is_drained(slot, since).then_some(self.wish.stop_grace)
            }
            Life::Running | Life::Draining { .. } => None,
        }
    }

    pub(super) fn plan_stop(
        &self,
        slot: u16,
        current: &Running,
        grace: Moment,
        actions: &mut Vec<Action>,
    ) {
        if self.now >= current.stop_at {
            actions.push(Action::Stop {
                service: self.index,
                slot,
                grace,
            });
        }
    }

    fn plan_create(&self, number: u16, slot: &SlotSeen, want: Want, actions: &mut Vec<Action>) {
        if !want.is_gone() && slot.next == Next::None && self.now >= slot.retry_at {
            actions.push(Action::Create {
                service: self.index,
                slot: number,
            });
        }
    }

    pub(super) fn plan_next(
        &self,
        number: u16,
        slot: &SlotSeen,
        want: Want,
        actions: &mut Vec<Action>,
    ) {
        let service = self.index;
        match &slot.next {
            Next::None => self.plan_create(number, slot, want, actions),
            Next::Prepared { spec } if want.is_gone() || spec != self.wish.spec_of(number) => {
                actions.push(Action::Discard {
                    service,
                    slot: number,
                });
            }
            Next::Prepared { .. } => {
                // The kernel must know the new generation before anything listens: flows of the
                // backend before it are dead, and outsiders stay off the port. Of a spare it knows
                // nothing.
                let known = slot
                    .kernel
                    .is_some_and(|kernel| kernel.generation == slot.generation);
                if known || number >= FIRST_SPARE {
                    actions.push(Action::Start {
                        service,
                        slot: number,
                    });
                }
            }
            Next::Creating | Next::Starting | Next::Discarding => {}
        }
    }
}
