//! The maps that the controller writes, typed.

use std::collections::{BTreeMap, BTreeSet};

use aya::{
    Ebpf,
    maps::{
        Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues,
        lpm_trie::Key,
    },
    util::nr_cpus,
};
use orch_common::{
    address::{ANY_V4, ANY_V6, Address},
    counter::{Bytes, SlotCounters},
    flow::Counting,
    latency::Histogram,
    layout::{MAX_SERVICES, PORT_WORDS, PORTS, map},
    select,
    service::{
        Balance, ListenerKey, Maglev, PathKey, PathRule, Port, PortClass, Ring, RingKey, Service,
        Turn,
    },
    slot::SlotKey,
};

use super::{DataplaneError, host::to_address};
use crate::config::{CountConfig, Listen, Mode, ServiceConfig};

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
        };
        if tables.services.keys().next().is_some() {
            tables.read_ports()?;
        }
        Ok(tables)
    }

    /// What an earlier controller has left.
    fn read_ports(&mut self) -> Result<(), DataplaneError> {
        for number in 0..PORTS as u32 {
            let port = self
                .ports
                .get(&number, 0)
                .map_err(DataplaneError::map(map::PORTS))?;
            if port != Port::default() {
                self.known_ports.insert(number as u16, port);
            }
            if port.backend == 1 {
                self.backend_ports.insert(number as u16);
            }
        }
        Ok(())
    }

    /// Indices of services whose kernel entry is for another listening port or for no service at
    /// all: what is kept of them is of no use to the services of this list.
    pub(super) fn outdated(&self, services: &[ServiceConfig]) -> Vec<u16> {
        (0..MAX_SERVICES as u32)
            .filter(|index| {
                let known = self.services.get(index, 0).ok();
                let wanted = services.get(*index as usize);
                known.is_some_and(|known| {
                    wanted.is_none_or(|wanted| wanted.listen.port != known.listen_port)
                })
            })
            .map(|index| index as u16)
            .collect()
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

    fn set_ports(&mut self, services: &[ServiceConfig]) -> Result<(), DataplaneError> {
        let mut wanted = port_table(services);
        for number in &self.backend_ports {
            wanted.entry(*number).or_default().backend = 1;
        }
        let known = std::mem::take(&mut self.known_ports);
        let cleared = known.keys().filter(|number| !wanted.contains_key(number));
        let changed = wanted
            .iter()
            .filter(|(number, port)| known.get(number) != Some(port));
        let nothing = Port::default();
        for (number, port) in cleared.map(|number| (number, &nothing)).chain(changed) {
            self.ports
                .set(u32::from(*number), port, 0)
                .map_err(DataplaneError::map(map::PORTS))?;
        }
        self.known_ports = wanted;
        self.set_socket_ports()
    }

    /// Whether the kernel balances a service's connections.
    pub(super) fn balances(&self, service: u16) -> bool {
        let choice = self.choices.get(usize::from(service));
        choice.is_some_and(|choice| choice.in_kernel)
    }

    /// Writes the words of the slots' ports: their connections are seen at the sockets of this host.
    fn set_socket_ports(&mut self) -> Result<(), DataplaneError> {
        let mut words = [0_u64; PORT_WORDS];
        let of_sockets = |port: &Port| port.class == PortClass::Slot;
        for (number, _) in self.known_ports.iter().filter(|(_, port)| of_sockets(port)) {
            words[usize::from(number >> 6)] |= 1 << (number & 63);
        }
        for (index, word) in (0..).zip(words) {
            if self.socket_ports.get(&index, 0).ok() != Some(word) {
                self.socket_ports
                    .set(index, word, 0)
                    .map_err(DataplaneError::map(map::SOCKET_PORTS))?;
            }
        }
        Ok(())
    }

    /// Notes a port on which a backend listens at an address of its own.
    pub(super) fn set_backend_port(&mut self, number: u16) -> Result<(), DataplaneError> {
        if !self.backend_ports.insert(number) {
            return Ok(());
        }
        let port = self.known_ports.entry(number).or_default();
        port.backend = 1;
        self.ports
            .set(u32::from(number), *port, 0)
            .map_err(DataplaneError::map(map::PORTS))
    }

    fn set_paths(&mut self, services: &[ServiceConfig]) -> Result<(), DataplaneError> {
        let mut wanted = Vec::new();
        for (index, service) in services.iter().enumerate() {
            wanted.extend(path_rules(index as u32, &service.count));
        }
        let known: Vec<Key<PathKey>> = self.paths.keys().flatten().collect();
        for (key, rule) in &wanted {
            self.paths
                .insert(key, rule, 0)
                .map_err(DataplaneError::map(map::PATHS))?;
        }
        for key in known {
            let same = |other: &Key<PathKey>| {
                other.prefix_len() == key.prefix_len() && other.data() == key.data()
            };
            if !wanted.iter().any(|(other, _)| same(other)) {
                gone(self.paths.remove(&key), map::PATHS)?;
            }
        }
        Ok(())
    }

    /// Writes the ring into the bank after the current one, then names it.
    pub(super) fn set_ring(&mut self, service: u16, slots: &[u16]) -> Result<(), DataplaneError> {
        let index = u32::from(service);
        let mut entry = self
            .services
            .get(&index, 0)
            .map_err(DataplaneError::map(map::SERVICES))?;
        let next = entry.ring.wrapping_add(1);
        let key = RingKey::new(service, next);
        let served = self.served(service, slots);
        let ring = match entry.balance {
            // Weights are compared at each choice; everybody is looked at once.
            Balance::LeastConnections => Ring::new(served.iter().copied()),
            Balance::RoundRobin | Balance::SourceIp => Ring::new(select::turns(&served)),
        };
        if entry.balance == Balance::SourceIp
            && let Some(table) = select::maglev(&served)
        {
            self.maglev
                .insert(key, table, 0)
                .map_err(DataplaneError::map(map::MAGLEV))?;
        }
        self.ring
            .insert(key, ring, 0)
            .map_err(DataplaneError::map(map::RING))?;
        entry.ring = next;
        self.services
            .insert(index, entry, 0)
            .map_err(DataplaneError::map(map::SERVICES))
    }

    /// Slots with their weights.
    fn served(&self, service: u16, slots: &[u16]) -> Vec<Turn> {
        let choice = self.choices.get(usize::from(service));
        let weight_of = |slot: u16| {
            let weights = &choice?.weights;
            weights.get(usize::from(slot)).copied()
        };
        let turn = |slot: &u16| Turn {
            slot: *slot as u8,
            weight: weight_of(*slot).unwrap_or(1),
        };
        slots.iter().map(turn).collect()
    }

    /// The slots of the ring in force, each once, in the order of their first turns.
    pub(super) fn ring(&self, service: u16) -> Vec<u16> {
        let ring = self
            .services
            .get(&u32::from(service), 0)
            .and_then(|entry| self.ring.get(&RingKey::new(service, entry.ring), 0));
        let mut slots = Vec::new();
        for turn in ring.iter().flat_map(Ring::turns) {
            let slot = u16::from(turn.slot);
            if !slots.contains(&slot) {
                slots.push(slot);
            }
        }
        slots
    }

    /// Makes sure that a slot has counters; those that are there stay.
    pub(super) fn ensure_counters(&mut self, key: SlotKey) -> Result<(), DataplaneError> {
        const NOEXIST: u64 = 1;
        if self.counters.get(&key, 0).is_err() {
            // Another slot may have had its place.
            self.bytes
                .set(key.index(), on_each_cpu(Bytes::default())?, 0)
                .map_err(DataplaneError::map(map::BYTES))?;
            self.counters
                .insert(key, on_each_cpu(SlotCounters::default())?, NOEXIST)
                .map_err(DataplaneError::map(map::COUNTERS))?;
        }
        if self.latency.get(&key, 0).is_err() {
            self.latency
                .insert(key, Histogram::default(), NOEXIST)
                .map_err(DataplaneError::map(map::LATENCY))?;
        }
        Ok(())
    }

    /// Forgets what a slot has counted.
    pub(super) fn remove_counters(&mut self, key: SlotKey) -> Result<(), DataplaneError> {
        gone(self.counters.remove(&key), map::COUNTERS)?;
        gone(self.latency.remove(&key), map::LATENCY)
    }

    /// Keys of all slots that have counters.
    pub(super) fn counted(&self) -> Vec<SlotKey> {
        self.counters.keys().flatten().collect()
    }

    /// Counters of a slot, over all CPUs.
    pub(super) fn counters(&self, key: SlotKey) -> SlotCounters {
        let mut sum = SlotCounters::default();
        if let Ok(values) = self.counters.get(&key, 0) {
            for value in values.iter() {
                sum += *value;
            }
        }
        sum
    }

    /// Bytes of a slot, over all CPUs.
    pub(super) fn bytes(&self, key: SlotKey) -> Bytes {
        let mut sum = Bytes::default();
        if let Ok(values) = self.bytes.get(&key.index(), 0) {
            for value in values.iter() {
                sum += *value;
            }
        }
        sum
    }

    /// Response times of a slot.
    pub(super) fn latency(&self, key: SlotKey) -> Histogram {
        self.latency.get(&key, 0).unwrap_or_default()
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

/// The same value for each CPU.
fn on_each_cpu<T: aya::Pod>(value: T) -> Result<PerCpuValues<T>, DataplaneError> {
    let cpus = nr_cpus().map_err(|(path, source)| DataplaneError::file(path, source))?;
    PerCpuValues::try_from(vec![value; cpus])
        .map_err(|source| DataplaneError::file("/sys/devices/system/cpu/possible", source))
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

fn counting(count: &CountConfig) -> Counting {
    if count.prefix == "/" && count.exclude.is_empty() {
        Counting::All
    } else {
        Counting::ByPath
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

/// What each port is. Every slot that a service may ever have is guarded, running or not.
fn port_table(services: &[ServiceConfig]) -> BTreeMap<u16, Port> {
    let mut ports = BTreeMap::new();
    for (index, service) in services.iter().enumerate() {
        for slot in 0..service.scale.max {
            let port = Port {
                class: PortClass::Slot,
                slot: slot as u8,
                service: index as u16,
                listen_port: service.listen.port,
                exposed: u8::from(service.expose_slots),
                backend: 0,
            };
            ports.insert(service.start_port + slot, port);
        }
    }
    for (_, service) in services.iter().enumerate().filter(in_kernel) {
        let port = Port {
            class: PortClass::Service,
            ..Port::default()
        };
        ports.insert(service.listen.port, port);
    }
    ports
}

/// Path rules of a service. An excluded path ends at a boundary, so that `/health` does not
/// exclude `/healthy`: one rule for each byte that can follow a path in a request line, and one for
/// a segment that ends with the path.
fn path_rules(service: u32, count: &CountConfig) -> Vec<(Key<PathKey>, PathRule)> {
    let rule = |path: &[u8], rule| {
        let bits = PathKey::SERVICE_BITS + 8 * path.len() as u32;
        (Key::new(bits, PathKey::new(service, path)), rule)
    };
    let prefix = if count.prefix == "/" {
        ""
    } else {
        &count.prefix
    };
    let mut rules = vec![rule(prefix.as_bytes(), PathRule::Count)];
    for path in &count.exclude {
        for follows in [" ", "?", "/", "#", "\0"] {
            let path = format!("{}{follows}", path.trim_end_matches('/'));
            rules.push(rule(path.as_bytes(), PathRule::Exclude));
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusions_end_at_a_boundary() {
        let count = CountConfig {
            prefix: "/api/".to_owned(),
            exclude: vec!["/api/v1/_health".to_owned()],
        };
        let rules = path_rules(3, &count);
        assert_eq!(rules.len(), 6);
        assert_eq!(rules[0].0.prefix_len(), 32 + 8 * 5);
        assert_eq!(rules[1].0.prefix_len(), 32 + 8 * 16);
        assert_eq!(counting(&count), Counting::ByPath);
    }

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
}
