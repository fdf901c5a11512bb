//! What is in a slot, and how is the kernel told? Packets change a slot's counts at any time, so that a
//! program of the kernel writes it.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use orch_common::{
    command::{SlotCommand, Verb},
    layout::{map, program},
    slot::{Owner, SlotKey, SlotState},
};

use super::{Dataplane, DataplaneError, host::to_address};

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

impl Dataplane {
    /// Creates or changes a slot; its counters stay. Connections of an earlier generation are dead.
    /// For [`Reach::Direct`] the backend must run: the way to it is looked for.
    pub fn set_slot(&mut self, key: SlotKey, entry: &SlotEntry) -> Result<(), DataplaneError> {
        self.tables.ensure_counters(key)?;
        let way = self.way(key, entry)?;
        self.reached(key, entry.state, way.ifindex)?;
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
            self.forget_way(key, None);
        } else {
            self.forget_way(key, Some((entry.address, way)));
        }
        Ok(())
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
        self.forget_way(key, None);
        self.no_longer_reached(key)?;
        self.tables.remove_counters(key)
    }

    pub(super) fn command(&mut self, command: &SlotCommand) -> Result<(), DataplaneError> {
        let refused = DataplaneError::Slot {
            service: command.key.service,
            slot: command.key.slot,
        };
        match self.run(program::COMMAND, &command.to_frame())? {
            0 => Ok(()),
            _ => Err(refused),
        }
    }
}

/// A command that needs to know no more than which slot.
pub(super) fn bare(verb: Verb, key: SlotKey) -> SlotCommand {
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
