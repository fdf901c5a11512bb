//! The beginning: programs loaded, maps taken over, everything attached.

use std::{collections::BTreeMap, path::Path, time::Instant};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapInfo, PerCpuArray, RingBuf},
};
use orch_common::{
    flow::Queue,
    layout::map,
    pulse::Pulse,
    slot::{Owner, Slot, SlotKey},
};

use super::{
    Dataplane, DataplaneError,
    attach::{self, Role, cgroup2_root},
    hold::Hold,
    host::{Bridge, Interface},
    load,
    lost::Maps,
    netns::Namespaces,
    news::News,
    pin::Pins,
    recount::Recount,
    relay::Relaying,
    signals,
    sockets::Sockets,
    tables::{Tables, take},
    uplinks,
    ways::Ways,
};
use crate::config::{DataplaneConfig, Local, ServiceConfig};

/// A data plane before it owns its pins.
pub(super) struct Parts {
    ebpf: Ebpf,
    tables: Tables,
    slots: HashMap<MapData, SlotKey, Slot>,
    reasons: PerCpuArray<MapData, u64>,
    events: RingBuf<MapData>,
    hold: Hold,
    processes: HashMap<MapData, u32, Owner>,
    pulses: Array<MapData, Pulse>,
    recount: Recount,
    sockets: Sockets,
    maps: Maps,
    namespaces: Namespaces,
    config: DataplaneConfig,
    attached: Vec<(Interface, Role)>,
    bridges: Vec<Bridge>,
}

impl Parts {
    pub(super) fn build(
        config: &DataplaneConfig,
        pins: &Pins,
        others: &[Pins],
        first: &[ServiceConfig],
        signals: bool,
    ) -> Result<Self, DataplaneError> {
        uplinks::require(&config.interfaces)?;
        let task_tgid = signals::task_tgid();
        let mut ebpf = load::load(pins, config.flows, task_tgid, signals)?;
        let tables = Tables::new(&mut ebpf)?;
        let capacity = room(pins, config.flows)?;
        bound_half_open(take(&mut ebpf, map::QUEUE)?, capacity)?;
        let recount = Recount::new(
            take(&mut ebpf, map::CENSUS)?,
            take(&mut ebpf, map::EPOCH)?,
            capacity,
        );
        let slots = take(&mut ebpf, map::SLOTS)?;
        let reasons = take(&mut ebpf, map::REASONS)?;
        let events = take(&mut ebpf, map::EVENTS)?;
        let hold = Hold::new(take(&mut ebpf, map::HELD)?, take(&mut ebpf, map::HOLDING)?);
        let processes = take(&mut ebpf, map::PROCESSES)?;
        let pulses = take(&mut ebpf, map::PULSES)?;
        // A kernel without it leaves this to the runtimes, which notice a little later.
        if let Err(error) = attach::exits(&mut ebpf, pins) {
            log::warn!("{error}: the end of a backend is seen when its runtime tells");
        }
        if let Err(error) = signals::attach(&mut ebpf, pins, task_tgid.is_some()) {
            log::warn!("{error}: a backend that others stop is in its turn until its end");
        }
        let namespaces = Namespaces::follow(pins)?;
        let cgroup = local_root(config.local)?;
        let sockets = Sockets::new(cgroup.clone(), &slots);
        let mut parts = Self {
            ebpf,
            tables,
            slots,
            reasons,
            events,
            hold,
            processes,
            pulses,
            recount,
            sockets,
            maps: Maps::of(pins)?,
            namespaces,
            config: config.clone(),
            attached: Vec::new(),
            bridges: Vec::new(),
        };
        if !first.is_empty() {
            parts.tables.set_services(first)?;
            parts.hold.begin(first)?;
        }
        parts.attach(pins, others, cgroup.as_deref())?;
        // That may take a slow machine longer than the terms of holding last.
        parts.hold.begin(first)?;
        Ok(parts)
    }

    /// Has packets and sockets come by.
    fn attach(
        &mut self,
        pins: &Pins,
        others: &[Pins],
        cgroup: Option<&Path>,
    ) -> Result<(), DataplaneError> {
        for other in others {
            attach::take_over(pins, other)?;
        }
        let wanted = &self.config.interfaces;
        let synced = uplinks::sync(&mut self.ebpf, pins, &mut self.tables, wanted, &[])?;
        (self.attached, self.bridges) = (synced.attached, synced.bridges);
        let Some(root) = cgroup else {
            return attach::no_local(pins);
        };
        load::load_local(&mut self.ebpf)?;
        attach::local(&mut self.ebpf, pins, root)
    }

    pub(super) fn into_dataplane(self, pins: Pins, before: Vec<Pins>) -> Dataplane {
        Dataplane {
            ebpf: self.ebpf,
            pins,
            before,
            opened: Instant::now(),
            tables: self.tables,
            slots: self.slots,
            reasons: self.reasons,
            events: self.events,
            hold: self.hold,
            interfaces: self.config.interfaces,
            attached: self.attached,
            bridges: self.bridges,
            ways: Ways::default(),
            links: Vec::new(),
            news: News::open(),
            maps: self.maps,
            namespaces: self.namespaces,
            processes: self.processes,
            pulses: self.pulses,
            recount: self.recount,
            sockets: self.sockets,
            relays: self.config.relay,
            relaying: Relaying::default(),
            pids: BTreeMap::new(),
            exposes: true,
            swept: None,
        }
    }
}

/// How many flows there is room for: in a table that an earlier controller has made, as many as it
/// wanted.
fn room(pins: &Pins, wanted: u32) -> Result<u32, DataplaneError> {
    let info = MapInfo::from_pin(pins.map(map::FLOWS)).map_err(DataplaneError::map(map::FLOWS))?;
    let room = info.max_entries();
    if room != wanted {
        log::warn!(
            "the table of flows goes on as an earlier controller made it, with room for {room}: \
             {wanted}, as the file says, from the next start after `orch down`"
        );
    }
    Ok(room)
}

/// Says how many flows may be half-open. An earlier controller's count goes on.
fn bound_half_open(mut queue: Array<MapData, Queue>, flows: u32) -> Result<(), DataplaneError> {
    let wrong = || DataplaneError::map(map::QUEUE);
    let mut value = queue.get(&0, 0).map_err(wrong())?;
    let places = Queue::places(flows);
    if value.places == places {
        return Ok(());
    }
    value.places = places;
    queue.set(0, value, 0).map_err(wrong())
}

/// The cgroup whose sockets are balanced, if any are to be.
fn local_root(local: Local) -> Result<Option<std::path::PathBuf>, DataplaneError> {
    let find = || cgroup2_root().map_err(|source| DataplaneError::file("/proc/mounts", source));
    match local {
        Local::Off => Ok(None),
        Local::Connect => find()?.map(Some).ok_or(DataplaneError::NoCgroup2),
        Local::Auto => {
            let root = find()?;
            if root.is_none() {
                log::warn!(
                    "no cgroup2 hierarchy is mounted: clients on this host are not balanced"
                );
            }
            Ok(root)
        }
    }
}
