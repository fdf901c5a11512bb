//! A SYN that a backend has refused: taken back, and held as if it had just come. That of a socket of
//! this host stays where it is: its refusal is kept from it, and the controller answers in the
//! place of a backend that has ended.

use orch_common::{
    address,
    event::EventKind,
    flow::{Flow, FlowKey},
    hold::{self, OF_SOCKET, REMEMBERED},
    syn::Syn,
};

use crate::{
    backend, create,
    hold::{listener, terms},
    live, maps,
};

/// Holds the SYN of a flow that the only backend has refused; the flow is forgotten. Says whether it
/// could be held.
#[inline(always)]
pub fn take_back(key: &FlowKey, flow: &mut Flow) -> bool {
    if orch_take_back(key) != 0 {
        return false;
    }
    live::discount(flow);
    create::forget(key, flow);
    true
}

/// Checked once by itself (`choice`); answers 0, or 1 if it cannot be held.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_take_back(key: *const FlowKey) -> i32 {
    // SAFETY: the verifier knows the key's size and lets nobody call with less; it may be null.
    let Some(key) = (unsafe { key.as_ref() }) else {
        return 1;
    };
    let key = *key;
    let (Some(flow), Some(syn)) = (maps::flow(&key), maps::syn(&key)) else {
        return 1;
    };
    i32::from(keep(&key, flow, syn).is_none())
}

/// Hands what is remembered of the SYN over, and has its repetitions known.
#[inline(always)]
fn keep(key: &FlowKey, flow: &Flow, syn: &Syn) -> Option<()> {
    let terms = terms(u32::from(flow.service))?;
    let signature = hold::signature(key, flow.isn, terms.session);
    let place = maps::signature(signature)?;
    hand_over(key, flow, syn)?;
    *place = signature;
    Some(())
}

/// Hands what is remembered of the SYN to the controller, which makes a frame of it.
#[inline(always)]
#[expect(
    clippy::cast_ptr_alignment,
    reason = "the frame lies 48 bytes into a record that is aligned to eight"
)]
pub fn hand_over(key: &FlowKey, flow: &Flow, syn: &Syn) -> Option<()> {
    let isn = u32::from_be_bytes([syn.header[4], syn.header[5], syn.header[6], syn.header[7]]);
    if isn != flow.isn {
        return None;
    }
    let mut entry = maps::held()?;
    let record = entry.as_mut_ptr();
    // SAFETY: the record is whole and ours until it is submitted, and its frame has room for a SYN,
    // at an offset that is aligned for it.
    unsafe {
        (&raw mut (*record).key).write(*key);
        (&raw mut (*record).seq).write(isn);
        (&raw mut (*record).ifindex).write(flow.uplink);
        (&raw mut (*record).service).write(flow.service);
        (&raw mut (*record).len).write(REMEMBERED);
        (&raw mut (*record).frame).cast::<Syn>().write(*syn);
    }
    entry.submit(0);
    Some(())
}

/// Refusals of one SYN that are kept from its socket. They come at once, after one second and after three
/// (RFC 6298, 5.5): a backend that is still there then goes on living, and its refusal counts.
const KEPT: u8 = 3;

/// Has a socket of this host wait whose SYN a backend has refused that is about to go: it was chosen just
/// before it ended. Says whether the controller has been told; a socket in a container is
/// beyond its reach, and so is IPv6: it does not know which copies have an address of that.
#[inline(always)]
pub fn leave_waiting(key: &FlowKey, flow: &mut Flow, arrived: u32) -> bool {
    let waits = listener(u32::from(flow.service)).is_some()
        && address::is_v4(&key.local)
        && maps::is_local(&key.client)
        && flow.ifindex == arrived
        && flow.moves < KEPT
        && is_going(flow)
        && tell_of(key, flow).is_some();
    if waits {
        flow.moves += 1;
    }
    waits
}

/// Whether the backend that the flow was given to has ended, or was told to.
#[inline(always)]
fn is_going(flow: &Flow) -> bool {
    if !backend::is_current(flow) {
        return true;
    }
    maps::pulse(flow.slot_key()).is_some_and(|pulse| {
        pulse.why == EventKind::Exited as u32 || pulse.why == EventKind::Signalled as u32
    })
}

/// Tells the controller of a socket that waits.
#[inline(always)]
fn tell_of(key: &FlowKey, flow: &Flow) -> Option<()> {
    let mut entry = maps::held()?;
    let record = entry.as_mut_ptr();
    // SAFETY: the record is whole and ours until it is submitted; nobody reads its frame.
    unsafe {
        (&raw mut (*record).key).write(*key);
        (&raw mut (*record).seq).write(flow.isn);
        (&raw mut (*record).ifindex).write(flow.ifindex);
        (&raw mut (*record).service).write(flow.service);
        (&raw mut (*record).len).write(OF_SOCKET);
    }
    entry.submit(0);
    Some(())
}
