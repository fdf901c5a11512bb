//! What has the kernel counted?

use std::net::{Ipv6Addr, SocketAddr};

use orch_common::{
    counter::{Bytes, Reason, SlotCounters},
    event::EventKind,
    latency::Histogram,
    layout::map,
    pulse::Pulse,
    slot::{Slot, SlotKey, SlotState},
};

use super::{Dataplane, DataplaneError};

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

impl Dataplane {
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

    /// How often something has become of a packet.
    pub(super) fn count(&self, reason: Reason) -> Result<u64, DataplaneError> {
        let cpus = self.reasons.get(&(reason as u32), 0);
        Ok(cpus
            .map_err(DataplaneError::map(map::REASONS))?
            .iter()
            .sum())
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
