//! Changing the segment that an ICMP error quotes, so that the error fits the backend's own socket.
//! The quoted TCP checksum is left as it is: it may be cut off, and no receiver can check it.

use aya_ebpf::{
    bindings::BPF_F_PSEUDO_HDR,
    helpers::{bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace},
};
use orch_common::{
    address::{self, Address},
    flow::{Flow, FlowKey},
};

use crate::{
    icmp::Quote,
    packet::ETHERNET,
    rewrite::{F_IPV6, store},
};

/// Offset of the checksum in an ICMP header, and in an IPv4 header.
const SUM: usize = 2;
const V4_SUM: usize = 10;

/// Makes an error about a reply of this host one about the backend's own.
#[inline(always)]
pub fn to_backend(quote: &Quote, key: &FlowKey, flow: &Flow) -> bool {
    let addressed = !flow.is_direct()
        || if quote.v6 {
            v6_address(quote, &key.local, &flow.address)
        } else {
            v4_address(quote, &key.local, &flow.address)
        };
    addressed && port(quote, key.local_port, flow.backend_port)
}

/// The quoted source port.
#[inline(always)]
fn port(quote: &Quote, from: u16, to: u16) -> bool {
    let (from, to) = (from.to_be(), to.to_be());
    let size = size_of::<u16>() as u64;
    // SAFETY: the helper checks the offset against the packet.
    let corrected = unsafe {
        let sum = (quote.icmp + SUM) as u32;
        bpf_l4_csum_replace(quote.skb, sum, u64::from(from), u64::from(to), size)
    };
    corrected == 0 && store(quote.skb, quote.tcp, &to)
}

/// The error's destination and the quoted source. ICMP sums up the quoted header with that header's
/// own checksum, which cancels the change out.
#[inline(always)]
fn v4_address(quote: &Quote, from: &Address, to: &Address) -> bool {
    let old = u32::from_ne_bytes(address::v4_octets(from));
    let new = u32::from_ne_bytes(address::v4_octets(to));
    let header = |at: usize, field: usize| {
        let size = size_of::<u32>() as u64;
        let sum = (at + V4_SUM) as u32;
        // SAFETY: the helper checks the offset against the packet.
        let corrected =
            unsafe { bpf_l3_csum_replace(quote.skb, sum, u64::from(old), u64::from(new), size) };
        corrected == 0 && store(quote.skb, at + field, &new)
    };
    header(ETHERNET, 16) && header(quote.ip, 12)
}

/// The same for IPv6: the one is in the pseudo-header, the other in what is summed up.
#[inline(always)]
fn v6_address(quote: &Quote, from: &Address, to: &Address) -> bool {
    const SIZE: u32 = size_of::<Address>() as u32;
    let sum = (quote.icmp + SUM) as u32;
    // SAFETY: both addresses are live and only read; the helper checks the offset.
    let correct = |flags: u64| unsafe {
        let (old, new) = (from.as_ptr().cast_mut(), to.as_ptr().cast_mut());
        let difference = bpf_csum_diff(old.cast(), SIZE, new.cast(), SIZE, 0);
        bpf_l4_csum_replace(quote.skb, sum, 0, difference as u64, flags) == 0
    };
    let pseudo = u64::from(BPF_F_PSEUDO_HDR);
    (correct(pseudo | F_IPV6) || correct(pseudo))
        && correct(0)
        && store(quote.skb, ETHERNET + 24, to)
        && store(quote.skb, quote.ip + 8, to)
}
