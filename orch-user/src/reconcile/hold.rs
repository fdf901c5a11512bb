//! Connections that wait for a backend: taken from the kernel, a copy started where nothing runs,
//! and sent on once one is ready.

use std::{collections::BTreeMap, time::Duration};

use orch_common::{
    hold::{HeldSyn, OF_SOCKET, REMEMBERED, Release},
    slot::SlotKey,
};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Controller, Event, orphan::Orphans, tables::Tables};
use crate::{
    dataplane::HoldTerms,
    hold::{Parked, Taken, frame, porch::Porch},
    state::FIRST_SPARE,
};

/// SYNs sent on at a time: no more than fit the shortest usual queue of a listener.
const BATCH: usize = 64;
/// Between two batches, for the backend to take the first from its queue.
const PACE: Duration = Duration::from_millis(2);
/// When SYNs are looked for that went to a backend which has died: its network goes a little later
/// than its process. Each time later than the kernel takes a SYN for lost.
const REPLAYS: [Duration; 2] = [Duration::from_millis(40), Duration::from_millis(150)];

/// What waits, and on which terms.
#[derive(Default)]
pub(super) struct Holds {
    parked: Parked,
    pub(super) porches: BTreeMap<u16, Porch>,
    pub(super) orphans: Orphans,
    /// What the kernel was told last.
    pub(super) told: BTreeMap<u16, Option<HoldTerms>>,
    /// A batch was sent on a moment ago.
    paced: bool,
}

impl Holds {
    /// How many wait for a service.
    pub(super) fn waiting(&self, service: u16) -> usize {
        let porch = self.porches.get(&service);
        let at_porch = porch.map_or(0, Porch::waiting);
        self.parked.waiting(service) + self.orphans.waiting(service) + at_porch
    }
}

impl<T: Tables> Controller<T> {
    /// The kernel holds SYNs.
    pub(super) fn take_held(&mut self) {
        let held = self.tables.held();
        if held.is_empty() {
            return;
        }
        let mut services: Vec<_> = held.iter().map(|syn| syn.service).collect();
        for syn in held {
            self.park(syn);
        }
        services.sort_unstable();
        services.dedup();
        for service in services {
            self.somebody_waits(service);
        }
        // There may be more: the kernel rings once until all are taken.
        let _ = self.report.send(Event::Held);
    }

    /// A backend has died: has its SYNs that are without an answer looked for, soon.
    pub(super) fn replay_soon(&self) {
        let report = self.report.clone();
        tokio::spawn(async move {
            let begun = Instant::now();
            for after in REPLAYS {
                sleep_until(begun + after).await;
                if report.send(Event::Replay).is_err() {
                    return;
                }
            }
        });
    }

    pub(super) fn replay(&mut self) {
        match self.tables.replay() {
            Ok(0) => {}
            Ok(_) => self.take_held(),
            Err(error) => self.troubled(&error),
        }
    }

    fn park(&mut self, syn: HeldSyn) {
        if syn.len == OF_SOCKET {
            return self.take_orphan(syn);
        }
        // One that went to a backend already need not wait where there is another.
        if syn.len == REMEMBERED && self.is_served(syn.service) {
            return self.send_on(&syn, Release::Replay);
        }
        let now = self.now();
        let limit = self.services.get(usize::from(syn.service));
        let limit = limit.map_or(0, |hosted| hosted.config.hold_limit);
        if self.holds.parked.take(syn, now, limit) == Taken::Full {
            self.send_on(&syn, Release::Forget);
        }
    }

    /// How many connections or requests wait for a copy of the service.
    pub(super) fn waiting(&self, service: u16) -> u64 {
        self.holds.waiting(service) as u64 + self.tables.waiting(service)
    }

    /// What else a tick would see.
    pub(super) fn gateway_rang(&mut self) {
        self.read_counts(self.now());
        self.suspect();
        self.mind_the_gateway();
    }

    /// Looks whether requests wait at the gateway. Called after the counts were read.
    pub(super) fn mind_the_gateway(&mut self) {
        for service in 0..self.services.len() as u16 {
            if self.tables.waiting(service) > 0 && !self.is_served(service) {
                self.somebody_waits(service);
            }
        }
    }

    /// Starts a copy where none is wanted, and looks out for the one that starts.
    pub(super) fn somebody_waits(&mut self, service: u16) {
        let now = self.now();
        self.dirty = true;
        let Some(hosted) = self.services.get_mut(usize::from(service)) else {
            return;
        };
        hosted.rest.touch(now);
        let ends = self.closing.is_some() || hosted.leaving;
        if !ends && let Some(decision) = hosted.policy.wake(now) {
            self.decided(usize::from(service), decision);
        }
        self.probe_eagerly(service);
    }

    /// Probes a copy that starts as often as is good for those who wait for it.
    fn probe_eagerly(&mut self, service: u16) {
        let Some(seen) = self.observed.services.get(usize::from(service)) else {
            return;
        };
        let slots = seen.slots.range(..FIRST_SPARE).filter(|(_, slot)| {
            let current = slot.current.as_ref();
            current.is_some_and(|one| one.fault.is_none() && one.health.since.is_none())
        });
        let keys: Vec<_> = slots
            .map(|(slot, _)| SlotKey {
                service,
                slot: *slot,
            })
            .collect();
        for key in keys {
            if self.probes.contains_key(&key) && !self.eager.contains(&key) {
                self.begin_probing(key, true);
            }
        }
    }

    /// A slot of the service takes connections from now on.
    pub(super) fn can_go(&mut self, service: u16) {
        let now = self.now();
        self.take_held();
        self.holds.parked.ready(service, now);
        if let Some(porch) = self.holds.porches.get(&service) {
            porch.ready();
        }
    }

    /// Ends the waiting of those whose time has come, in one way or the other.
    pub(super) fn release(&mut self) {
        let now = self.now();
        for service in 0..self.services.len() as u16 {
            self.tell_terms(service, false);
            self.mind_the_door(service);
            let Some(hosted) = self.services.get(usize::from(service)) else {
                return;
            };
            let hold = hosted.config.hold;
            let refuses = self.refuses(service);
            if refuses && let Some(porch) = self.holds.porches.get(&service) {
                porch.refuse();
            }
            while let Some(syn) = if refuses {
                self.holds.parked.any(service)
            } else {
                self.holds.parked.overdue(service, now, hold)
            } {
                self.send_on(&syn, Release::LetGo);
            }
        }
        if self.holds.paced {
            return;
        }
        for _ in 0..BATCH {
            let Some(syn) = self.holds.parked.take_due() else {
                return;
            };
            let release = if syn.len == REMEMBERED {
                Release::Replay
            } else {
                Release::Arrive
            };
            self.send_on(&syn, release);
        }
        if self.holds.parked.has_due() {
            self.holds.paced = true;
            let report = self.report.clone();
            tokio::spawn(async move {
                sleep(PACE).await;
                let _ = report.send(Event::Pace);
            });
        }
    }

    /// The next batch may go.
    pub(super) fn paced(&mut self) {
        self.holds.paced = false;
    }

    /// Tries again with those that wait although there is somebody: what the kernel thought of him
    /// may have been wrong. Called at every tick.
    pub(super) fn retry_held(&mut self) {
        self.take_held();
        for service in 0..self.services.len() as u16 {
            let waits = self.holds.parked.oldest(service);
            if waits.is_some() && self.is_served(service) {
                let now = self.now();
                self.holds.parked.ready(service, now);
            }
            self.remember_the_waiting(service);
        }
    }

    /// Wants a copy for those who wait, where the policy has just forgotten them.
    pub(super) fn remember_the_waiting(&mut self, service: u16) {
        if self.holds.waiting(service) > 0 && !self.is_served(service) {
            self.somebody_waits(service);
        }
    }

    pub(super) fn is_served(&self, service: u16) -> bool {
        let seen = self.observed.services.get(usize::from(service));
        let ring = seen.and_then(|seen| seen.ring.as_ref());
        ring.is_some_and(|ring| {
            let mut slots = ring.iter().map(|slot| SlotKey {
                service,
                slot: *slot,
            });
            slots.any(|key| !self.suspects.contains_key(&key))
        })
    }

    fn send_on(&mut self, syn: &HeldSyn, release: Release) {
        self.dirty = true;
        let (frame, release) = match frame::of(syn) {
            Some(frame) => (frame, release),
            // It was damaged on its way.
            None => (syn.bytes().to_vec(), Release::Forget),
        };
        if let Err(error) = self.tables.inject(syn.ifindex, &frame, release) {
            self.troubled(&error);
        }
    }

    /// The end of a controller that leaves all as it is: what waits is handed back to the kernel,
    /// which keeps it for the next one.
    pub(super) fn hand_back(&mut self) {
        for service in 0..self.services.len() as u16 {
            while let Some(syn) = self.holds.parked.any(service) {
                self.send_on(&syn, Release::Arrive);
            }
            // Nobody accepts at the controller's own port any more.
            let terms = self.terms(service).map(|terms| HoldTerms {
                listener: None,
                bridge_listener: None,
                ..terms
            });
            if let Err(error) = self.tables.set_holding(service, terms) {
                self.troubled(&error);
            }
        }
    }
}
