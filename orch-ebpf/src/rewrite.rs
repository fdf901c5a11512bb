//! Changing addresses and ports in a packet. With `packet` and `whole`, the only place that knows the
//! order of bytes on the wire.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_PSEUDO_HDR},
    helpers::{bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_store_bytes},
};
use orch_common::{
    address::{self, Address},
    flow::{Flow, FlowKey},
};

use crate::packet::Located;

/// Offset of the checksum in a TCP header.
pub const CHECKSUM: usize = 16;
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

/// Corrects the sum by a difference in the pseudo-header.
#[inline(always)]
pub fn correct(skb: *mut __sk_buff, tcp: usize, v6: bool, difference: u64) -> bool {
    let tcp = (tcp + CHECKSUM) as u32;
    let sum = |flags: u64| {
        let flags = u64::from(BPF_F_PSEUDO_HDR) | flags;
        // SAFETY: the helper checks the offset against the packet.
        unsafe { bpf_l4_csum_replace(skb, tcp, 0, difference, flags) == 0 }
    };
    v6 && sum(F_IPV6) || sum(0)
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
