//! Whose turn it is, by each way of choosing.

use orch_common::{
    layout::{MAGLEV_BYTES, RING_TURNS},
    select,
    service::{Balance, Ring, Service, Turn},
    slot::SlotKey,
};

use crate::{atomic, backend::Pick, maps, opaque::opaque};

/// Tries that follow the client's address, before the ring decides.
const STICKY_TRIES: u32 = 4;

/// The slot for a connection at the given try, the first of which is 0; the last finds whoever is
/// alive, wherever in the ring. `source` hashes who connects.
#[inline(always)]
pub fn of(
    index: u32,
    service: &Service,
    source: impl Fn() -> u32,
    tried: u32,
    last: bool,
) -> Option<Pick> {
    let by_load = matches!(service.balance, Balance::LeastConnections) && tried == 0;
    let by_source = matches!(service.balance, Balance::SourceIp) && tried < STICKY_TRIES;
    let slot = if by_load || last {
        orch_least(index)
    } else if by_source {
        orch_own(index, source(), tried)
    } else {
        orch_next(index)
    };
    Pick::of(SlotKey {
        service: index as u16,
        slot: u16::try_from(slot).ok()?,
    })
}

/// What a function gives that the verifier checks once, by itself: a slot's number, or less than 0.
#[inline(always)]
fn number(slot: Option<u8>) -> i32 {
    slot.map_or(-1, i32::from)
}

/// Moves the cursor on and gives the slot whose turn it is.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_next(index: u32) -> i32 {
    number(next(index))
}

#[inline(always)]
fn next(index: u32) -> Option<u8> {
    let ring = maps::ring(index, maps::service(index)?.ring)?;
    let turn = atomic::fetch_add(maps::cursor(index)?, 1);
    let place = select::round_robin(turn, ring.len)?;
    Some(at(ring, place).slot)
}

/// One turn of a ring.
#[inline(always)]
pub fn at(ring: &Ring, place: u32) -> Turn {
    ring.turns[opaque(place as usize) & (RING_TURNS - 1)]
}

/// The slot that a client belongs to, by the hash of who it is; another one for each try.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_own(index: u32, source: u32, tried: u32) -> i32 {
    number(own(index, source, tried))
}

#[inline(always)]
fn own(index: u32, source: u32, tried: u32) -> Option<u8> {
    let table = maps::maglev(index, maps::service(index)?.ring)?;
    let hash = select::hash(u64::from(source) | u64::from(tried) << 32);
    Some(table.slots[opaque(select::maglev_index(hash)) & (MAGLEV_BYTES - 1)])
}

/// The slot, of those that are alive, that has the fewest connections for its weight: the first
/// such from the cursor on, so that equals have turns by their weight. Where none is alive, the next.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_least(index: u32) -> i32 {
    number(least(index))
}

#[inline(always)]
fn least(index: u32) -> Option<u8> {
    let ring = maps::ring(index, maps::service(index)?.ring)?;
    let first = atomic::fetch_add(maps::cursor(index)?, 1);
    let mut best = at(ring, select::round_robin(first, ring.len)?);
    let mut best_live = None;
    for step in 0..RING_TURNS as u64 {
        if step >= u64::from(ring.len) {
            break;
        }
        let turn = at(
            ring,
            select::round_robin(first.wrapping_add(step), ring.len)?,
        );
        let Some(slot) = maps::slot(&SlotKey {
            service: index as u16,
            slot: u16::from(turn.slot),
        }) else {
            continue;
        };
        let live = slot.live;
        let better = best_live.is_none_or(|best_live| {
            select::is_less_loaded(live, turn.weight, best_live, best.weight)
        });
        if slot.alive == 1 && better {
            (best, best_live) = (turn, Some(live));
        }
    }
    Some(best.slot)
}
