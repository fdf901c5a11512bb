//! A backend's RST turned back into its client's SYN, for another backend: the client sees one
//! ordinary handshake.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use orch_common::{
    counter::Reason,
    flow::{Counting, Flags, Flow, FlowKey, FlowState},
    http::Exchange,
};

use crate::{
    backend::Pick,
    choice::{self, Among},
    create, live, maps,
    packet::Located,
    rebuild, redirect,
    segment::Segment,
    syn::HEADER,
    verdict::Verdict,
};

/// How often a connection goes to another slot before its client hears the refusal.
const MOVES: u8 = 3;

/// Whether a segment refuses a SYN that can be sent again: nothing but a RST, in answer to a SYN
/// for the service.
#[inline(always)]
pub fn applies(located: &Located, segment: &Segment, flow: &Flow) -> bool {
    let plain = if located.v6 { 40 } else { 20 };
    // SAFETY: the context is the kernel's.
    let whole = unsafe { (*located.skb).len } as usize;
    flow.is_direct()
        && matches!(flow.state, FlowState::SynSent)
        && segment.flags.has(Flags::RST | Flags::ACK)
        && !matches!(flow.counting, Counting::None)
        && flow.moves < MOVES
        && located.tcp - located.ip == plain
        && whole == located.tcp + HEADER
}

/// Whether a segment refuses a SYN that can be held.
#[inline(always)]
pub fn may_wait(segment: &Segment, flow: &Flow) -> bool {
    segment.flags.has(Flags::RST | Flags::ACK) && !matches!(flow.counting, Counting::None)
}

/// Gives the connection to another slot and makes the RST its SYN. `None` if there is no other:
/// then the packet is as it was.
#[inline(always)]
pub fn again(located: &Located, key: &FlowKey, flow: &mut Flow) -> Option<Verdict> {
    if word(&maps::syn(key)?.header, 4) != flow.isn {
        return None;
    }
    let refused = flow.reply_key(key);
    let among = Among::Others(flow.slot);
    let pick = choice::choose(located.skb, key, u32::from(flow.service), among).ok()?;
    if !pick.is_direct() || move_to(flow, &pick, located.v6).is_none() {
        return None;
    }
    let tcp = located.tcp as u32;
    if create::orch_bind(key) != 0
        || rebuild::orch_rebuild(located.skb, key, &raw const refused, tcp) != 0
    {
        return Some(Verdict::Drop(Reason::Malformed));
    }
    Some(Verdict::Redirect(
        Reason::Rescued,
        redirect::into_backend(flow),
    ))
}

/// Makes the flow one of another slot, from its SYN on.
#[inline(always)]
fn move_to(flow: &mut Flow, pick: &Pick, v6: bool) -> Option<()> {
    let address = pick.address(v6)?;
    live::discount(flow);
    flow.slot = pick.key.slot;
    flow.generation = pick.slot.generation;
    flow.backend_port = pick.slot.backend_port;
    flow.address = address;
    flow.ifindex = pick.slot.ifindex;
    flow.moves += 1;
    // What came with the SYN is not sent again: the client does that.
    flow.client_next = flow.isn.wrapping_add(1);
    flow.exchange = Exchange::Idle;
    // SAFETY: the helper has no preconditions.
    flow.request_ns = unsafe { bpf_ktime_get_ns() };
    flow.live = 1;
    if let Some(slot) = maps::slot(&pick.key) {
        live::admit(slot);
    }
    Some(())
}

/// Four bytes in network order.
#[inline(always)]
const fn word(bytes: &[u8; HEADER], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
