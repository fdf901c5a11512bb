//! Changing a port in a packet. With `packet`, the only place that knows the order of bytes on the
//! wire.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_l4_csum_replace, bpf_skb_store_bytes},
};

use crate::packet::Located;

const SOURCE: usize = 0;
const DESTINATION: usize = 2;
const CHECKSUM: usize = 16;

/// Gives the packet another destination port.
#[inline(always)]
pub fn destination(skb: *mut __sk_buff, located: &Located, port: u16) -> bool {
    replace(
        skb,
        located.tcp,
        DESTINATION,
        located.destination_port,
        port,
    )
}

/// Gives the packet another source port.
#[inline(always)]
pub fn source(skb: *mut __sk_buff, located: &Located, port: u16) -> bool {
    replace(skb, located.tcp, SOURCE, located.source_port, port)
}

/// Ports are no part of the pseudo-header: the helper is called without `BPF_F_PSEUDO_HDR`, so it
/// leaves a sum alone that the device is still to complete, and corrects every other.
#[inline(always)]
fn replace(skb: *mut __sk_buff, tcp: usize, field: usize, from: u16, to: u16) -> bool {
    let wire = to.to_be();
    // SAFETY: the helpers check the offsets against the packet.
    unsafe {
        bpf_l4_csum_replace(
            skb,
            (tcp + CHECKSUM) as u32,
            u64::from(from.to_be()),
            u64::from(wire),
            size_of::<u16>() as u64,
        ) == 0
            && bpf_skb_store_bytes(
                skb,
                (tcp + field) as u32,
                (&raw const wire).cast(),
                size_of::<u16>() as u32,
                0,
            ) == 0
    }
}
