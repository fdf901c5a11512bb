//! Which slot gets a connection from outside. A function that the verifier checks once, by itself
//! (Linux 5.6): inlined, its loop would multiply the paths of every program that picks.

use aya_ebpf::bindings::__sk_buff;
use orch_common::{counter::Reason, flow::FlowKey, select, slot::SlotKey};

use crate::{
    backend::{self, Pick},
    maps,
    suit::Ask,
};

/// Which slots of a service may get a connection.
#[derive(Clone, Copy)]
pub enum Among {
    /// Any that is ready.
    All,
    /// Any that is ready but this one.
    Others(u16),
    /// This one, ready or not.
    Only(u16),
}

/// No slot, where a slot's number is asked for.
const NONE: u32 = u32::MAX;

/// Chooses a slot for a connection; takes a turn of the service's ring.
#[inline(always)]
pub fn choose(
    skb: *mut __sk_buff,
    key: &FlowKey,
    service: u32,
    among: Among,
) -> Result<Pick, Reason> {
    let (but, only) = match among {
        Among::All => (NONE, NONE),
        Among::Others(slot) => (u32::from(slot), NONE),
        Among::Only(slot) => (NONE, u32::from(slot)),
    };
    let answer = orch_choose(skb, key, service, but, only);
    let slot = u16::try_from(answer).map_err(|_| why(answer))?;
    let key = SlotKey {
        service: service as u16,
        slot,
    };
    Pick::of(key).ok_or(Reason::NoBackend)
}

/// The number of a slot, or a reason's number below zero.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_choose(
    skb: *mut __sk_buff,
    key: *const FlowKey,
    service: u32,
    but: u32,
    only: u32,
) -> i32 {
    // SAFETY: the verifier knows the key's size and lets nobody call with less; it may be null.
    let Some(key) = (unsafe { key.as_ref() }) else {
        return number(Reason::Malformed);
    };
    // Before Linux 6.2 a map takes no key from a caller's memory; the stack has no room for it.
    let Some(scratch) = maps::scratch() else {
        return number(Reason::Malformed);
    };
    scratch.key = *key;
    let ask = Ask {
        skb,
        key: &scratch.key,
        other: &raw mut scratch.other,
    };
    let picked = if only == NONE {
        ask.turn(service, but)
    } else {
        ask.this(service, only)
    };
    match picked {
        Ok(pick) => i32::from(pick.key.slot),
        Err(reason) => number(reason),
    }
}

impl Ask<'_> {
    #[inline(always)]
    fn turn(&self, index: u32, but: u32) -> Result<Pick, Reason> {
        let service = maps::service(index).ok_or(Reason::NoBackend)?;
        let source = || select::hash_of(&self.key.client);
        backend::choose(index, service, source, |pick| {
            if u32::from(pick.key.slot) == but {
                return Err(Reason::PassedBy);
            }
            let past = service.expose_slots == 1 && !pick.is_direct();
            if past && self.is_taken(pick.slot.port) {
                return Err(Reason::Collision);
            }
            self.suits(pick)
        })
    }

    #[inline(always)]
    fn this(&self, service: u32, slot: u32) -> Result<Pick, Reason> {
        let pick = Pick::of(SlotKey {
            service: service as u16,
            slot: slot as u16,
        })
        .ok_or(Reason::NoBackend)?;
        self.suits(&pick)?;
        Ok(pick)
    }
}

const fn number(reason: Reason) -> i32 {
    -1 - reason as i32
}

/// The reason behind a number.
#[inline(always)]
const fn why(answer: i32) -> Reason {
    const NO_FAMILY: i32 = number(Reason::NoFamily);
    const COLLISION: i32 = number(Reason::Collision);
    const PASSED_BY: i32 = number(Reason::PassedBy);
    match answer {
        NO_FAMILY => Reason::NoFamily,
        COLLISION => Reason::Collision,
        PASSED_BY => Reason::PassedBy,
        _ => Reason::NoBackend,
    }
}
