//! The data plane seen from the controller, and the only user of aya.

use std::{net::SocketAddr, path::PathBuf};

use orch_common::{
    counter::{Reason, SlotCounters},
    latency::Histogram,
    slot::{SlotKey, SlotState},
};

use crate::config::{DataplaneConfig, ServiceConfig};

/// A slot as the controller wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotEntry {
    /// Where the backend listens.
    pub address: SocketAddr,
    /// The slot's port on this host.
    pub port: u16,
    /// What the slot is doing.
    pub state: SlotState,
    /// Raised by one with every new backend of the slot.
    pub generation: u32,
}

/// A slot as the kernel has it.
#[derive(Clone, Copy, Debug)]
pub struct SlotReading {
    /// Which.
    pub key: SlotKey,
    /// Its port on this host.
    pub port: u16,
    /// What it was last said to be doing.
    pub state: SlotState,
    /// Generation of its backend.
    pub generation: u32,
    /// Connections that are open now.
    pub live: u64,
    /// Connections ever given to it.
    pub connections: u64,
    /// Requests and responses.
    pub counters: SlotCounters,
}

/// What the kernel has counted.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Per slot.
    pub slots: Vec<SlotReading>,
    /// Packets by what became of them.
    pub reasons: [u64; Reason::COUNT],
}

/// The loaded, attached and pinned data plane.
pub struct Dataplane {}

/// Why the data plane cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// A pin or another file cannot be used.
    #[error("cannot use {path}")]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Dataplane {
    /// Loads the kernel programs, or takes over what an earlier controller left pinned, and
    /// attaches them. Mounts bpffs at `/sys/fs/bpf` if nothing is. Fails if another controller
    /// holds `pin_dir`.
    pub fn open(config: &DataplaneConfig) -> Result<Self, DataplaneError> {
        let _ = config;
        Ok(Self {})
    }

    /// Makes the kernel's table of services equal to this list: listeners, ports, path rules. The
    /// index in the list is the service's index. Rings and slots of services that stay are kept.
    pub fn set_services(&mut self, services: &[ServiceConfig]) -> Result<(), DataplaneError> {
        let _ = services;
        Ok(())
    }

    /// Creates or changes a slot; its counts stay.
    pub fn set_slot(&mut self, key: SlotKey, entry: &SlotEntry) -> Result<(), DataplaneError> {
        let _ = (key, entry);
        Ok(())
    }

    /// Forgets a slot and its counts. Its flows are dead from now on.
    pub fn remove_slot(&mut self, key: SlotKey) -> Result<(), DataplaneError> {
        let _ = key;
        Ok(())
    }

    /// Swaps the ring of a service atomically.
    pub fn set_ring(&mut self, service: u16, slots: &[u16]) -> Result<(), DataplaneError> {
        let _ = (service, slots);
        Ok(())
    }

    /// Reads slots and counters.
    pub fn read(&self) -> Result<Reading, DataplaneError> {
        Ok(Reading::default())
    }

    /// Response times of one slot.
    pub fn latency(&self, key: SlotKey) -> Result<Histogram, DataplaneError> {
        let _ = key;
        Ok(Histogram::default())
    }

    /// Makes the kernel's idea of the host equal to the host: interfaces (attaches new ones),
    /// local addresses, namespaces of containers. Returns a sentence per change. Cheap; called
    /// every second and after Docker events.
    pub fn sync_host(&mut self) -> Result<Vec<String>, DataplaneError> {
        Ok(Vec::new())
    }

    /// Frees closed and silent flows; called every `orch_common::flow::SWEEP_SECONDS`. Returns how
    /// many flows are left.
    pub fn sweep(&mut self) -> Result<u64, DataplaneError> {
        Ok(0)
    }

    /// Detaches everything and removes the pins. Leaves nothing.
    pub fn detach(self) -> Result<(), DataplaneError> {
        Ok(())
    }
}
