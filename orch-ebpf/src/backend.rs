//! The choice of a slot, and the counts that say how many connections it has.

use orch_common::{
    flow::Flow,
    layout::SLOTS_PER_SERVICE,
    select,
    service::Service,
    slot::{Slot, SlotKey},
};

use crate::{atomic, maps};

/// A slot that has been given a connection.
pub struct Pick {
    /// Which.
    pub key: SlotKey,
    /// The slot's port on this host.
    pub port: u16,
    /// Generation of its backend.
    pub generation: u32,
    /// The slot itself.
    pub slot: &'static mut Slot,
}

/// Moves the service's cursor on and gives the slot whose turn it is. `None` if none is ready.
#[inline(always)]
pub fn pick(index: u32, service: &Service) -> Option<Pick> {
    let ring = maps::ring(index, service.ring)?;
    if ring.len == 0 {
        return None;
    }
    let turn = atomic::fetch_add(maps::cursor(index)?, 1);
    let at = select::round_robin(turn, ring.len)? as usize & (SLOTS_PER_SERVICE - 1);
    let key = SlotKey {
        service: index as u16,
        slot: ring.slots[at],
    };
    let slot = maps::slot(&key)?;
    Some(Pick {
        key,
        port: slot.port,
        generation: slot.generation,
        slot,
    })
}

/// Counts a connection as live in its slot.
#[inline(always)]
pub fn admit(slot: &mut Slot) {
    atomic::add(&raw mut slot.live, 1);
    atomic::add(&raw mut slot.connections, 1);
}

/// Discounts a flow from its slot, if it is still counted there. Exactly once, whoever calls.
#[inline(always)]
pub fn discount(flow: &mut Flow) {
    if atomic::exchange(&raw mut flow.live, 0) == 0 {
        return;
    }
    let key = SlotKey {
        service: flow.service,
        slot: flow.slot,
    };
    if let Some(slot) = maps::slot(&key)
        && slot.generation == flow.generation
    {
        atomic::add(&raw mut slot.live, u64::MAX);
    }
}

/// Whether the backend that the flow was given to is still the one in its slot.
#[inline(always)]
pub fn is_current(flow: &Flow) -> bool {
    maps::generation(SlotKey {
        service: flow.service,
        slot: flow.slot,
    }) == flow.generation
}
