//! Writing a client's SYN over the RST that refused it.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_csum_diff, bpf_l4_csum_replace, bpf_skb_change_tail, bpf_skb_change_type,
        bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
};
use orch_common::{
    address::{self, Address},
    flow::{Flow, FlowKey},
    syn::{OPTION_BYTES, Syn},
};

use crate::{
    maps,
    opaque::{self, opaque},
    rewrite::CHECKSUM,
    syn::HEADER,
    whole::{self, Whole},
};

/// `PACKET_HOST`: the RST was on its way to the bridge's address.
const TO_HOST: u32 = 0;
/// Offsets in a TCP header.
const DESTINATION_PORT: usize = 2;
const URGENT: usize = 18;

/// Makes a RST from the end that `refused` names the SYN of the flow. Checked once by itself
/// (`choice`); answers 0, or 1 if the packet is spoilt.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn orch_rebuild(
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
        || !whole::pseudo_header(&packet, (from, &flow.address), (HEADER, length))
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
    whole::ip_header(&packet, &key.client, &flow.address, syn.tos as u8, length)
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
