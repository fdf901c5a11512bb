//! The data plane seen from the controller, and the only user of aya.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, RingBuf},
    programs::{TestRun, TestRunOptions},
};
use orch_common::{
    command::{SlotCommand, Verb},
    counter::{Bytes, Reason, SlotCounters},
    event::{Event, EventKind},
    flow::{Flow, FlowKey},
    latency::Histogram,
    layout::{map, program},
    pulse::Pulse,
    slot::{Owner, Slot, SlotKey, SlotState},
};

use self::{
    attach::Role,
    hold::Hold,
    host::{Interface, to_address},
    open::Parts,
    pin::Pins,
    recount::Recount,
    sockets::Sockets,
    tables::Tables,
    ways::Ways,
};
use crate::config::{DataplaneConfig, Interfaces, ServiceConfig};

mod attach;
mod btf;
mod clsact;
mod error;
mod hold;
mod host;
mod links;
mod load;
mod measure;
mod netns;
mod open;
mod pin;
mod recount;
mod sandbox;
mod signals;
mod sockets;
mod tables;
mod uplinks;
mod ways;

pub use self::{
    attach::{cgroup2_root, has_tcx},
    error::DataplaneError,
    hold::{HoldTerms, Injected},
    measure::{MapMemory, ProgramSize},
    signals::{SignalHook, signal_hook},
};

/// How connections reach a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// At an address of this host: only the port is rewritten.
    #[default]
    Port,
    /// At its own address, past bridge, connection tracking and docker-proxy.
    Direct {
        /// The file of its network namespace, as the engine names it (`SandboxKey`).
        netns: PathBuf,
    },
}

/// A slot as the controller wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotEntry {
    /// Where the backend listens: for [`Reach::Direct`], its own address and port.
    pub address: SocketAddr,
    /// How connections get there.
    pub reach: Reach,
    /// Its first process, as this host numbers it: when that ends, the backend has ended.
    pub pid: Option<u32>,
    /// The slot's port on this host.
    pub port: u16,
    /// What the slot is doing.
    pub state: SlotState,
    /// Raised by one with every new backend of the slot; at least 1.
    pub generation: u32,
}

/// A slot as the kernel has it.
#[derive(Clone, Copy, Debug)]
pub struct SlotReading {
    /// Which.
    pub key: SlotKey,
    /// Its port on this host.
    pub port: u16,
    /// Where its backend listens; `None` for a slot of which only counts are left.
    pub address: Option<SocketAddr>,
    /// What it is doing.
    pub state: SlotState,
    /// Generation of its backend.
    pub generation: u32,
    /// Connections that are open now.
    pub live: u64,
    /// Connections ever given to it.
    pub connections: u64,
    /// Why picks pass it by; `None` while they consider it.
    pub passed_by: Option<EventKind>,
    /// Requests, responses, and connections that failed.
    pub counters: SlotCounters,
    /// Requests that have begun and wait for a response.
    pub in_flight: u64,
    /// Bytes of payload.
    pub bytes: Bytes,
}

/// What the kernel has counted.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Per slot.
    pub slots: Vec<SlotReading>,
    /// Packets by what became of them.
    pub reasons: [u64; Reason::COUNT],
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            reasons: [0; Reason::COUNT],
        }
    }
}

/// What a program made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The TC action.
    pub verdict: i32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// How long the program ran.
    pub duration: Duration,
}

/// The loaded, attached and pinned data plane.
pub struct Dataplane {
    ebpf: Ebpf,
    pins: Pins,
    tables: Tables,
    slots: HashMap<MapData, SlotKey, Slot>,
    reasons: PerCpuArray<MapData, u64>,
    /// What the traffic of slots says.
    pulses: Array<MapData, Pulse>,
    events: RingBuf<MapData>,
    hold: Hold,
    interfaces: Interfaces,
    attached: Vec<(Interface, Role)>,
    /// How backends of delivery `direct` are reached.
    ways: Ways,
    /// Whether the packets of this host's sockets are looked at.
    sockets: Sockets,
    /// First processes of backends: when one ends, picks pass its slot by.
    processes: HashMap<MapData, u32, Owner>,
    /// Those that are in the map.
    pids: BTreeMap<SlotKey, u32>,
    /// Whether some service lets outsiders at its slots: their flows are not counted.
    exposes: bool,
    /// Whether the counts of flows are in doubt.
    recount: Recount,
    /// Flows ever born when a sweep last left none.
    swept: Option<u64>,
}

impl Dataplane {
    /// Loads the kernel programs, or takes over what an earlier controller left pinned, and
    /// attaches them. Mounts the BPF file system if nobody has. Fails if another controller holds
    /// `pin_dir`, if a named interface does not exist, or if the kernel refuses a program; nothing
    /// new stays attached then.
    pub fn open(config: &DataplaneConfig) -> Result<Self, DataplaneError> {
        let fresh = !pin::exist(&config.pin_dir);
        let pins = Pins::open(&config.pin_dir)?;
        let others = Pins::others(&config.pin_dir)?;
        for other in &others {
            log::warn!(
                "{} is of another version with another layout: its programs are replaced in place, \
                 and connections from outside that are open now will be reset",
                other.path().display()
            );
        }
        match Parts::build(config, &pins, &others) {
            Ok(parts) => {
                for other in others {
                    other.remove()?;
                }
                Ok(parts.into_dataplane(pins))
            }
            Err(error) => {
                if fresh && let Err(left) = pins.remove() {
                    log::warn!("{left}");
                }
                Err(error)
            }
        }
    }

    /// Makes the kernel's table of services equal to this list: listeners, ports, path rules. The
    /// index in the list is the service's index. Rings and slots of services that stay are kept;
    /// an index whose listening port changes starts anew.
    pub fn set_services(&mut self, services: &[ServiceConfig]) -> Result<(), DataplaneError> {
        for index in self.tables.outdated(services) {
            for key in self
                .tables
                .counted()
                .into_iter()
                .filter(|key| key.service == index)
            {
                self.remove_slot(key)?;
            }
            self.tables.remove_service(index)?;
        }
        self.exposes = services.iter().any(|service| service.expose_slots);
        self.tables.set_services(services)?;
        self.watch_sockets()
    }

    /// Creates or changes a slot; its counters stay. Connections of an earlier generation are dead.
    /// For [`Reach::Direct`] the backend must run: the way to it is looked for.
    pub fn set_slot(&mut self, key: SlotKey, entry: &SlotEntry) -> Result<(), DataplaneError> {
        self.tables.ensure_counters(key)?;
        let way = self.way(key, entry)?;
        self.reached(key, way.ifindex)?;
        self.command(&SlotCommand {
            verb: Verb::Set as u32,
            key,
            address: to_address(entry.address.ip()),
            port: entry.port,
            backend_port: entry.address.port(),
            state: entry.state as u32,
            generation: entry.generation,
            address6: way.address6,
            ifindex: way.ifindex,
            bridge: way.bridge,
            live: 0,
            waiting: 0,
        })?;
        self.watch_process(key, entry)?;
        if way.ifindex == 0 {
            return self.forget_way(key, None);
        }
        self.forget_way(key, Some((entry.address, way)))
    }

    /// Has the kernel notice when the backend's first process ends. One that has ended already is
    /// the runtime's to tell.
    fn watch_process(&mut self, key: SlotKey, entry: &SlotEntry) -> Result<(), DataplaneError> {
        self.forget_process(key, entry.pid);
        let Some(pid) = entry.pid else {
            return Ok(());
        };
        let owner = Owner {
            slot: key,
            generation: entry.generation,
        };
        self.processes
            .insert(pid, owner, 0)
            .map_err(DataplaneError::map(map::PROCESSES))?;
        self.pids.insert(key, pid);
        Ok(())
    }

    fn forget_process(&mut self, key: SlotKey, but: Option<u32>) {
        if self.pids.get(&key).copied() != but
            && let Some(pid) = self.pids.remove(&key)
        {
            // The kernel has removed it if it has ended.
            let _ = self.processes.remove(&pid);
        }
    }

    /// Forgets a slot and its counters. Its flows are dead from now on.
    pub fn remove_slot(&mut self, key: SlotKey) -> Result<(), DataplaneError> {
        if self.slots.get(&key, 0).is_err() {
            self.no_longer_reached(key)?;
            return self.tables.remove_counters(key);
        }
        self.command(&bare(Verb::Remove, key))?;
        self.forget_process(key, None);
        self.forget_way(key, None)?;
        self.no_longer_reached(key)?;
        self.tables.remove_counters(key)
    }

    fn command(&mut self, command: &SlotCommand) -> Result<(), DataplaneError> {
        let refused = DataplaneError::Slot {
            service: command.key.service,
            slot: command.key.slot,
        };
        match self.run(program::COMMAND, &command.to_frame())? {
            0 => Ok(()),
            _ => Err(refused),
        }
    }

    /// Runs a program once on a frame and gives its answer.
    fn run(&mut self, name: &'static str, frame: &[u8]) -> Result<u32, DataplaneError> {
        let tc = load::classifier(&mut self.ebpf, name)?;
        let options = TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::new()
        };
        let result = tc
            .test_run(options)
            .map_err(DataplaneError::program(name, "test run"))?;
        Ok(result.return_value)
    }

    /// Runs a TC program once on a frame, as if it had come by, without an interface: for packet
    /// tests and measurements. `name` is one of `orch_common::layout::program`.
    pub fn trial(&mut self, name: &'static str, frame: &[u8]) -> Result<Trial, DataplaneError> {
        let mut after = vec![0; frame.len() + 256];
        let tc = load::classifier(&mut self.ebpf, name)?;
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            ..TestRunOptions::new()
        };
        let result = tc
            .test_run(options)
            .map_err(DataplaneError::program(name, "test run"))?;
        after.truncate(result.data_size_out as usize);
        Ok(Trial {
            verdict: result.return_value.cast_signed(),
            frame: after,
            duration: result.duration,
        })
    }

    /// A flow: one from outside, or of a local client to a backend's own address.
    pub fn flow(&self, key: &FlowKey) -> Result<Option<Flow>, DataplaneError> {
        let map = self
            .ebpf
            .map(map::FLOWS)
            .ok_or(DataplaneError::Missing { name: map::FLOWS })?;
        let flows: HashMap<&MapData, FlowKey, Flow> =
            HashMap::try_from(map).map_err(DataplaneError::map(map::FLOWS))?;
        match flows.get(key, 0) {
            Ok(flow) => Ok(Some(flow)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(DataplaneError::map(map::FLOWS)(error)),
        }
    }

    /// Swaps the ring of a service atomically.
    pub fn set_ring(&mut self, service: u16, slots: &[u16]) -> Result<(), DataplaneError> {
        self.tables.set_ring(service, slots)
    }

    /// The slots in the ring of a service: what an earlier controller left, if nothing was set.
    pub fn ring(&self, service: u16) -> Vec<u16> {
        self.tables.ring(service)
    }

    /// Reads slots and counters.
    pub fn read(&self) -> Result<Reading, DataplaneError> {
        let mut reading = Reading::default();
        for key in self.tables.counted() {
            let slot = self.slots.get(&key, 0).ok();
            let pulse = self.pulses.get(&key.index(), 0).ok();
            reading.slots.push(SlotReading {
                key,
                port: slot.map_or(0, |slot| slot.port),
                address: slot.map(|slot| {
                    let ip = Ipv6Addr::from(slot.address).to_canonical();
                    SocketAddr::new(ip, slot.backend_port)
                }),
                generation: slot.map_or(0, |slot| slot.generation),
                state: slot.map_or(SlotState::Failed, |slot| slot.state),
                live: slot.map_or(0, |slot| slot.live),
                passed_by: slot.and_then(|slot| passed_by(&slot, pulse.as_ref())),
                connections: slot.map_or(0, |slot| slot.connections),
                counters: self.tables.counters(key),
                in_flight: slot.and(pulse).map_or(0, |pulse| pulse.in_flight()),
                bytes: self.tables.bytes(key),
            });
        }
        reading.slots.sort_unstable_by_key(|slot| slot.key);
        for (reason, sum) in Reason::ALL.into_iter().zip(&mut reading.reasons) {
            *sum = self.count(reason)?;
        }
        Ok(reading)
    }

    /// Response times of one slot.
    pub fn latency(&self, key: SlotKey) -> Result<Histogram, DataplaneError> {
        Ok(self.tables.latency(key))
    }

    /// Makes the kernel's idea of the host equal to the host: interfaces (attaches new ones, lets
    /// go of those that are gone) and local addresses. Returns a sentence per change. Cheap;
    /// called every second.
    pub fn sync_host(&mut self) -> Result<Vec<String>, DataplaneError> {
        let (attached, sentences) = uplinks::sync(
            &mut self.ebpf,
            &self.pins,
            &mut self.tables,
            &self.interfaces,
            &self.attached,
        )?;
        self.attached = attached;
        self.forget_vanished()?;
        Ok(sentences)
    }

    /// Names of the interfaces that are balanced.
    pub fn uplinks(&self) -> Vec<String> {
        let uplinks = self
            .attached
            .iter()
            .filter(|(_, role)| *role == Role::Uplink);
        uplinks
            .map(|(interface, _)| interface.name.clone())
            .collect()
    }

    /// Frees closed and silent flows; called every `orch_common::flow::SWEEP_SECONDS`. Returns how
    /// many flows are left. Once there were many, it also takes out of the counts those
    /// that a full table has forgotten. Walking an empty table takes milliseconds: while none was
    /// left and none has come since, there is nothing to do.
    pub fn sweep(&mut self) -> Result<u64, DataplaneError> {
        const ANY_FRAME: [u8; 64] = [0; 64];
        let born = self.count(Reason::NewFlow)? + self.count(Reason::LocalConnect)?;
        if self.swept == Some(born) && !self.exposes {
            return Ok(0);
        }
        let before = self.begin_recount();
        let left = self.run(program::SWEEP, &ANY_FRAME).map(u64::from)?;
        self.end_recount(&before, left)?;
        self.swept = (left == 0).then_some(born);
        Ok(left)
    }

    /// How often something has become of a packet.
    fn count(&self, reason: Reason) -> Result<u64, DataplaneError> {
        let cpus = self.reasons.get(&(reason as u32), 0);
        Ok(cpus
            .map_err(DataplaneError::map(map::REASONS))?
            .iter()
            .sum())
    }

    /// Slots that picks pass by since the last call, until [`Self::set_slot`] is called again, and
    /// why. A backend that has ended is the runtime's to tell: a probe could say no more than that.
    pub fn alarms(&mut self) -> Vec<Event> {
        let mut alarms = Vec::new();
        while let Some(record) = self.events.next() {
            let event = Event::from_bytes(&record);
            alarms.extend(event.filter(|event| event.kind != EventKind::Exited));
        }
        alarms
    }

    /// Readable whenever [`Self::alarms`] has something new. `None` if the process has no
    /// descriptor left.
    pub fn bell(&self) -> Option<OwnedFd> {
        self.events.as_fd().try_clone_to_owned().ok()
    }

    /// Detaches everything and removes the pins. Leaves nothing.
    pub fn detach(self) -> Result<(), DataplaneError> {
        attach::remove_filters(&self.pins)?;
        self.pins.remove()
    }

    /// Whether this directory has pins, of a controller that runs or of one that is gone.
    pub fn exists(pin_dir: &Path) -> bool {
        pin::exist(pin_dir)
    }

    /// Removes what a controller that is gone has left: `detach` without loading anything. Fails
    /// if a controller still holds the pins; nothing to remove is no error.
    pub fn remove(pin_dir: &Path) -> Result<(), DataplaneError> {
        let others = Pins::others(pin_dir)?;
        if others.is_empty() && !pin::exist(pin_dir) {
            return Ok(());
        }
        for other in others {
            attach::remove_filters(&other)?;
            other.remove()?;
        }
        let pins = Pins::open(pin_dir)?;
        attach::remove_filters(&pins)?;
        pins.remove()
    }
}

/// A command that needs to know no more than which slot.
fn bare(verb: Verb, key: SlotKey) -> SlotCommand {
    SlotCommand {
        verb: verb as u32,
        key,
        address: to_address(IpAddr::from([0; 4])),
        port: 0,
        backend_port: 0,
        state: 0,
        generation: 0,
        address6: [0; 16],
        ifindex: 0,
        bridge: 0,
        live: 0,
        waiting: 0,
    }
}

/// Why picks pass a slot by, as far as that is known.
fn passed_by(slot: &Slot, pulse: Option<&Pulse>) -> Option<EventKind> {
    if slot.alive == 1 {
        return None;
    }
    let kind = pulse.and_then(|pulse| EventKind::from_number(pulse.why));
    Some(kind.unwrap_or(EventKind::Refused))
}
