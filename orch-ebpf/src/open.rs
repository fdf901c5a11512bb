//! New connections of clients from outside.

use orch_common::{
    counter::Reason,
    flow::{Counting, Flow, FlowKey},
    slot::SlotKey,
};

use crate::{
    choice::{self, Among},
    create, hold, maps,
    packet::Located,
    segment::Segment,
    service,
    verdict::Verdict,
};

/// A new connection: why it is one, and the slot that said nothing when its SYN came before.
#[inline(always)]
pub fn connection(
    located: &Located,
    key: &FlowKey,
    slot: Option<SlotKey>,
    segment: &Segment,
    (reason, silent): (Reason, Option<u16>),
) -> Result<(&'static mut Flow, Reason, bool), Verdict> {
    let found = match slot {
        Some(slot) if maps::is_local(&key.local) => Some((
            u32::from(slot.service),
            Among::Only(slot.slot),
            Counting::None,
        )),
        Some(_) => None,
        None => service::listening(&key.local, key.local_port, false).and_then(|index| {
            let counting = maps::service(index)?.counting;
            Some((index, Among::All, counting))
        }),
    };
    let Some((service, among, counting)) = found else {
        return Err(Verdict::Untouched);
    };
    let others = match (among, silent) {
        (Among::All, Some(slot)) => Among::Others(slot),
        _ => among,
    };
    let mut picked = choice::choose(located.skb, key, service, others);
    if silent.is_some() && picked.is_err() {
        picked = choice::choose(located.skb, key, service, among);
    }
    match picked.and_then(|pick| create::create(located, key, &pick, counting, segment)) {
        Ok(flow) => Ok((flow, reason, false)),
        Err(why @ (Reason::NoBackend | Reason::NoFamily | Reason::PassedBy)) => {
            // A flow of an earlier connection must not catch what follows.
            maps::remove_flow(key);
            Err(without_backend(located, key, service, slot, segment, why))
        }
        Err(why) => Err(Verdict::Drop(why)),
    }
}

/// A SYN that nobody takes: it waits, or the host answers it.
#[inline(always)]
fn without_backend(
    located: &Located,
    key: &FlowKey,
    service: u32,
    slot: Option<SlotKey>,
    segment: &Segment,
    why: Reason,
) -> Verdict {
    let held = match (slot, why) {
        (None, Reason::NoBackend | Reason::PassedBy) => hold::park(located, key, service, segment),
        _ => None,
    };
    match (held, why) {
        (Some(reason), _) => Verdict::Drop(reason),
        // The backend's interface is gone, and so will be the backend.
        (None, Reason::PassedBy) => Verdict::Drop(why),
        (None, _) => Verdict::Pass(why),
    }
}
