//! Sockets of this host whose backend has ended between their choice and their SYN: nobody can send them
//! elsewhere any more, so the controller answers in its place.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use orch_common::{hold::HeldSyn, slot::SlotKey};
use tokio::time::sleep;

use super::{Controller, Event, tables::Tables};
use crate::{
    dataplane::is_interface,
    hold::stand_in::{self, StandIn},
    state::Moment,
};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// How long one waits at the most: with the first repetition the host asks for the backend's link address,
/// and gives up after three seconds (arp(7): `mcast_solicit`, a second each).
const FUTILE: Moment = Moment::from_secs(5);
/// How long an address is kept that nobody uses: who comes has come in that time.
const IDLE: Moment = Moment::from_secs(1);
/// How long it is kept at the most: some day it is another container's.
const LONGEST: Moment = Moment::from_mins(1);

/// Who waits for a backend that is gone, and where one answers for it.
#[derive(Default)]
pub(super) struct Orphans {
    waiting: Vec<Orphan>,
    stand_ins: BTreeMap<SocketAddr, Stay>,
    /// A look is due.
    looking: bool,
}

struct Orphan {
    syn: HeldSyn,
    since: Moment,
}

struct Stay {
    since: Moment,
    stand_in: StandIn,
}

impl Orphans {
    /// How many wait for a service.
    pub(super) fn waiting(&self, service: u16) -> usize {
        let ours = |orphan: &&Orphan| orphan.syn.service == service;
        self.waiting.iter().filter(ours).count()
    }
}

impl<T: Tables> Controller<T> {
    /// The kernel has kept a refusal from a socket.
    pub(super) fn take_orphan(&mut self, syn: HeldSyn) {
        let since = self.now();
        let hosted = self.services.get(usize::from(syn.service));
        let limit = hosted.map_or(0, |hosted| hosted.config.hold_limit);
        let orphans = &mut self.holds.orphans;
        let known = |orphan: &Orphan| (orphan.syn.key, orphan.syn.seq) == (syn.key, syn.seq);
        if orphans.waiting.len() < limit as usize && !orphans.waiting.iter().any(known) {
            orphans.waiting.push(Orphan { syn, since });
            self.look_again();
        }
    }

    fn look_again(&mut self) {
        let orphans = &mut self.holds.orphans;
        if orphans.looking || orphans.waiting.is_empty() {
            return;
        }
        orphans.looking = true;
        let report = self.report.clone();
        tokio::spawn(async move {
            sleep(LOOK).await;
            let _ = report.send(Event::Orphans);
        });
    }

    /// Answers those whose backend has gone for good.
    pub(super) fn mind_orphans(&mut self) {
        self.holds.orphans.looking = false;
        if self.holds.orphans.waiting.is_empty() {
            return;
        }
        // An engine takes the interface away before it tells of the end.
        self.read_counts(self.now());
        for orphan in std::mem::take(&mut self.holds.orphans.waiting) {
            if !self.help(&orphan) {
                self.holds.orphans.waiting.push(orphan);
            }
        }
        self.look_again();
    }

    /// Says whether there is nothing more to do for this one.
    fn help(&mut self, orphan: &Orphan) -> bool {
        let Orphan { syn, since } = orphan;
        let hosted = self.services.get(usize::from(syn.service));
        let hold = hosted.map_or(Duration::ZERO, |hosted| hosted.config.hold);
        // By then it has heard from its own kernel that nobody is there.
        if self.now() >= *since + hold.min(FUTILE) || self.refuses(syn.service) {
            return true;
        }
        // What a backend still says to others on this host must not be lost.
        if is_interface(syn.ifindex) {
            return false;
        }
        if !self.is_served(syn.service) {
            return false;
        }
        let backend = stand_in::backend(syn);
        let answered = match self.service_at(backend) {
            // The next copy often gets the address of the one before.
            Some((service, true)) if service == syn.service => true,
            Some(_) => return false,
            None => self.stand_in(syn.service, backend),
        };
        if answered && let Err(error) = stand_in::send_again(syn) {
            log::debug!("a SYN to {backend} is left to its socket: {error}");
        }
        true
    }

    /// Whose backend lives at this address, and whether it listens at this port and is in the ring.
    fn service_at(&self, address: SocketAddr) -> Option<(u16, bool)> {
        for (service, seen) in (0..).zip(&self.observed.services) {
            for (slot, state) in &seen.slots {
                let current = state.current.as_ref().filter(|one| one.fault.is_none());
                if let Some(current) = current.filter(|one| one.address.ip() == address.ip()) {
                    let key = SlotKey {
                        service,
                        slot: *slot,
                    };
                    let ring = seen.ring.as_ref();
                    let ready = ring.is_some_and(|ring| ring.contains(slot))
                        && !self.suspects.contains_key(&key);
                    return Some((service, ready && current.address == address));
                }
            }
        }
        None
    }

    /// Says whether somebody answers for this backend.
    fn stand_in(&mut self, service: u16, backend: SocketAddr) -> bool {
        if self.holds.orphans.stand_ins.contains_key(&backend) {
            return true;
        }
        let since = self.now();
        let report = self.report.clone();
        let tell = move || {
            let _ = report.send(Event::Waits(service));
        };
        let Some(porch) = self.holds.porches.get(&service) else {
            return false;
        };
        match StandIn::open(&self.config.dataplane.pin_dir, backend, porch, tell) {
            Ok(stand_in) => {
                let stay = Stay { since, stand_in };
                self.holds.orphans.stand_ins.insert(backend, stay);
                true
            }
            Err(error) => {
                log::warn!("sockets that wait for {backend} are left to themselves: {error}");
                false
            }
        }
    }

    /// Gives up the addresses that nobody needs any more.
    pub(super) fn mind_stand_ins(&mut self) {
        let now = self.now();
        self.holds.orphans.stand_ins.retain(|_, stay| {
            let used = now < stay.since + IDLE || !stay.stand_in.is_idle();
            used && now < stay.since + LONGEST
        });
    }

    /// A new backend has this address: whoever still talks to an earlier one there is cut off.
    pub(super) fn make_room(&mut self, address: IpAddr) {
        let stand_ins = &mut self.holds.orphans.stand_ins;
        stand_ins.retain(|backend, _| backend.ip() != address);
    }
}
