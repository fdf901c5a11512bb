//! SYNs that a dead backend has swallowed: handed to the controller, which has them arrive once more,
//! for another slot. Nobody else would do it before their clients do, a second later.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_for_each_map_elem};
use orch_common::{
    flow::{Counting, Flow, FlowKey, FlowState},
    hold::REPLAY_AFTER_NS,
    slot::SlotKey,
    syn::Syn,
};

use crate::{backend, maps, retake};

/// When the SYN of a flow was sent that has been handed over: long ago.
const HANDED_OVER: u64 = 0;

/// What a walk carries from SYN to SYN.
#[repr(C)]
struct Walk {
    now: u64,
    found: u32,
    pad: u32,
}

/// Hands over the SYNs that have waited for a dead backend for long enough. Answers how many.
#[inline(always)]
pub fn replay() -> i32 {
    let mut walk = Walk {
        // SAFETY: the helper has no preconditions.
        now: unsafe { bpf_ktime_get_ns() },
        found: 0,
        pad: 0,
    };
    // SAFETY: `visit` has the signature that the helper documents, and `walk` outlives the call.
    unsafe {
        bpf_for_each_map_elem(
            maps::syns(),
            visit as *mut c_void,
            (&raw mut walk).cast(),
            0,
        );
    }
    walk.found as i32
}

/// Looks at one SYN. The flow stays, as one whose backend has been silent for long: the SYN moves it
/// when it arrives once more, and a late answer of its backend does not reach the client.
extern "C" fn visit(_map: *mut c_void, key: &FlowKey, syn: &mut Syn, walk: &mut Walk) -> i64 {
    let Some(flow) = maps::flow(key) else {
        return 0;
    };
    let waits = matches!(flow.state, FlowState::SynSent)
        && !matches!(flow.counting, Counting::None)
        && flow.request_ns != HANDED_OVER
        && walk.now.saturating_sub(flow.request_ns) > REPLAY_AFTER_NS;
    if waits && is_dead(flow) && retake::hand_over(key, flow, syn).is_some() {
        flow.request_ns = HANDED_OVER;
        walk.found += 1;
    }
    0
}

#[inline(always)]
fn is_dead(flow: &Flow) -> bool {
    let slot = maps::slot(&SlotKey {
        service: flow.service,
        slot: flow.slot,
    });
    !backend::is_current(flow) || slot.is_none_or(|slot| slot.alive == 0)
}
