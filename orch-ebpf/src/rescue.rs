//! A backend's RST turned back into its client's SYN, for another backend: the client sees one
//! ordinary handshake.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_csum_diff, bpf_ktime_get_ns, bpf_l4_csum_replace, bpf_skb_change_tail,
        bpf_skb_change_type, bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
};
use orch_common::{
    address::{self, Address},
    counter::Reason,
    flow::{Counting, Flags, Flow, FlowKey, FlowState},
    http::Exchange,
    syn::{OPTION_BYTES, Syn},
};

use crate::{
    backend::Pick,
    choice::{self, Among},
    flow, live, maps,
    opaque::{self, opaque},
    packet::Located,
    redirect,
    rewrite::{self, Whole},
    segment::Segment,
    syn::HEADER,
    verdict::Verdict,
};

/// How often a connection goes to another slot before its client hears the refusal.
const MOVES: u8 = 3;
/// `PACKET_HOST`: the RST was on its way to the bridge's address.
const TO_HOST: u32 = 0;
/// Offsets in a TCP header.
const DESTINATION_PORT: usize = 2;
const CHECKSUM: usize = 16;
const URGENT: usize = 18;

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
    if flow::orch_bind(key) != 0 || orch_rebuild(located.skb, key, &raw const refused, tcp) != 0 {
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

/// Makes a RST from the end that `refused` names the SYN of the flow. Checked once by itself
/// (`choice`); answers 0, or 1 if the packet is spoilt.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_rebuild(
    skb: *mut __sk_buff,
    key: *const FlowKey,
    refused: *const FlowKey,
    tcp: u32,
) -> i32 {
    // SAFETY: the verifier knows the sizes and lets nobody call with less; both may be null.
    let (Some(key), Some(refused)) = (unsafe { (key.as_ref(), refused.as_ref()) }) else {
        return 1;
    };
    let key = *key;
    let (Some(flow), Some(syn)) = (maps::flow(&key), maps::syn(&key)) else {
        return 1;
    };
    i32::from(!rebuild(skb, tcp as usize, &key, flow, syn, &refused.local))
}

/// The sum is corrected by the difference of old and new bytes, never computed: where the device is
/// still to complete it, the helper leaves it alone for the bytes of the segment and corrects it for
/// those of the pseudo-header, and either way is right.
#[inline(always)]
fn rebuild(
    skb: *mut __sk_buff,
    tcp: usize,
    key: &FlowKey,
    flow: &Flow,
    syn: &mut Syn,
    from: &Address,
) -> bool {
    let options = opaque(syn.option_len as usize);
    if options > OPTION_BYTES {
        return false;
    }
    // In place: there is no room for a copy on the stack.
    let [high, low] = flow.backend_port.to_be_bytes();
    syn.header[DESTINATION_PORT] = high;
    syn.header[DESTINATION_PORT + 1] = low;
    let length = HEADER + options;
    let packet = Whole {
        skb,
        tcp,
        v6: !address::is_v4(&key.client),
    };
    let resize = || {
        // SAFETY: the helper checks the length.
        unsafe { bpf_skb_change_tail(skb, (tcp + length) as u32, 0) == 0 }
    };
    if !replace_sum(&packet, syn)
        || !resize()
        || !rewrite::pseudo_header(&packet, (from, &flow.address), (HEADER, length))
    {
        return false;
    }
    let new = &raw const *syn;
    let part = |offset: usize, len: usize| {
        // SAFETY: header and options lie behind each other; the helper checks the offset.
        unsafe {
            bpf_skb_store_bytes(
                skb,
                (tcp + offset) as u32,
                new.cast::<u8>().add(offset).cast(),
                len as u32,
                0,
            ) == 0
        }
    };
    if !part(0, CHECKSUM) || !part(URGENT, 2) {
        return false;
    }
    if let Some(len) = opaque::length(options, OPTION_BYTES)
        && !part(HEADER, len)
    {
        return false;
    }
    // SAFETY: the helper takes any type.
    unsafe {
        bpf_skb_change_type(skb, TO_HOST);
    }
    rewrite::ip_header(&packet, &key.client, &flow.address, syn.tos as u8, length)
}

/// Corrects the sum in the packet for its new header and options.
#[inline(always)]
fn replace_sum(packet: &Whole, new: &mut Syn) -> bool {
    let mut old = [0_u8; HEADER];
    // SAFETY: the helpers check offsets against the packet, and all buffers are live locals. Header
    // and options lie behind each other in `new`.
    unsafe {
        let at = packet.tcp as u32;
        if bpf_skb_load_bytes(packet.skb.cast(), at, old.as_mut_ptr().cast(), 20) != 0 {
            return false;
        }
        new.header[CHECKSUM] = old[CHECKSUM];
        new.header[CHECKSUM + 1] = old[CHECKSUM + 1];
        let difference = bpf_csum_diff(
            old.as_mut_ptr().cast(),
            HEADER as u32,
            (&raw mut *new).cast(),
            (HEADER + OPTION_BYTES) as u32,
            0,
        );
        bpf_l4_csum_replace(packet.skb, at + CHECKSUM as u32, 0, difference as u64, 0) == 0
    }
}

/// Four bytes in network order.
#[inline(always)]
const fn word(bytes: &[u8; HEADER], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
