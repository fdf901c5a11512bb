//! How many connections a slot has: each counts from its beginning to its end, whatever that is.

use orch_common::{
    flow::{Flow, mark},
    slot::Slot,
};

use crate::{atomic, maps, tally};

/// Counts a connection as live in its slot. Who reads the live ones first sees no more of them than have
/// come (`Dataplane::sweep`).
#[inline(always)]
pub fn admit(slot: &mut Slot) {
    atomic::add(&raw mut slot.connections, 1);
    atomic::add(&raw mut slot.live, 1);
}

/// The same for a socket of this host.
#[inline(always)]
pub fn admit_local(slot: &mut Slot) {
    atomic::add(&raw mut slot.local, 1);
    admit(slot);
}

/// Discounts a flow from its slot, if it is still counted there. Exactly once, whoever calls.
#[inline(always)]
pub fn discount(flow: &mut Flow) {
    if atomic::exchange(&raw mut flow.live, 0) == 1 {
        orch_discount(flow);
    }
}

/// Checked once by itself (`choice`), and always 0.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_discount(flow: *mut Flow) -> i32 {
    // SAFETY: the verifier knows the flow's size and lets nobody call with less; it may be null.
    let Some(flow) = (unsafe { flow.as_mut() }) else {
        return 0;
    };
    let key = flow.slot_key();
    let (Some(slot), Some(pulse)) = (maps::slot(&key), maps::pulse(key)) else {
        return 0;
    };
    tally::ends(flow, pulse);
    if slot.generation != flow.generation {
        return 0;
    }
    let others = atomic::fetch_add(&raw mut slot.live, u64::MAX).wrapping_sub(1);
    if flow.is(mark::LOCAL) {
        atomic::add(&raw mut slot.local, u64::MAX);
    }
    if others == 0 {
        // Nobody is left who could wait: what two CPUs have miscounted ends here.
        pulse.in_flight = [0; 2];
    }
    0
}
