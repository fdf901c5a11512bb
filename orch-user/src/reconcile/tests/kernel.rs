//! A kernel in memory: what was it told, and what does it tell?

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard},
};

use orch_common::{
    counter::{Bytes, Reason, SlotCounters},
    event::{Event, EventKind},
    hold::{HeldSyn, Release},
    latency::Histogram,
    slot::{SlotKey, SlotState},
};

use super::super::tables::{Outcome, Tables};
use crate::{
    config::ServiceConfig,
    dataplane::{
        DataplaneError, HoldTerms, Injected, Reach, Reading, SlotEntry, SlotReading, outdated,
    },
};

/// What the kernel holds.
#[derive(Default)]
pub(super) struct Kernel {
    pub(super) slots: BTreeMap<SlotKey, (SlotEntry, SlotCounters, u64)>,
    pub(super) rings: BTreeMap<u16, Vec<u16>>,
    pub(super) services: Vec<String>,
    /// The first port of each service's slots.
    starts: Vec<u16>,
    /// Every ring there ever was.
    pub(super) ring_log: Vec<(u16, Vec<u16>)>,
    pub(super) detached: bool,
    /// Calls of `set_slot` that were obeyed.
    pub(super) sets: u32,
    pub(super) refuses: bool,
    /// Refuses slots that are to be reached directly, so.
    pub(super) refuses_direct: Option<ErrorKind>,
    /// What it has to tell, at the next tick.
    pub(super) alarms: Vec<Event>,
    /// Slots that picks pass by.
    pub(super) passed_by: BTreeMap<SlotKey, EventKind>,
    /// Connections ever given to slots.
    pub(super) connections: BTreeMap<SlotKey, u64>,
    /// Slots whose interface is gone.
    pub(super) cut_off: Vec<SlotKey>,
    /// SYNs that wait to be taken.
    pub(super) held: Vec<HeldSyn>,
    pub(super) shares: BTreeMap<u16, BTreeMap<u16, u8>>,
    /// On which terms connections wait.
    pub(super) holding: BTreeMap<u16, Option<HoldTerms>>,
    /// What was sent on: by which interface, and how.
    pub(super) injected: Vec<(u32, Release)>,
    /// How often SYNs without an answer were looked for.
    pub(super) replays: u32,
    turn: usize,
}

/// With a service of this name a list of services is taken, and then fails.
pub(super) const BROKEN: &str = "broken";

#[derive(Clone, Default)]
pub(super) struct FakeTables(pub(super) Arc<Mutex<Kernel>>);

impl FakeTables {
    pub(super) fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.0.lock().unwrap()
    }

    /// So many requests, in turns over the ring; returns the slots that answered.
    pub(super) fn request(&self, service: u16, count: usize) -> Vec<u16> {
        let mut kernel = self.kernel();
        let ring = kernel.rings.get(&service).cloned().unwrap_or_default();
        assert!(!ring.is_empty(), "nobody answers");
        (0..count)
            .map(|_| {
                let slot = ring[kernel.turn % ring.len()];
                kernel.turn += 1;
                let key = SlotKey { service, slot };
                let (_, counters, _) = kernel.slots.get_mut(&key).unwrap();
                counters.requests += 1;
                counters.responses[2] += 1;
                slot
            })
            .collect()
    }

    /// The slot answers a SYN with RST.
    pub(super) fn refuse(&self, key: SlotKey, generation: u32) {
        self.alarm(key, generation, EventKind::Refused);
    }

    /// The kernel passes a slot by, and tells.
    pub(super) fn alarm(&self, slot: SlotKey, generation: u32, kind: EventKind) {
        let mut kernel = self.kernel();
        kernel.passed_by.insert(slot, kind);
        kernel.alarms.push(Event {
            kind,
            slot,
            generation,
        });
    }

    pub(super) fn generation(&self, key: SlotKey) -> u32 {
        let kernel = self.kernel();
        kernel.slots.get(&key).map_or(0, |slot| slot.0.generation)
    }

    pub(super) fn set_live(&self, key: SlotKey, live: u64) {
        self.kernel().slots.get_mut(&key).unwrap().2 = live;
    }
}

impl Tables for FakeTables {
    fn set_services(&mut self, services: &[ServiceConfig]) -> Outcome<()> {
        let mut kernel = self.kernel();
        let known = (0..).zip(kernel.starts.iter().copied().map(Some));
        for index in outdated(known, services) {
            kernel.slots.retain(|key, _| key.service != index);
            kernel.rings.remove(&index);
        }
        kernel.services = services.iter().map(|s| s.name.clone()).collect();
        kernel.starts = services.iter().map(|s| s.start_port).collect();
        if services.iter().any(|s| s.name == BROKEN) {
            return Err(DataplaneError::File {
                path: "/etc/ssl/broken.pem".into(),
                source: ErrorKind::InvalidData.into(),
            });
        }
        Ok(())
    }

    fn set_slot(&mut self, key: SlotKey, entry: &SlotEntry) -> Outcome<()> {
        let mut kernel = self.kernel();
        let direct = kernel.refuses_direct.filter(|_| entry.reach != Reach::Port);
        let all = kernel.refuses.then_some(ErrorKind::PermissionDenied);
        if let Some(kind) = all.or(direct) {
            return Err(DataplaneError::File {
                path: "/sys/fs/bpf/orch".into(),
                source: kind.into(),
            });
        }
        kernel.sets += 1;
        if entry.state == SlotState::Ready {
            kernel.passed_by.remove(&key);
        }
        let new = (entry.clone(), SlotCounters::default(), 0);
        kernel.slots.entry(key).or_insert(new).0 = entry.clone();
        Ok(())
    }

    fn prepare(&mut self, _reach: &Reach, _address: SocketAddr) -> Outcome<()> {
        Ok(())
    }

    fn remove_slot(&mut self, key: SlotKey) -> Outcome<()> {
        self.kernel().slots.remove(&key);
        Ok(())
    }

    fn set_ring(&mut self, service: u16, slots: &[u16]) -> Outcome<()> {
        let mut kernel = self.kernel();
        kernel.rings.insert(service, slots.to_vec());
        kernel.ring_log.push((service, slots.to_vec()));
        Ok(())
    }

    fn ring(&self, service: u16) -> Vec<u16> {
        let kernel = self.kernel();
        kernel.rings.get(&service).cloned().unwrap_or_default()
    }

    fn set_shares(&mut self, service: u16, shares: &BTreeMap<u16, u8>) -> Outcome<()> {
        self.kernel().shares.insert(service, shares.clone());
        Ok(())
    }

    fn read(&self) -> Outcome<Reading> {
        let kernel = self.kernel();
        let slots = kernel
            .slots
            .iter()
            .map(|(key, (entry, counters, live))| SlotReading {
                key: *key,
                port: entry.port,
                state: entry.state,
                address: Some(entry.address),
                generation: entry.generation,
                live: *live,
                passed_by: kernel.passed_by.get(key).copied(),
                connections: kernel.connections.get(key).copied().unwrap_or_default(),
                counters: *counters,
                in_flight: 0,
                bytes: Bytes::default(),
            });
        Ok(Reading {
            slots: slots.collect(),
            reasons: [0; Reason::COUNT],
        })
    }

    fn latency(&self, _: SlotKey) -> Outcome<Histogram> {
        Ok(Histogram::default())
    }

    fn sync_host(&mut self) -> Outcome<Vec<String>> {
        Ok(Vec::new())
    }

    fn cut_off(&self) -> Vec<SlotKey> {
        self.kernel().cut_off.clone()
    }

    fn sweep(&mut self) -> Outcome<u64> {
        Ok(0)
    }

    fn alarms(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.kernel().alarms)
    }

    fn bell(&self) -> Option<OwnedFd> {
        None
    }

    fn held(&mut self) -> Vec<HeldSyn> {
        std::mem::take(&mut self.kernel().held)
    }

    fn replay(&mut self) -> Outcome<u32> {
        self.kernel().replays += 1;
        Ok(0)
    }

    fn hold_bell(&self) -> Option<OwnedFd> {
        None
    }

    fn set_holding(&mut self, service: u16, terms: Option<HoldTerms>) -> Outcome<()> {
        self.kernel().holding.insert(service, terms);
        Ok(())
    }

    fn inject(&mut self, ifindex: u32, _: &[u8], release: Release) -> Outcome<Injected> {
        self.kernel().injected.push((ifindex, release));
        Ok(Injected::Arrived)
    }

    fn detach(self) -> Outcome<()> {
        self.kernel().detached = true;
        Ok(())
    }
}
