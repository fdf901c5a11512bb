//! How far the sockets of this host have to be looked at, which every one of them pays for. Connections to
//! a backend's own address are noted when they are made and seen at its interface; those to a slot's
//! port at the sockets alone, packet by packet. So each only while there is such a slot.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use aya::maps::{HashMap, MapData};
use orch_common::slot::{Slot, SlotKey, SlotState};

use super::{Dataplane, DataplaneError, attach};

/// How slots are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// At the slot's port.
    Port,
    /// At the backend's own address.
    Direct,
}

/// How the slots are reached, and what is attached for it.
pub(super) struct Sockets {
    /// Where hooks for sockets are attached, if clients of this host are balanced.
    root: Option<PathBuf>,
    slots: BTreeMap<SlotKey, At>,
    /// For each way whether our programs are attached; unknown at first, since an earlier controller's
    /// may be.
    attached: [Option<bool>; 2],
}

impl Sockets {
    /// What an earlier controller has left in the table of slots counts.
    pub(super) fn new(root: Option<PathBuf>, slots: &HashMap<MapData, SlotKey, Slot>) -> Self {
        let slots = slots.iter().flatten();
        Self {
            root,
            slots: slots
                .map(|(key, slot)| (key, At::interface(slot.ifindex)))
                .collect(),
            attached: [None; 2],
        }
    }

    /// The cgroup whose sockets programs may see.
    pub(super) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Whether clients of this host are balanced.
    pub(super) const fn are_balanced(&self) -> bool {
        self.root.is_some()
    }
}

impl At {
    /// By the backend's interface, 0 for none.
    const fn interface(ifindex: u32) -> Self {
        if ifindex == 0 {
            Self::Port
        } else {
            Self::Direct
        }
    }
}

impl Dataplane {
    /// Notes by which interface a slot is reached from now on, 0 for its port. To be called before it is.
    /// One whose backend has ended has none, but sockets that were given it may be about to send their
    /// SYN only now: until it takes connections again, they are looked for as before.
    pub(super) fn reached(
        &mut self,
        key: SlotKey,
        state: SlotState,
        ifindex: u32,
    ) -> Result<(), DataplaneError> {
        let way = At::interface(ifindex);
        let known = self.sockets.slots.entry(key).or_insert(way);
        if way == At::Direct || state == SlotState::Ready {
            *known = way;
        }
        self.watch_sockets()
    }

    /// Notes that a slot is no more.
    pub(super) fn no_longer_reached(&mut self, key: SlotKey) -> Result<(), DataplaneError> {
        self.sockets.slots.remove(&key);
        self.watch_sockets()
    }

    /// Attaches the programs that are needed, and detaches those that are not.
    pub(super) fn watch_sockets(&mut self) -> Result<(), DataplaneError> {
        self.watch(At::Direct)?;
        self.watch(At::Port)
    }

    /// Attaches again what was detached; whether anything had to be attached.
    pub(super) fn watch_anew(&mut self, way: At) -> Result<bool, DataplaneError> {
        let known = self.sockets.attached[way as usize].take();
        self.watch(way)?;
        Ok(known == Some(true))
    }

    fn watch(&mut self, way: At) -> Result<(), DataplaneError> {
        let Some(root) = &self.sockets.root else {
            return Ok(());
        };
        let mut slots = self.sockets.slots.iter();
        let wanted = slots.any(|(key, known)| *known == way && self.tables.balances(key.service));
        if self.sockets.attached[way as usize] == Some(wanted) {
            return Ok(());
        }
        match (way, wanted) {
            (At::Direct, true) => attach::dials(&mut self.ebpf, &self.pins, root)?,
            (At::Direct, false) => attach::no_dials(&self.pins)?,
            (At::Port, true) => attach::sockets(&mut self.ebpf, &self.pins, root)?,
            (At::Port, false) => attach::no_sockets(&self.pins)?,
        }
        self.sockets.attached[way as usize] = Some(wanted);
        Ok(())
    }
}
