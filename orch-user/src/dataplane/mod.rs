//! The data plane seen from the controller, and the only user of aya.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, PerCpuArray, RingBuf},
};
use orch_common::{
    counter::Reason,
    event::{Event, EventKind},
    layout::program,
    pulse::Pulse,
    slot::{Owner, Slot, SlotKey},
};

use self::{
    attach::Role, hold::Hold, host::Interface, lost::Maps, netns::Namespaces, news::News,
    open::Parts, pin::Pins, recount::Recount, relay::Relaying, sockets::Sockets, tables::Tables,
    ways::Ways,
};
use crate::config::{DataplaneConfig, Interfaces, ServiceConfig};

mod attach;
mod btf;
mod clsact;
mod error;
mod gone;
mod hold;
mod host;
mod links;
mod load;
mod lost;
mod measure;
mod netns;
mod news;
mod open;
mod pin;
mod reading;
mod recount;
mod relay;
mod sandbox;
mod signals;
mod slots;
mod sockets;
mod stead;
mod tables;
mod trial;
mod uplinks;
mod ways;

#[cfg(test)]
pub(crate) use self::tables::outdated;
pub use self::{
    attach::{cgroup2_root, has_tcx},
    error::DataplaneError,
    hold::{HoldTerms, Injected},
    host::Bridge,
    measure::{MapMemory, ProgramSize},
    reading::{Reading, SlotReading},
    relay::relayed,
    signals::{SignalHook, signal_hook},
    slots::{Reach, SlotEntry},
    stead::{Stead, is_interface},
    trial::Trial,
    uplinks::Prospect,
};

/// Longest time that another layout's programs stay beside ours: some service may have no copy.
const BEFORE: Duration = Duration::from_secs(5);

/// The loaded, attached and pinned data plane.
pub struct Dataplane {
    ebpf: Ebpf,
    pins: Pins,
    /// Those of other layouts, until ours serve.
    before: Vec<Pins>,
    opened: Instant,
    tables: Tables,
    slots: HashMap<MapData, SlotKey, Slot>,
    reasons: PerCpuArray<MapData, u64>,
    /// What the traffic of slots says.
    pulses: Array<MapData, Pulse>,
    events: RingBuf<MapData>,
    hold: Hold,
    interfaces: Interfaces,
    attached: Vec<(Interface, Role)>,
    bridges: Vec<Bridge>,
    /// How backends of delivery `direct` are reached.
    ways: Ways,
    /// Names of the pinned links at the last look.
    links: Vec<String>,
    /// Says when an interface comes or goes.
    news: News,
    maps: Maps,
    namespaces: Namespaces,
    /// Whether the packets of this host's sockets are looked at.
    sockets: Sockets,
    /// Whether bytes may go from socket to socket, and whether they do.
    relays: bool,
    relaying: Relaying,
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
        Self::build(config, &[], true)
    }

    /// The same for these services, which the programs know before the first packet comes by: where an
    /// earlier controller has left no tables of this layout, connections from outside wait, and those of
    /// this host go where another layout's programs lead them, until the rings are set.
    pub fn open_for(
        config: &DataplaneConfig,
        services: &[ServiceConfig],
    ) -> Result<Self, DataplaneError> {
        Self::build(config, services, true)
    }

    /// The same with programs that look at no payload, to measure what that costs: nothing is counted but
    /// connections, and no reset is believed.
    pub fn open_deaf(config: &DataplaneConfig) -> Result<Self, DataplaneError> {
        Self::build(config, &[], false)
    }

    fn build(
        config: &DataplaneConfig,
        services: &[ServiceConfig],
        signals: bool,
    ) -> Result<Self, DataplaneError> {
        let fresh = !pin::exist(&config.pin_dir);
        let pins = Pins::open(&config.pin_dir)?;
        forget_steads(&config.pin_dir)?;
        let others = Pins::others(&config.pin_dir)?;
        for other in &others {
            log::warn!(
                "{} is of another version with another layout: its programs are replaced in place, \
                 and connections from outside that are open now will be reset",
                other.path().display()
            );
        }
        let first = if fresh { services } else { &[] };
        match Parts::build(config, &pins, &others, first, signals) {
            Ok(parts) => {
                let mut dataplane = parts.into_dataplane(pins, others);
                if first.is_empty() {
                    dataplane.remove_before()?;
                }
                Ok(dataplane)
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
    /// index in the list is the service's index. Rings and slots of services that stay are kept,
    /// wherever they listen; an index that gets a service with other slots starts anew.
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
        self.bar_unready()?;
        self.watch_sockets()
    }

    /// Swaps the ring of a service atomically.
    pub fn set_ring(&mut self, service: u16, slots: &[u16]) -> Result<(), DataplaneError> {
        self.tables.set_ring(service, slots)?;
        if self.tables.all_served() {
            self.remove_before()?;
        }
        Ok(())
    }

    /// Removes what another layout's programs and tables have left: they are needed no longer.
    fn remove_before(&mut self) -> Result<(), DataplaneError> {
        for other in std::mem::take(&mut self.before) {
            other.remove()?;
        }
        Ok(())
    }

    /// Has some slots of a service have less than their whole share of turns, in parts of
    /// [`WHOLE`](crate::plan::warmup::WHOLE).
    pub fn set_shares(
        &mut self,
        service: u16,
        shares: &BTreeMap<u16, u8>,
    ) -> Result<(), DataplaneError> {
        self.tables.set_shares(service, shares)
    }

    /// The slots in the ring of a service: what an earlier controller left, if nothing was set.
    pub fn ring(&self, service: u16) -> Vec<u16> {
        self.tables.ring(service)
    }

    /// Makes the kernel's idea of the host equal to the host: interfaces (attaches new ones, lets
    /// go of those that are gone), what somebody else has detached, and local addresses. Returns a sentence per change. Cheap;
    /// called every second.
    pub fn sync_host(&mut self) -> Result<Vec<String>, DataplaneError> {
        let synced = uplinks::sync(
            &mut self.ebpf,
            &self.pins,
            &mut self.tables,
            &self.interfaces,
            &self.attached,
        )?;
        self.attached = synced.attached;
        self.bridges = synced.bridges;
        self.forget_vanished()?;
        let mended = self.mend()?;
        if self.opened.elapsed() > BEFORE {
            self.remove_before()?;
        }
        Ok([synced.sentences, mended].concat())
    }

    /// The bridges by which containers talk to this host, as [`Self::sync_host`] has found them.
    pub fn bridges(&self) -> &[Bridge] {
        &self.bridges
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
        let born = self.born()?;
        if self.swept == Some(born) && !self.exposes {
            return Ok(0);
        }
        let before = self.begin_recount();
        let left = self.run(program::SWEEP, &ANY_FRAME).map(u64::from)?;
        self.end_recount(&before, left)?;
        self.swept = (left == 0).then_some(born);
        Ok(left)
    }

    /// Flows ever born.
    fn born(&self) -> Result<u64, DataplaneError> {
        Ok(self.count(Reason::NewFlow)? + self.count(Reason::LocalConnect)?)
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
    pub fn detach(mut self) -> Result<(), DataplaneError> {
        self.remove_before()?;
        attach::remove_filters(&self.pins)?;
        self.pins.remove()
    }

    /// Whether this directory has pins, of a controller that runs or of one that is gone.
    pub fn exists(pin_dir: &Path) -> bool {
        pin::exist(pin_dir)
    }

    /// Whether a controller with pins in this directory has what the gateway and copies say go from
    /// socket to socket.
    pub fn relays(pin_dir: &Path) -> bool {
        pin::has_link(pin_dir, program::JOIN)
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
        forget_steads(pin_dir)?;
        attach::remove_filters(&pins)?;
        pins.remove()
    }
}

/// Removes the routes that a controller has left.
fn forget_steads(pin_dir: &Path) -> Result<(), DataplaneError> {
    stead::forget(pin_dir).map_err(|source| DataplaneError::file("rtnetlink", source))
}
