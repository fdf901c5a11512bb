//! How backends of delivery `direct` are reached: the host's end of each one's interface, with the
//! program for its replies attached.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
};

use orch_common::slot::SlotKey;

use super::{
    Dataplane, DataplaneError, Reach, SlotEntry, attach, links,
    sandbox::{self, Way},
};

/// The ways that are ready.
#[derive(Default)]
pub(super) struct Ways {
    /// Those of slots, with the backend's address.
    slots: BTreeMap<SlotKey, (SocketAddr, Way)>,
    /// Those of backends that may get a slot.
    spares: Vec<(SocketAddr, Way)>,
    /// Interfaces of backends that have lost theirs. One that has ended still refuses SYNs that were on
    /// their way, until the engine takes its interface away.
    left: Vec<u32>,
}

impl Ways {
    /// The interfaces of slots.
    pub(super) fn of_slots(&self) -> impl Iterator<Item = (SlotKey, u32)> {
        let slots = self.slots.iter();
        slots.map(|(key, (_, way))| (*key, way.ifindex))
    }

    /// The way by an interface.
    pub(super) fn by(&self, ifindex: u32) -> Option<&Way> {
        let mut ways = self.slots.values().chain(&self.spares).map(|(_, way)| way);
        ways.find(|way| way.ifindex == ifindex)
    }
}

impl Dataplane {
    /// Does what takes longest about [`Self::set_slot`] for a backend that may get a slot later:
    /// the attachment to its interface, some 10 ms. Nothing for delivery `port`.
    pub fn prepare(&mut self, reach: &Reach, address: SocketAddr) -> Result<(), DataplaneError> {
        let Reach::Direct { netns } = reach else {
            return Ok(());
        };
        let way = self.attach_way(netns, address)?;
        self.ways.spares.push((address, way));
        Ok(())
    }

    /// The way to a slot's backend, ready for its replies where the kernel balances; nothing for
    /// delivery `port`.
    pub(super) fn way(&mut self, key: SlotKey, entry: &SlotEntry) -> Result<Way, DataplaneError> {
        let Reach::Direct { netns } = &entry.reach else {
            return Ok(Way::default());
        };
        let spare = self.ways.spares.iter();
        let known = spare.chain(self.ways.slots.get(&key));
        // An engine gives an address to the next container: the namespace's file must be the same.
        let mut same =
            known.filter(|(address, way)| *address == entry.address && way.netns == *netns);
        let known = same.next().map(|(_, way)| way.clone());
        match known {
            Some(way) => Ok(way),
            None if self.tables.balances(key.service) => self.attach_way(netns, entry.address),
            // What the gateway says to it, and it to the gateway, is nobody else's business.
            None => Ok(sandbox::way(netns, entry.address.ip())?),
        }
    }

    /// Empties the rings that name slots whose replies nobody would rewrite: those of services that were
    /// in mode http when another controller ran. They are named again when they have been set.
    pub(super) fn bar_unready(&mut self) -> Result<(), DataplaneError> {
        let slots = self.slots.iter().flatten();
        let bare = slots
            .filter(|(_, slot)| slot.ifindex != 0 && !attach::has_veth(&self.pins, slot.ifindex));
        let services: BTreeSet<u16> = bare.map(|(key, _)| key.service).collect();
        for service in services {
            if self.tables.balances(service) {
                self.tables.set_ring(service, &[])?;
            }
        }
        Ok(())
    }

    fn attach_way(&mut self, netns: &Path, address: SocketAddr) -> Result<Way, DataplaneError> {
        let way = sandbox::way(netns, address.ip())?;
        if let Some(engine) = netns.parent() {
            self.namespaces.also(engine)?;
        }
        self.tables.set_backend_port(address.port())?;
        attach::veth(
            &mut self.ebpf,
            &self.pins,
            &way,
            self.sockets.are_balanced(),
        )?;
        Ok(way)
    }

    /// Puts a slot's way in the place of the one before, which is let go with its interface.
    pub(super) fn forget_way(&mut self, key: SlotKey, new: Option<(SocketAddr, Way)>) {
        if let Some((_, way)) = &new {
            let ifindex = way.ifindex;
            self.ways
                .spares
                .retain(|(_, spare)| spare.ifindex != ifindex);
        }
        let old = match new {
            Some(new) => self.ways.slots.insert(key, new),
            None => self.ways.slots.remove(&key),
        };
        if let Some((_, old)) = old
            && self.ways.by(old.ifindex).is_none()
        {
            self.ways.left.push(old.ifindex);
        }
    }

    /// Lets go of interfaces that are gone.
    pub(super) fn forget_vanished(&mut self) -> Result<(), DataplaneError> {
        let Ways { spares, left, .. } = &mut self.ways;
        if spares.is_empty() && left.is_empty() {
            return Ok(());
        }
        let there =
            links::links().map_err(|source| DataplaneError::file("/proc/net/dev", source))?;
        let gone = |index: u32| there.iter().all(|link| link.index != index);
        let indices = spares.iter().map(|(_, way)| way.ifindex);
        for index in indices.chain(left.iter().copied()) {
            if gone(index) {
                attach::forget_veth(&self.pins, index)?;
            }
        }
        spares.retain(|(_, way)| !gone(way.ifindex));
        left.retain(|index| !gone(*index));
        Ok(())
    }
}
