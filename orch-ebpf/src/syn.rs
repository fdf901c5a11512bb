//! SYNs on their way: kept until they are answered, in case somebody else has to answer them.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes};
use orch_common::{
    flow::FlowKey,
    syn::{OPTION_BYTES, Syn},
};

use crate::{maps, opaque::length, packet::Located, reach::read, segment::Segment};

/// Bytes of a TCP header without options.
pub const HEADER: usize = 20;

/// Remembers a client's SYN.
#[inline(always)]
pub fn remember(located: &Located, key: &FlowKey, segment: &Segment) {
    if let Some(tos) = tos(located) {
        let options = segment.payload as usize - located.tcp - HEADER;
        orch_remember(located.skb, key, located.tcp as u32, options as u32, tos);
    }
}

/// The header is at `tcp`, with so many bytes of options. Checked once by itself (`choice`), and
/// always 0.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_remember(
    skb: *mut __sk_buff,
    key: *const FlowKey,
    tcp: u32,
    options: u32,
    tos: u32,
) -> i32 {
    // SAFETY: the verifier knows the key's size and lets nobody call with less; it may be null.
    let Some(key) = (unsafe { key.as_ref() }) else {
        return 0;
    };
    let key = *key;
    if let Some(syn) = read_syn(skb, tcp, options as usize, tos) {
        maps::insert_syn(&key, &syn);
    }
    0
}

#[inline(always)]
fn read_syn(skb: *mut __sk_buff, tcp: u32, options: usize, tos: u32) -> Option<Syn> {
    let mut syn = Syn {
        header: [0; HEADER],
        options: [0; OPTION_BYTES],
        option_len: options as u32,
        tos,
    };
    load(skb, tcp, &mut syn.header, HEADER)?;
    if options > OPTION_BYTES {
        return None;
    }
    if let Some(len) = length(options, OPTION_BYTES) {
        load(skb, tcp + HEADER as u32, &mut syn.options, len)?;
    }
    Some(syn)
}

/// Loads bytes of the TCP header.
#[inline(always)]
fn load<const N: usize>(
    skb: *mut __sk_buff,
    offset: u32,
    to: &mut [u8; N],
    len: usize,
) -> Option<()> {
    // SAFETY: callers ask for 1 to N bytes, which the verifier follows; the helper checks the offset.
    let failed =
        unsafe { bpf_skb_load_bytes(skb.cast(), offset, to.as_mut_ptr().cast(), len as u32) };
    (failed == 0).then_some(())
}

/// Type of service, or traffic class: it has the bits of ECN (RFC 3168, 5).
#[inline(always)]
fn tos(located: &Located) -> Option<u32> {
    if located.v6 {
        return Some(u32::from(read!(located.skb, located.ip, u16)? >> 4) & 0xff);
    }
    Some(u32::from(read!(located.skb, located.ip + 1, u8)?))
}
