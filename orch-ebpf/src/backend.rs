//! The choice of a slot, and what is thought of its backend.

use orch_common::{
    address::{self, Address},
    counter::Reason,
    event::{Event, EventKind},
    flow::Flow,
    service::Service,
    slot::{Slot, SlotKey},
};

use crate::{hold, maps, turn, verdict::count};

/// Slots that are looked at before a connection is given up.
const TRIES: u32 = 8;

/// A slot that has been given a connection.
pub struct Pick {
    /// Which.
    pub key: SlotKey,
    /// The slot itself.
    pub slot: &'static mut Slot,
}

impl Pick {
    /// A slot by its number, out of turn.
    #[inline(always)]
    pub fn of(key: SlotKey) -> Option<Self> {
        maps::slot(&key).map(|slot| Self { key, slot })
    }

    /// Whether connections go to the backend's own address.
    #[inline(always)]
    pub const fn is_direct(&self) -> bool {
        self.slot.ifindex != 0
    }

    /// The backend's own address of the family. `None` if it has none.
    #[inline(always)]
    pub fn address(&self, v6: bool) -> Option<Address> {
        if address::is_v4(&self.slot.address) != v6 {
            return Some(self.slot.address);
        }
        let other = self.slot.address6;
        (v6 && other != address::ANY_V6).then_some(other)
    }
}

/// Gives the slot whose turn it is, if its backend is alive and it `fits`, else another; `fits` names
/// the reason where it does not. Where every backend looks dead, the connection waits
/// if it can; else the last is as good as any: what one thinks of it may be wrong. `source` hashes who connects.
#[inline(always)]
pub fn choose(
    index: u32,
    service: &Service,
    source: impl Fn() -> u32,
    fits: impl Fn(&Pick) -> Result<(), Reason>,
) -> Result<Pick, Reason> {
    let mut why = Reason::NoBackend;
    for tried in 0..TRIES {
        let last = tried == TRIES - 1;
        let pick = turn::of(index, service, &source, tried, last).ok_or(Reason::NoBackend)?;
        if pick.slot.alive == 0 && (!last || hold::is_on(index)) {
            count(Reason::PassedBy);
            continue;
        }
        match fits(&pick) {
            Ok(()) => return Ok(pick),
            Err(reason) => {
                if matches!(reason, Reason::PassedBy) {
                    count(reason);
                }
                why = reason;
            }
        }
    }
    Err(why)
}

/// Has picks pass a slot by from now on, unless it has another backend already, and tells the
/// controller, which knows better and takes it back if that was wrong. Says whether it is news.
#[inline(always)]
pub fn pass_by(key: SlotKey, generation: u32, kind: EventKind) -> bool {
    let Some(slot) = maps::slot(&key) else {
        return false;
    };
    if slot.generation != generation {
        return false;
    }
    let news = slot.alive != 0;
    // Its end is the better reason.
    if (news || matches!(kind, EventKind::Exited))
        && let Some(pulse) = maps::pulse(key)
    {
        pulse.why = kind as u32;
    }
    if !news {
        return false;
    }
    slot.alive = 0;
    maps::tell(&Event {
        kind,
        slot: key,
        generation,
    });
    true
}

/// Whether the backend that the flow was given to is still the one in its slot.
#[inline(always)]
pub fn is_current(flow: &Flow) -> bool {
    maps::generation(flow.slot_key()) == flow.generation
}
