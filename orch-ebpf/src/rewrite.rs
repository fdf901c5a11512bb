//! Changing addresses and ports in a packet. With `packet`, the only place that knows the order of
//! bytes on the wire.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_PSEUDO_HDR},
    helpers::{bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_store_bytes},
};
use orch_common::{
    address::{self, Address},
    flow::{Flow, FlowKey},
};

use crate::packet::{ETHERNET, Located};

const CHECKSUM: usize = 16;
const TCP: u8 = 6;
/// Hops of packets that are made here: the recommended default (RFC 1700).
const HOPS: u8 = 64;
const V4_CHECKSUM: usize = 10;
/// `BPF_F_IPV6` (Linux 6.16): a packet whose device has summed it up whole (`CHECKSUM_COMPLETE`) is
/// summed up right only with it, since IPv6 has no header checksum to cancel the change out.
pub const F_IPV6: u64 = 1 << 7;

/// One of the two ends that a packet names.
#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

/// Sends a client's packet to the backend of its flow.
#[inline(always)]
pub fn to_backend(located: &Located, key: &FlowKey, flow: &Flow) -> bool {
    (!flow.is_direct() || address(located, End::Destination, &key.local, &flow.address))
        && port(
            located,
            End::Destination,
            located.destination_port,
            flow.backend_port,
        )
}

/// Makes a backend's packet one from the address that its client connected to.
#[inline(always)]
pub fn to_client(located: &Located, key: &FlowKey, flow: &Flow) -> bool {
    (!flow.is_direct() || address(located, End::Source, &flow.address, &key.local))
        && port(located, End::Source, located.source_port, key.local_port)
}

/// Ports are no part of the pseudo-header: the helper is called without `BPF_F_PSEUDO_HDR`, so it
/// leaves a sum alone that the device is still to complete, and corrects every other.
#[inline(always)]
fn port(located: &Located, end: End, from: u16, to: u16) -> bool {
    let wire = to.to_be();
    let field = match end {
        End::Source => 0,
        End::Destination => 2,
    };
    // SAFETY: the helpers check the offsets against the packet.
    unsafe {
        bpf_l4_csum_replace(
            located.skb,
            (located.tcp + CHECKSUM) as u32,
            u64::from(from.to_be()),
            u64::from(wire),
            size_of::<u16>() as u64,
        ) == 0
            && store(located.skb, located.tcp + field, &wire)
    }
}

/// Addresses are part of the pseudo-header, which every sum covers.
#[inline(always)]
fn address(located: &Located, end: End, from: &Address, to: &Address) -> bool {
    if located.v6 {
        v6_address(located, end, from, to)
    } else {
        v4_address(located, end, from, to)
    }
}

#[inline(always)]
fn v4_address(located: &Located, end: End, from: &Address, to: &Address) -> bool {
    let field = match end {
        End::Source => 12,
        End::Destination => 16,
    };
    let (old, new) = (
        u32::from_ne_bytes(address::v4_octets(from)),
        u32::from_ne_bytes(address::v4_octets(to)),
    );
    let (before, after) = (u64::from(old), u64::from(new));
    let (ip, tcp) = (located.ip + V4_CHECKSUM, located.tcp + CHECKSUM);
    let size = size_of::<u32>() as u64;
    // SAFETY: the helpers check the offsets against the packet.
    unsafe {
        bpf_l3_csum_replace(located.skb, ip as u32, before, after, size) == 0
            && bpf_l4_csum_replace(
                located.skb,
                tcp as u32,
                before,
                after,
                u64::from(BPF_F_PSEUDO_HDR) | size,
            ) == 0
            && store(located.skb, located.ip + field, &new)
    }
}

#[inline(always)]
fn v6_address(located: &Located, end: End, from: &Address, to: &Address) -> bool {
    const SIZE: u32 = size_of::<Address>() as u32;
    let field = match end {
        End::Source => 8,
        End::Destination => 24,
    };
    // Read twice: a flow may get another backend meanwhile.
    let new = *to;
    // SAFETY: both addresses are live.
    let difference = unsafe {
        bpf_csum_diff(
            from.as_ptr().cast_mut().cast(),
            SIZE,
            new.as_ptr().cast_mut().cast(),
            SIZE,
            0,
        )
    };
    correct(located.skb, located.tcp, true, difference as u64)
        && store(located.skb, located.ip + field, &new)
}

/// A packet that is written anew behind its link header.
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

/// Corrects the sum by a difference in the pseudo-header.
#[inline(always)]
fn correct(skb: *mut __sk_buff, tcp: usize, v6: bool, difference: u64) -> bool {
    let tcp = (tcp + CHECKSUM) as u32;
    let sum = |flags: u64| {
        let flags = u64::from(BPF_F_PSEUDO_HDR) | flags;
        // SAFETY: the helper checks the offset against the packet.
        unsafe { bpf_l4_csum_replace(skb, tcp, 0, difference, flags) == 0 }
    };
    v6 && sum(F_IPV6) || sum(0)
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

/// Writes plain bytes into the packet.
#[inline(always)]
pub fn store<T: Copy>(skb: *mut __sk_buff, offset: usize, value: &T) -> bool {
    // SAFETY: the helper checks the offset against the packet; the value is live and plain.
    unsafe {
        bpf_skb_store_bytes(
            skb,
            offset as u32,
            core::ptr::from_ref(value).cast(),
            size_of::<T>() as u32,
            0,
        ) == 0
    }
}
