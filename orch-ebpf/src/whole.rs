//! Packets that are written anew behind their link header.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_PSEUDO_HDR},
    helpers::{bpf_csum_diff, bpf_l4_csum_replace},
};
use orch_common::address::{self, Address};

use crate::{
    packet::ETHERNET,
    rewrite::{CHECKSUM, correct, store},
};

const TCP: u8 = 6;
/// Hops of packets that are made here: the recommended default (RFC 1700).
const HOPS: u8 = 64;

/// Such a packet.
pub struct Whole {
    /// The packet.
    pub skb: *mut __sk_buff,
    /// Offset of the TCP header.
    pub tcp: usize,
    /// Whether it is IPv6.
    pub v6: bool,
}

/// Corrects the sum for a pseudo-header in which one address took the place of another, and whose
/// segment, without payload, has another length.
#[inline(always)]
pub fn pseudo_header(
    packet: &Whole,
    addresses: (&Address, &Address),
    lengths: (usize, usize),
) -> bool {
    const SIZE: u32 = size_of::<Address>() as u32;
    let wire = |length: usize| u64::from((length as u16).to_be());
    // SAFETY: both addresses are live; the helper checks the offset against the packet.
    unsafe {
        let difference = bpf_csum_diff(
            addresses.0.as_ptr().cast_mut().cast(),
            SIZE,
            addresses.1.as_ptr().cast_mut().cast(),
            SIZE,
            0,
        );
        correct(packet.skb, packet.tcp, packet.v6, difference as u64)
            && bpf_l4_csum_replace(
                packet.skb,
                (packet.tcp + CHECKSUM) as u32,
                wire(lengths.0),
                wire(lengths.1),
                u64::from(BPF_F_PSEUDO_HDR) | size_of::<u16>() as u64,
            ) == 0
    }
}

/// Writes a whole IP header without options, for so many bytes of TCP header and payload.
#[inline(always)]
pub fn ip_header(packet: &Whole, from: &Address, to: &Address, tos: u8, length: usize) -> bool {
    if packet.v6 {
        let head = (6 << 28 | u32::from(tos) << 20).to_be_bytes();
        let len = (length as u16).to_be_bytes();
        let next = [len[0], len[1], TCP, HOPS];
        return store(packet.skb, ETHERNET, &head)
            && store(packet.skb, ETHERNET + 4, &next)
            && store(packet.skb, ETHERNET + 8, from)
            && store(packet.skb, ETHERNET + 24, to);
    }
    let total = (20 + length) as u16;
    let [high, low] = total.to_be_bytes();
    // Not to be fragmented, as Linux sends its SYNs (ip(7), IP_MTU_DISCOVER).
    let mut words = [
        u32::from_ne_bytes([0x45, tos, high, low]),
        u32::from_ne_bytes([0, 0, 0x40, 0]),
        u32::from_ne_bytes([HOPS, TCP, 0, 0]),
        u32::from_ne_bytes(address::v4_octets(from)),
        u32::from_ne_bytes(address::v4_octets(to)),
    ];
    let size = size_of_val(&words) as u32;
    // SAFETY: the words live on the stack.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, words.as_mut_ptr(), size, 0) };
    let mut sum = sum as u64 & 0xffff_ffff;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    let [first, second] = (!(sum as u16)).to_ne_bytes();
    words[2] = u32::from_ne_bytes([HOPS, TCP, first, second]);
    store(packet.skb, ETHERNET, &words)
}
