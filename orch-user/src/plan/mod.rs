//! The plan: what to do next to get from what is to what should be. Pure: no IO, no clock, and
//! the same arguments give the same list.
//!
//! A plan holds only steps that are allowed *now*. Each order that matters (out of the ring, then
//! drained, then stopped; stopped, then the next one started, where both need the same port; known
//! to the kernel as ready, then in the ring) is kept by not naming the second step before the first is seen to be done. The
//! controller plans again after every change, so a step that failed is simply planned again.

mod roll;
mod slot;
mod spare;
pub mod warmup;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use crate::{
    runtime::BackendId,
    state::{Desired, FIRST_SPARE, KernelSlot, Moment, Observed, ServiceSeen, Wish},
};

/// Something to do. `service` is the service's index, `slot` the slot's number in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell the kernel what a slot does.
    SetSlot {
        /// Index of the service.
        service: u16,
        /// Number of the slot.
        slot: u16,
        /// What it does.
        to: KernelSlot,
    },
    /// Make the kernel forget a slot.
    RemoveSlot {
        /// Index of the service.
        service: u16,
        /// Number of the slot.
        slot: u16,
    },
    /// Swap the ring.
    SetRing {
        /// Index of the service.
        service: u16,
        /// Its slots, ascending.
        slots: Vec<u16>,
    },
    /// Begin to drain a backend that is out of the ring.
    Drain {
        /// Index of the service.
        service: u16,
        /// Number of the slot.
        slot: u16,
        /// Whether it goes because another is wanted in its place.
        changed: bool,
    },
    /// Let a draining backend serve again.
    Resume {
        /// Index of the service.
        service: u16,
        /// Number of the slot.
        slot: u16,
    },
    /// Stop the backend of a slot.
    Stop {
        /// Index of the service.
        service: u16,
        /// Number of the slot.
        slot: u16,
        /// Between SIGTERM and SIGKILL; zero for a backend that failed.
        grace: Duration,
    },
    /// Let the backend of a slot go, so that another can take its place before it is stopped.
    Part {
        /// Index of the service.
        service: u16,
        /// Number of the slot.
        slot: u16,
        /// Between SIGTERM and SIGKILL; zero for a backend that failed.
        grace: Duration,
    },
    /// Put a spare in a slot. What is there makes room, as by [`Action::Part`].
    TakeSpare {
        /// Index of the service.
        service: u16,
        /// Number of the slot.
        slot: u16,
        /// Number of the spare.
        spare: u16,
        /// Between SIGTERM and SIGKILL for the one before.
        grace: Duration,
    },
    /// Take the processor from a spare, or give it back.
    Freeze {
        /// Index of the service.
        service: u16,
        /// Number of the spare.
        spare: u16,
        /// Which of the two.
        frozen: bool,
    },
    /// Prepare the next backend of a slot; needs no free port.
    Create {
        /// Index of the service.
        service: u16,
        /// Number of the slot.
        slot: u16,
    },
    /// Start the prepared backend of a slot.
    Start {
        /// Index of the service.
        service: u16,
        /// Number of the slot.
        slot: u16,
    },
    /// Remove the prepared backend of a slot, which is not wanted any more.
    Discard {
        /// Index of the service.
        service: u16,
        /// Number of the slot.
        slot: u16,
    },
    /// Stop a backend that belongs nowhere.
    StopStray {
        /// Which.
        id: BackendId,
    },
}

/// What a slot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// To be in the ring.
    Serve,
    /// To run and be well, out of the ring.
    Warm,
    /// Nothing.
    Gone,
}

impl Want {
    const fn is_gone(self) -> bool {
        matches!(self, Self::Gone)
    }
}

/// What can be done now.
pub fn plan(desired: &Desired, observed: &Observed, now: Moment) -> Vec<Action> {
    let mut actions = Vec::new();
    let pairs = desired.services.iter().zip(&observed.services);
    for (index, (wish, seen)) in pairs.enumerate() {
        Planner::new(index as u16, wish, seen, now).plan(&mut actions);
    }
    for (id, stray) in &observed.strays {
        if !stray.stopping && now >= stray.retry_at {
            actions.push(Action::StopStray { id: id.clone() });
        }
    }
    actions
}

/// When something becomes possible that is not possible at `now`, if time alone makes it so.
pub fn next_moment(desired: &Desired, observed: &Observed, now: Moment) -> Option<Moment> {
    let pairs = desired.services.iter().zip(&observed.services);
    let slots = pairs.flat_map(|(wish, seen)| {
        let of_slot = move |slot| slot::moments(wish, slot);
        seen.slots.values().flat_map(of_slot)
    });
    let strays = observed.strays.values().map(|stray| stray.retry_at);
    slots.chain(strays).filter(|moment| *moment > now).min()
}

/// Plans one service.
struct Planner<'a> {
    index: u16,
    wish: &'a Wish,
    seen: &'a ServiceSeen,
    now: Moment,
    /// Slots `0..serve` are for the ring: `copies`, and one more where a single copy has to be
    /// replaced although it is well.
    serve: u16,
    /// The slot whose backend is well but has to go for a new one.
    roll: Option<u16>,
    /// Slots that get a spare now, and which.
    taken: BTreeMap<u16, u16>,
}

impl<'a> Planner<'a> {
    fn new(index: u16, wish: &'a Wish, seen: &'a ServiceSeen, now: Moment) -> Self {
        let serve = roll::slots_to_serve(wish, seen);
        let roll = roll::choose(wish, seen, serve);
        let mut planner = Self {
            index,
            wish,
            seen,
            now,
            serve,
            roll,
            taken: BTreeMap::new(),
        };
        planner.taken = planner.hand_out();
        planner
    }

    fn plan(&self, actions: &mut Vec<Action>) {
        let known = self.seen.slots.range(..FIRST_SPARE).map(|(slot, _)| *slot);
        let numbers: BTreeSet<u16> = known.chain(self.wanted()).collect();
        let mut ring = Vec::new();
        for &number in &numbers {
            self.plan_slot(number, actions);
            if self.may_be_in_ring(number) {
                ring.push(number);
            }
        }
        if self.seen.ring.as_ref() != Some(&ring) {
            actions.push(Action::SetRing {
                service: self.index,
                slots: ring,
            });
        }
        self.plan_spares(actions);
    }

    /// Slots that should run.
    fn wanted(&self) -> Range<u16> {
        0..self.serve.max(self.wish.warm)
    }

    fn want(&self, slot: u16) -> Want {
        if slot < self.serve {
            Want::Serve
        } else if slot < self.wish.warm {
            Want::Warm
        } else {
            Want::Gone
        }
    }
}
