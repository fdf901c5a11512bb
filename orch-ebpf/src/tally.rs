//! What a slot's connections have carried, which of their requests wait, and how they failed.

use orch_common::{
    counter::Failure,
    flow::{self, Counting, Flow, FlowState, Side, mark},
    http,
    pulse::Pulse,
    slot::SlotKey,
};

use crate::{atomic, backend, maps, opaque::opaque};

/// How often somebody else may come between.
const TRIES: u32 = 3;

/// One side of a flow has sent its bytes up to here: they have been seen, and those that are new are
/// counted, on this CPU alone. Every packet with payload comes here.
#[inline(always)]
pub fn carried(flow: &mut Flow, side: Side, end: u32) {
    let new = reach(flow, side, end);
    // Before its SYN-ACK, nobody knows where the backend's numbers begin.
    let unknown = matches!((side, flow.state), (Side::Server, FlowState::SynSent));
    if new == 0 || unknown {
        return;
    }
    if let Some(bytes) = maps::bytes(flow.slot_key()) {
        let cell = match side {
            Side::Client => &raw mut bytes.received,
            Side::Server => &raw mut bytes.sent,
        };
        atomic::add(cell, u64::from(new));
    }
}

/// What the backend has acknowledged has come by, or came while nobody looked: the numbers go on from there.
#[inline(always)]
pub fn acknowledged(flow: &mut Flow) {
    // A FIN has a number as well.
    let fin = u32::from(matches!(
        flow.state,
        FlowState::FinClient | FlowState::Closed
    ));
    let end = flow.acked.wrapping_sub(fin);
    if end != flow.client_next && http::is_new(end, flow.client_next) {
        carried(flow, Side::Client, end);
    }
}

/// Moves what one side has sent on, and gives by how much. Two CPUs may have segments of a connection at
/// the same moment: each byte is new to one of them.
#[inline(always)]
#[expect(
    clippy::cast_ptr_alignment,
    reason = "the two numbers are one aligned word, which is asserted where they are"
)]
fn reach(flow: &mut Flow, side: Side, end: u32) -> u32 {
    let mut sent = flow.sent();
    let word = (&raw mut flow.client_next).cast::<u64>();
    for _ in 0..TRIES {
        let Some((next, new)) = flow::reach(sent, side, end) else {
            return 0;
        };
        let found = atomic::compare_exchange(word, sent, next);
        if found == sent {
            return new;
        }
        sent = found;
    }
    0
}

/// A request of the flow waits for its response. One of a connection that has ended, or whose backend
/// is gone, does not.
#[inline(always)]
pub fn begins(flow: &mut Flow, pulse: &mut Pulse) {
    if flow.live == 1 && backend::is_current(flow) && !flow.is(mark::WAITS) {
        flow.set(mark::WAITS, true);
        atomic::add(waiting(flow, pulse), 1);
    }
}

/// It waits no longer. Says whether it did.
#[inline(always)]
pub fn ends(flow: &mut Flow, pulse: &mut Pulse) -> bool {
    if !flow.is(mark::WAITS) {
        return false;
    }
    flow.set(mark::WAITS, false);
    if backend::is_current(flow) {
        atomic::add(waiting(flow, pulse), u64::MAX);
    }
    true
}

#[inline(always)]
fn waiting(flow: &Flow, pulse: &mut Pulse) -> *mut u64 {
    if flow.is(mark::LOCAL) {
        &raw mut pulse.in_flight[1]
    } else {
        &raw mut pulse.in_flight[0]
    }
}

/// A connection ends in such a way. That is a failure if its request waits for a response, which counts
/// no more should it come: each request ends in one way.
#[inline(always)]
pub fn cut(flow: &mut Flow, kind: Failure) {
    if flow.is(mark::WAITS) {
        orch_cut(flow);
        flow.set(mark::COUNTED, false);
        failed(flow, kind);
    }
}

/// The request of the flow waits no longer. Checked once by itself (`choice`), and always 0.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn orch_cut(flow: *mut Flow) -> i32 {
    // SAFETY: the verifier knows the flow's size and lets nobody call with less; it may be null.
    if let Some(flow) = unsafe { flow.as_mut() }
        && let Some(pulse) = maps::pulse(flow.slot_key())
    {
        ends(flow, pulse);
    }
    0
}

/// Counts a connection that failed. Those past the balancer are none of its slot's.
#[inline(always)]
pub fn failed(flow: &Flow, kind: Failure) {
    if !matches!(flow.counting, Counting::None) {
        orch_failed(flow.slot_key().packed(), kind as u32);
    }
}

/// `slot` is packed. Checked once by itself (`choice`), and always 0.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_failed(slot: u32, kind: u32) -> i32 {
    let key = SlotKey::unpacked(slot);
    if let Some(counters) = maps::counters(&key)
        && let Some(cell) = counters.failures.get_mut(opaque(kind as usize))
    {
        atomic::add(cell, 1);
    }
    0
}
