//! Half-open flows: a bounded number of them, the oldest of which goes first, so that no flood of SYNs
//! takes the place of a flow that is established.

use orch_common::{counter::Reason, flow::FlowKey};

use crate::{atomic, create, live, maps, verdict::count};

/// Gives a flow that begins a place among the half-open ones. Whose place it was is forgotten, unless
/// its handshake has been completed since. Gives the flow's ticket, or 0 for none. Checked once by
/// itself (`choice`), for the sake of its stack.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn orch_queue(key: *const FlowKey) -> i32 {
    // SAFETY: the verifier knows the key's size and lets nobody call with less; it may be null.
    let (Some(key), Some(queue)) = (unsafe { key.as_ref() }, maps::queue()) else {
        return 0;
    };
    let key = *key;
    let places = queue.places;
    if places == 0 {
        return 0;
    }
    // From 1 on: a flow that has no place has ticket 0.
    let ticket = (atomic::fetch_add(&raw mut queue.tickets, 1) as u32).wrapping_add(1);
    let Some(place) = maps::half_open(ticket % places) else {
        return 0;
    };
    let oldest = *place;
    *place = key;
    forget(&oldest, ticket.wrapping_sub(places));
    ticket as i32
}

/// Forgets the flow that took the place with this ticket, if it is half-open still.
#[inline(always)]
fn forget(key: &FlowKey, ticket: u32) {
    let Some(flow) = maps::flow(key) else {
        return;
    };
    if flow.acked != ticket || !flow.state.is_half_open() {
        return;
    }
    live::discount(flow);
    create::forget(key, flow);
    count(Reason::Evicted);
}
