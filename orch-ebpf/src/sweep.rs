//! The sweep: flows that have been closed or silent for long are freed, all others counted.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_for_each_map_elem;
use orch_common::{
    counter::Reason,
    flow::{Census, Flow, FlowKey, FlowState, HANDSHAKE_SWEEPS, mark},
    service::PortClass,
    slot::SlotState,
};

use crate::{backend, create, live, maps, tally, verdict::count};

/// What a sweep carries from flow to flow.
#[repr(C)]
struct Sweep {
    epoch: u32,
    left: u32,
}

/// Frees what has been closed or silent for too long. Answers how many flows are left.
#[inline(always)]
pub fn sweep() -> i32 {
    let mut sweep = Sweep {
        epoch: maps::next_epoch(),
        left: 0,
    };
    // SAFETY: `visit` has the signature that the helper documents, and `sweep` outlives the call.
    unsafe {
        bpf_for_each_map_elem(
            maps::flows(),
            visit as *mut c_void,
            (&raw mut sweep).cast(),
            0,
        );
    }
    sweep.left as i32
}

/// Looks at one flow.
extern "C" fn visit(_map: *mut c_void, key: &FlowKey, flow: &mut Flow, sweep: &mut Sweep) -> i64 {
    // The socket says when it ends, however long it is silent.
    let is_held = flow.is_of_socket() && flow.live == 1;
    let waits = is_held && matches!(flow.state, FlowState::Established);
    if !is_elsewhere(key, flow) && (waits || sweep.epoch.wrapping_sub(flow.seen) <= flow.patience())
    {
        sweep.left += 1;
        let_drain(flow, sweep.epoch);
        found(flow, sweep.epoch);
        return 0;
    }
    if flow.is_of_socket() {
        tally::orch_cut(flow);
    } else if flow.live == 1 {
        count(Reason::Expired);
        live::discount(flow);
    }
    create::forget(key, flow);
    0
}

/// Has the next packet of every client look its route up, as the first one after a sweep does.
#[inline(always)]
pub fn reroute() {
    let mut epoch = maps::epoch();
    // SAFETY: `make_due` has the signature that the helper documents, and `epoch` outlives the call.
    unsafe {
        bpf_for_each_map_elem(
            maps::flows(),
            make_due as *mut c_void,
            (&raw mut epoch).cast(),
            0,
        );
    }
}

/// A flow that has been seen since the last sweep counts as seen before it, once: however often routes
/// change, no flow ages by that.
extern "C" fn make_due(_map: *mut c_void, _key: &FlowKey, flow: &mut Flow, epoch: &mut u32) -> i64 {
    if flow.seen == *epoch && !flow.is_of_socket() {
        flow.seen = epoch.wrapping_sub(1);
    }
    0
}

/// Whether its service listens elsewhere by now: nobody sees its packets any more.
#[inline(always)]
fn is_elsewhere(key: &FlowKey, flow: &Flow) -> bool {
    !flow.is_of_socket() && matches!(maps::port(key.local_port).class, PortClass::Other)
}

/// Has a backend that is to go not wait for a client that does not complete its handshake: a flood of
/// SYNs never does.
#[inline(always)]
fn let_drain(flow: &mut Flow, epoch: u32) {
    let given_up = epoch.wrapping_sub(flow.seen) > HANDSHAKE_SWEEPS;
    if flow.live == 0 || flow.is_of_socket() || !flow.state.is_half_open() || !given_up {
        return;
    }
    if maps::slot(&flow.slot_key()).is_some_and(|slot| matches!(slot.state, SlotState::Draining)) {
        count(Reason::Expired);
        live::discount(flow);
    }
}

/// Notes a flow that stays beside those of its slot.
#[inline(always)]
fn found(flow: &Flow, sweep: u32) {
    if flow.live == 0 || flow.is_of_socket() || !backend::is_current(flow) {
        return;
    }
    let Some(census) = maps::census(flow.slot_key()) else {
        return;
    };
    if census.sweep != sweep {
        *census = Census {
            sweep,
            ..Census::default()
        };
    }
    census.live += 1;
    census.waiting += u32::from(flow.is(mark::WAITS));
}
