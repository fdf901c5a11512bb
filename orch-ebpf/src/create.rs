//! Flows: made and forgotten.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use orch_common::{
    address,
    counter::Reason,
    flow::{Counting, Flow, FlowKey},
    slot::SlotKey,
};

use crate::{
    backend::Pick, compare, half, live, maps, packet::Located, redirect, segment::Segment, syn,
};

/// Gives a new connection to a slot, and stores its flow.
#[inline(always)]
pub fn create(
    located: &Located,
    key: &FlowKey,
    pick: &Pick,
    counting: Counting,
    segment: &Segment,
) -> Result<&'static mut Flow, Reason> {
    let how = counting as u32;
    if orch_create(key, pick.key.packed(), how, segment.seq) != 0 {
        return Err(Reason::TableFull);
    }
    let ticket = half::orch_queue(key) as u32;
    let flow = maps::flow(key).ok_or(Reason::TableFull)?;
    flow.acked = ticket;
    compare::given(flow);
    if flow.is_direct() {
        if orch_bind(key) != 0 {
            live::discount(flow);
            maps::remove_flow(key);
            return Err(Reason::TableFull);
        }
        redirect::follow(located.skb, key, flow, true);
        syn::remember(located, key, segment);
    }
    Ok(flow)
}

/// Has replies of the flow's backend find it. Checked once by itself (`choice`), for the sake of its
/// stack; answers 0, or 1 if the table is full.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn orch_bind(key: *const FlowKey) -> i32 {
    // SAFETY: the verifier knows the key's size and lets nobody call with less; it may be null.
    let Some(key) = (unsafe { key.as_ref() }) else {
        return 1;
    };
    let key = *key;
    let stored = maps::flow(&key).map(|flow| maps::insert_reply(&flow.reply_key(&key), &key));
    i32::from(!matches!(stored, Some(Ok(()))))
}

/// `slot` is packed. Checked once by itself (`choice`); answers 0, or 1
/// if a table is full.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_create(key: *const FlowKey, slot: u32, counting: u32, seq: u32) -> i32 {
    let slot = SlotKey::unpacked(slot);
    // SAFETY: the verifier knows the key's size and lets nobody call with less; it may be null.
    let (Some(key), Some(pick)) = (unsafe { key.as_ref() }, Pick::of(slot)) else {
        return 1;
    };
    let key = *key;
    let counting = match counting {
        0 => Counting::ByPath,
        1 => Counting::All,
        _ => Counting::None,
    };
    i32::from(store(&key, &pick, counting, seq).is_none())
}

#[inline(always)]
fn store(key: &FlowKey, pick: &Pick, counting: Counting, seq: u32) -> Option<()> {
    let mut flow = begin(pick.key, seq);
    flow.live = 1;
    flow.counting = counting;
    flow.generation = pick.slot.generation;
    flow.backend_port = pick.slot.port;
    if pick.is_direct() {
        flow.address = pick.address(!address::is_v4(&key.client))?;
        flow.backend_port = pick.slot.backend_port;
        flow.ifindex = pick.slot.ifindex;
    }
    maps::insert_flow(key, &flow).ok()?;
    if let Some(slot) = maps::slot(&pick.key) {
        live::admit(slot);
    }
    Some(())
}

/// The flow of a connection that begins with this SYN, as far as the SYN says.
#[inline(always)]
pub fn begin(slot: SlotKey, seq: u32) -> Flow {
    Flow {
        // SAFETY: the helper has no preconditions.
        request_ns: unsafe { bpf_ktime_get_ns() },
        isn: seq,
        client_next: seq.wrapping_add(1),
        seen: maps::epoch(),
        service: slot.service,
        slot: slot.slot,
        ..Flow::default()
    }
}

/// Forgets a flow, and where its replies belong.
#[inline(always)]
pub fn forget(key: &FlowKey, flow: &Flow) {
    if flow.is_direct() {
        let reply = flow.reply_key(key);
        // A later connection of the same client port may own it by now.
        if maps::reply(&reply).is_some_and(|owner| *owner == *key) {
            maps::remove_reply(&reply);
        }
    }
    maps::remove_flow(key);
}
