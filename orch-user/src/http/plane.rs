//! The data plane with the gateway in it: services in mode http have their rings and counts there,
//! all others in the kernel alone. The controller notices no difference.

use std::{collections::BTreeMap, net::SocketAddr, os::fd::OwnedFd};

use orch_common::{
    event::{Event, EventKind},
    hold::{HeldSyn, Release},
    latency::Histogram,
    slot::{SlotKey, SlotState},
};

use super::{
    keeper::Keeper,
    wire::{Report, ServiceTable, SlotReport, SlotTable, Table},
};
use crate::{
    config::{Mode, ServiceConfig},
    dataplane::{Bridge, DataplaneError, HoldTerms, Injected, Reach, Reading, SlotEntry},
    reconcile::{Outcome, Tables},
};

/// A data plane, and the gateway beside it.
pub struct Plane<T> {
    kernel: T,
    keeper: Keeper,
    table: Table,
    /// Place of each service in the table, by its index; `None` for mode tcp.
    places: Vec<Option<usize>>,
    /// What slots are suspected of, as far as it was told.
    told: BTreeMap<SlotKey, EventKind>,
}

impl<T: Tables> Plane<T> {
    /// Takes over what a gateway that runs goes by.
    pub fn new(kernel: T, keeper: Keeper) -> Self {
        Self {
            kernel,
            table: keeper.table(),
            keeper,
            places: Vec::new(),
            told: BTreeMap::new(),
        }
    }

    /// What the gateway suspects a slot of, unless it had not heard of its last pardon yet.
    fn suspicion(&self, key: SlotKey, report: &SlotReport) -> Option<EventKind> {
        let mut slots = self.named(key.service)?.slots.iter();
        let slot = slots.find(|slot| slot.slot == key.slot)?;
        let current = slot.pardons == report.pardons;
        EventKind::from_number(report.passed_by).filter(|_| current)
    }

    /// What the gateway last said of each slot.
    fn reports(&self) -> Vec<(SlotKey, SlotReport)> {
        let last = self.keeper.last();
        let indexed = (0..).zip(&self.places);
        let services = indexed.filter_map(|(index, place)| {
            let name = &self.table.services.get((*place)?)?.name;
            let report = last.services.iter().find(|one| one.name == *name)?;
            Some((index, report))
        });
        let slots = services.flat_map(|(service, report)| {
            let slots = report.slots.iter();
            slots.map(move |slot| {
                let key = SlotKey {
                    service,
                    slot: slot.slot,
                };
                (key, slot.clone())
            })
        });
        slots.collect()
    }

    fn place(&mut self, service: u16) -> Option<&mut ServiceTable> {
        let place = (*self.places.get(usize::from(service))?)?;
        self.table.services.get_mut(place)
    }

    fn named(&self, service: u16) -> Option<&ServiceTable> {
        let place = (*self.places.get(usize::from(service))?)?;
        self.table.services.get(place)
    }

    /// Tells the gateway, if anything is to be told.
    fn tell(&mut self, before: &Table) -> Outcome<()> {
        if *before == self.table {
            return Ok(());
        }
        let told = self.keeper.set(self.table.clone());
        told.map_err(|source| DataplaneError::Gateway { source })
    }

    /// Changes a service of the gateway; others are not its business.
    fn change(&mut self, service: u16, change: impl FnOnce(&mut ServiceTable)) -> Outcome<()> {
        let before = self.table.clone();
        if let Some(table) = self.place(service) {
            change(table);
        }
        self.tell(&before)
    }

    /// A service as it goes on: with the slots that the gateway has, or else the kernel.
    fn service_table(
        &self,
        index: usize,
        config: &ServiceConfig,
        reading: &Reading,
    ) -> ServiceTable {
        let mut services = self.table.services.iter();
        let before = services.find(|one| one.name == config.name);
        let (ring, slots) = match before {
            Some(before) => (before.ring.clone(), before.slots.clone()),
            None => slots_of(index as u16, config, reading),
        };
        ServiceTable {
            name: config.name.clone(),
            listen: config.listen,
            closed: before.is_some_and(|before| before.closed),
            http: config.http.clone(),
            count: config.count.clone(),
            ring,
            slots,
        }
    }

    fn merge(&self, reading: &mut Reading, report: &Report) {
        for slot in &mut reading.slots {
            let Some(service) = self.named(slot.key.service) else {
                continue;
            };
            let Some(counts) = report.slot(&service.name, slot.key.slot) else {
                continue;
            };
            slot.counters += counts.counts.counters();
            slot.bytes += counts.counts.bytes();
            if counts.generation == slot.generation {
                slot.live += counts.live;
                // Each of them has a request in it.
                slot.in_flight += counts.live;
                slot.passed_by = self.suspicion(slot.key, counts).or(slot.passed_by);
            }
        }
    }
}

/// What the kernel knows of the slots of a service that no gateway knows.
fn slots_of(index: u16, config: &ServiceConfig, reading: &Reading) -> (Vec<u16>, Vec<SlotTable>) {
    let number = |slot: u16| config.start_port.saturating_add(slot);
    let known = reading.slots.iter().filter_map(|slot| {
        let ours = slot.key.service == index && slot.port == number(slot.key.slot);
        let table = SlotTable {
            slot: slot.key.slot,
            address: slot.address?,
            generation: slot.generation,
            direct: false,
            pardons: 0,
        };
        ours.then_some((slot.state, table))
    });
    let known: Vec<_> = known.collect();
    let ready = known.iter().filter(|(state, _)| *state == SlotState::Ready);
    let ring = ready.map(|(_, slot)| slot.slot).collect();
    (ring, known.into_iter().map(|(_, slot)| slot).collect())
}

impl<T: Tables> Tables for Plane<T> {
    fn set_services(&mut self, services: &[ServiceConfig]) -> Outcome<()> {
        let reading = self.kernel.read()?;
        self.kernel.set_services(services)?;
        let mut places = Vec::new();
        let mut tables = Vec::new();
        for (index, config) in services.iter().enumerate() {
            places.push((config.mode == Mode::Http).then_some(tables.len()));
            if config.mode == Mode::Http {
                tables.push(self.service_table(index, config, &reading));
            }
        }
        let before = std::mem::replace(&mut self.table.services, tables);
        self.places = places;
        self.table.relay = self.kernel.relay(!self.table.services.is_empty())?;
        if before.is_empty() && self.table.services.is_empty() {
            return Ok(());
        }
        // Told in any case: a new controller may be a new version.
        let told = self.keeper.set(self.table.clone());
        told.map_err(|source| DataplaneError::Gateway { source })
    }

    fn retire(&mut self, service: u16, leaving: bool) -> Outcome<()> {
        self.kernel.retire(service, leaving)?;
        self.change(service, |table| table.closed = leaving)
    }

    fn set_slot(&mut self, key: SlotKey, entry: &SlotEntry) -> Outcome<()> {
        self.kernel.set_slot(key, entry)?;
        let before = self.named(key.service).and_then(|service| {
            let mut slots = service.slots.iter();
            slots.find(|slot| slot.slot == key.slot)
        });
        let pardons = before.map_or(0, |before| before.pardons);
        // The kernel forgets its suspicions with this call, too.
        let pardoned = entry.state == SlotState::Ready && self.told.remove(&key).is_some();
        let new = SlotTable {
            slot: key.slot,
            address: entry.address,
            generation: entry.generation,
            direct: matches!(entry.reach, Reach::Direct { .. }),
            pardons: pardons.wrapping_add(pardoned.into()),
        };
        self.change(key.service, |table| {
            table.slots.retain(|slot| slot.slot != key.slot);
            table.slots.push(new);
            table.slots.sort_unstable_by_key(|slot| slot.slot);
        })
    }

    fn prepare(&mut self, reach: &Reach, address: SocketAddr) -> Outcome<()> {
        self.kernel.prepare(reach, address)
    }

    fn remove_slot(&mut self, key: SlotKey) -> Outcome<()> {
        self.kernel.remove_slot(key)?;
        self.change(key.service, |table| {
            table.ring.retain(|slot| *slot != key.slot);
            table.slots.retain(|slot| slot.slot != key.slot);
        })
    }

    fn set_ring(&mut self, service: u16, slots: &[u16]) -> Outcome<()> {
        self.kernel.set_ring(service, slots)?;
        self.change(service, |table| table.ring = slots.to_vec())
    }

    fn ring(&self, service: u16) -> Vec<u16> {
        self.kernel.ring(service)
    }

    fn set_shares(&mut self, service: u16, shares: &BTreeMap<u16, u8>) -> Outcome<()> {
        self.kernel.set_shares(service, shares)
    }

    fn read(&self) -> Outcome<Reading> {
        let mut reading = self.kernel.read()?;
        if !self.table.services.is_empty() {
            let report = self.keeper.read();
            let report = report.map_err(|source| DataplaneError::Gateway { source })?;
            self.merge(&mut reading, &report);
        }
        Ok(reading)
    }

    fn latency(&self, key: SlotKey) -> Outcome<Histogram> {
        let Some(service) = self.named(key.service) else {
            return self.kernel.latency(key);
        };
        let report = self.keeper.last();
        let slot = report.slot(&service.name, key.slot);
        Ok(slot.map_or_else(Histogram::default, |slot| slot.counts.histogram()))
    }

    fn sync_host(&mut self) -> Outcome<Vec<String>> {
        self.kernel.sync_host()
    }

    fn bridges(&self) -> &[Bridge] {
        self.kernel.bridges()
    }

    fn link_bell(&self) -> Option<OwnedFd> {
        self.kernel.link_bell()
    }

    fn hear(&mut self) -> Outcome<bool> {
        self.kernel.hear()
    }

    fn cut_off(&self) -> Vec<SlotKey> {
        self.kernel.cut_off()
    }

    fn sweep(&mut self) -> Outcome<u64> {
        self.kernel.sweep()
    }

    fn alarms(&mut self) -> Vec<Event> {
        let mut alarms = self.kernel.alarms();
        let mut told = BTreeMap::new();
        for (slot, report) in self.reports() {
            let mut tell = |kind| {
                alarms.push(Event {
                    kind,
                    slot,
                    generation: report.generation,
                });
            };
            if report.refused {
                tell(EventKind::Refused);
            }
            if let Some(kind) = self.suspicion(slot, &report) {
                if self.told.get(&slot) != Some(&kind) {
                    tell(kind);
                }
                told.insert(slot, kind);
            }
        }
        self.told = told;
        alarms
    }

    fn bell(&self) -> Option<OwnedFd> {
        self.kernel.bell()
    }

    fn held(&mut self) -> Vec<HeldSyn> {
        self.kernel.held()
    }

    fn replay(&mut self) -> Outcome<u32> {
        self.kernel.replay()
    }

    fn hold_bell(&self) -> Option<OwnedFd> {
        self.kernel.hold_bell()
    }

    fn set_holding(&mut self, service: u16, terms: Option<HoldTerms>) -> Outcome<()> {
        self.kernel.set_holding(service, terms)
    }

    fn inject(&mut self, ifindex: u32, frame: &[u8], release: Release) -> Outcome<Injected> {
        self.kernel.inject(ifindex, frame, release)
    }

    fn wait_bell(&self) -> Option<OwnedFd> {
        self.keeper.bell()
    }

    fn waiting(&self, service: u16) -> u64 {
        let report = self.keeper.last();
        let name = self.named(service).map(|service| &service.name);
        let mut services = report.services.iter();
        let told = services.find(|one| Some(&one.name) == name);
        told.map_or(0, |one| one.waiting)
    }

    fn detach(self) -> Outcome<()> {
        self.keeper.end();
        self.kernel.detach()
    }
}
