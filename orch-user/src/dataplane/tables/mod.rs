//! The maps that the controller writes, typed.

mod counters;
mod paths;
mod ports;
mod ring;

use std::collections::{BTreeMap, BTreeSet};

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuHashMap},
};
use orch_common::{
    address::{ANY_V4, ANY_V6, Address},
    counter::{Bytes, SlotCounters},
    latency::Histogram,
    layout::map,
    service::{Balance, ListenerKey, Maglev, PathKey, PathRule, Port, Ring, RingKey, Service},
    slot::SlotKey,
};

use self::{paths::counting, ports::first_slot_port};
use super::{DataplaneError, host::to_address};
use crate::config::{Listen, Mode, ServiceConfig};

/// The maps that the controller writes.
pub(super) struct Tables {
    services: HashMap<MapData, u32, Service>,
    listeners: HashMap<MapData, ListenerKey, u32>,
    ring: HashMap<MapData, RingKey, Ring>,
    maglev: HashMap<MapData, RingKey, Maglev>,
    ports: Array<MapData, Port>,
    socket_ports: Array<MapData, u64>,
    addresses: HashMap<MapData, Address, u32>,
    paths: LpmTrie<MapData, PathKey, PathRule>,
    counters: PerCpuHashMap<MapData, SlotKey, SlotCounters>,
    bytes: PerCpuArray<MapData, Bytes>,
    latency: HashMap<MapData, SlotKey, Histogram>,
    /// What `ports` holds, so that a change writes no more than what changes.
    known_ports: BTreeMap<u16, Port>,
    /// Ports on which backends listen at addresses of their own. They are never forgotten: a
    /// connection may outlive the backend's place in a slot.
    backend_ports: BTreeSet<u16>,
    /// How each service's slots are chosen.
    choices: Vec<Choice>,
    /// Per service, the slots that have less than their whole share.
    shares: BTreeMap<u16, BTreeMap<u16, u8>>,
}

/// How the slots of a service are chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Choice {
    balance: Balance,
    /// By slot; 1 for those behind its end.
    weights: Vec<u8>,
    /// Whether it is the kernel that chooses.
    in_kernel: bool,
}

/// Indices of `known`, each with the port of its first slot, at which another service is to be. A
/// service is known by the ports of its slots: that is where its copies are. Where its clients come
/// may change under them.
pub(crate) fn outdated(
    known: impl IntoIterator<Item = (u16, Option<u16>)>,
    services: &[ServiceConfig],
) -> Vec<u16> {
    let another = |(index, port): &(u16, Option<u16>)| {
        let wanted = services.get(usize::from(*index));
        wanted.map(|service| service.start_port) != *port
    };
    let known = known.into_iter().filter(another);
    known.map(|(index, _)| index).collect()
}

/// Takes a map out of the loaded object.
pub(super) fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, DataplaneError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = ebpf
        .take_map(name)
        .ok_or(DataplaneError::Missing { name })?;
    M::try_from(map).map_err(DataplaneError::map(name))
}

impl Tables {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, DataplaneError> {
        let mut tables = Self {
            services: take(ebpf, map::SERVICES)?,
            listeners: take(ebpf, map::LISTENERS)?,
            ring: take(ebpf, map::RING)?,
            maglev: take(ebpf, map::MAGLEV)?,
            ports: take(ebpf, map::PORTS)?,
            socket_ports: take(ebpf, map::SOCKET_PORTS)?,
            addresses: take(ebpf, map::ADDRESSES)?,
            paths: take(ebpf, map::PATHS)?,
            counters: take(ebpf, map::COUNTERS)?,
            bytes: take(ebpf, map::BYTES)?,
            latency: take(ebpf, map::LATENCY)?,
            known_ports: BTreeMap::new(),
            backend_ports: BTreeSet::new(),
            choices: Vec::new(),
            shares: BTreeMap::new(),
        };
        if tables.services.keys().next().is_some() {
            tables.read_ports()?;
        }
        Ok(tables)
    }

    /// Indices at which the kernel has slots of another service than this list, or of none.
    pub(super) fn outdated(&self, services: &[ServiceConfig]) -> Vec<u16> {
        let known = self.services.keys().flatten().map(|index| index as u16);
        let known = known.map(|index| (index, first_slot_port(&self.known_ports, index)));
        outdated(known, services)
    }

    /// Removes a service; its slots go before.
    pub(super) fn remove_service(&mut self, index: u16) -> Result<(), DataplaneError> {
        for generation in 0..orch_common::layout::RING_BANKS as u32 {
            // Banks that were never used are not there.
            let _ = self.ring.remove(&RingKey::new(index, generation));
            let _ = self.maglev.remove(&RingKey::new(index, generation));
        }
        gone(self.services.remove(&u32::from(index)), map::SERVICES)
    }

    /// Writes services, listeners, ports and path rules. What is new comes before what is old
    /// goes, and ports come last: they are what makes a packet ours.
    pub(super) fn set_services(
        &mut self,
        services: &[ServiceConfig],
    ) -> Result<(), DataplaneError> {
        self.set_paths(services)?;
        for (index, service) in services.iter().enumerate() {
            let index = index as u32;
            let ring = self.services.get(&index, 0).map_or(0, |known| known.ring);
            let value = Service {
                ring,
                listen_port: service.listen.port,
                expose_slots: u8::from(service.expose_slots),
                counting: counting(&service.count),
                balance: service.balance,
                pad: [0; 3],
            };
            self.services
                .insert(index, value, 0)
                .map_err(DataplaneError::map(map::SERVICES))?;
        }
        self.set_choices(services)?;
        self.set_listeners(services)?;
        self.set_ports(services)
    }

    /// Notes how slots are chosen; a ring that was made for another way is made anew.
    fn set_choices(&mut self, services: &[ServiceConfig]) -> Result<(), DataplaneError> {
        let wanted = services.iter().map(|service| Choice {
            balance: service.balance,
            weights: service.weights.clone(),
            in_kernel: service.mode == Mode::Tcp,
        });
        let before = std::mem::replace(&mut self.choices, wanted.collect());
        for index in 0..self.choices.len() {
            let slots = self.ring(index as u16);
            if !slots.is_empty() && before.get(index) != self.choices.get(index) {
                self.set_ring(index as u16, &slots)?;
            }
        }
        Ok(())
    }

    fn set_listeners(&mut self, services: &[ServiceConfig]) -> Result<(), DataplaneError> {
        let mut wanted = Vec::new();
        for (index, service) in services.iter().enumerate().filter(in_kernel) {
            wanted.extend(listener_keys(service.listen).map(|key| (key, index as u32)));
        }
        let known: Vec<ListenerKey> = self.listeners.keys().flatten().collect();
        for key in known {
            if !wanted.iter().any(|(other, _)| *other == key) {
                gone(self.listeners.remove(&key), map::LISTENERS)?;
            }
        }
        for (key, index) in wanted {
            self.listeners
                .insert(key, index, 0)
                .map_err(DataplaneError::map(map::LISTENERS))?;
        }
        Ok(())
    }

    /// Whether the kernel balances a service's connections.
    pub(super) fn balances(&self, service: u16) -> bool {
        let choice = self.choices.get(usize::from(service));
        choice.is_some_and(|choice| choice.in_kernel)
    }

    /// Whether every service that the kernel balances has a slot in its ring.
    pub(super) fn all_served(&self) -> bool {
        let services = 0..self.choices.len() as u16;
        let mut balanced = services.filter(|service| self.balances(*service));
        balanced.all(|service| !self.ring(service).is_empty())
    }

    /// Makes the table of local addresses equal to this list.
    pub(super) fn set_addresses(&mut self, wanted: &[Address]) -> Result<(), DataplaneError> {
        let known: Vec<Address> = self.addresses.keys().flatten().collect();
        for address in wanted.iter().filter(|address| !known.contains(address)) {
            self.addresses
                .insert(*address, 1, 0)
                .map_err(DataplaneError::map(map::ADDRESSES))?;
        }
        for address in known.iter().filter(|address| !wanted.contains(address)) {
            gone(self.addresses.remove(address), map::ADDRESSES)?;
        }
        Ok(())
    }
}

/// Removing what is not there is no error.
fn gone(result: Result<(), MapError>, name: &'static str) -> Result<(), DataplaneError> {
    match result {
        Err(MapError::KeyNotFound) | Ok(()) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        Err(source) => Err(DataplaneError::map(name)(source)),
    }
}

/// The listeners of a service: one, or one per family.
fn listener_keys(listen: Listen) -> impl Iterator<Item = ListenerKey> {
    let addresses = match listen.address {
        None => vec![ANY_V4, ANY_V6],
        Some(ip) => vec![to_address(ip)],
    };
    addresses.into_iter().map(move |address| ListenerKey {
        address,
        port: listen.port,
        pad: 0,
    })
}

/// Whether the kernel has the service's port: that of mode http is the gateway's, whose packets the
/// kernel programs leave alone.
fn in_kernel((_, service): &(usize, &ServiceConfig)) -> bool {
    service.mode == Mode::Tcp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_port_listens_on_both_families() {
        let keys: Vec<_> = listener_keys(Listen {
            address: None,
            port: 80,
        })
        .collect();
        assert_eq!(keys.len(), 2);
        assert!(keys.iter().all(|key| key.port == 80));
    }

    #[test]
    fn a_service_is_the_same_wherever_it_listens_and_another_where_its_slots_are_others() {
        let services = |ports: &[(u16, u16)]| {
            let of_one = |(listen, start): &(u16, u16)| {
                format!(
                    "[[service]]\nname = \"s{start}\"\nlisten = \"{listen}\"\nstart_port = {start}\n\
                     backend.image = \"a:b\"\n"
                )
            };
            let text: Vec<String> = ports.iter().map(of_one).collect();
            let config = crate::config::parse("orch.toml", &text.concat());
            config.unwrap().services
        };
        let ports = ports::port_table(&services(&[(80, 8000), (81, 8100)]));
        let known = |index| (index, first_slot_port(&ports, index));
        let none: [u16; 0] = [];
        let gone = |new: &[(u16, u16)]| outdated([0, 1].map(known), &services(new));
        assert_eq!(gone(&[(80, 8000), (81, 8100)]), none);
        assert_eq!(gone(&[(8080, 8000), (81, 8100)]), none);
        assert_eq!(gone(&[(81, 8000), (80, 8100)]), none, "they swap");
        assert_eq!(gone(&[(81, 8100), (80, 8000)]), [0, 1], "another order");
        assert_eq!(gone(&[(80, 8000)]), [1]);
        assert_eq!(gone(&[(80, 8000), (81, 9000)]), [1]);
        assert_eq!(outdated([(0, None)], &services(&[(80, 8000)])), [0]);
    }
}
