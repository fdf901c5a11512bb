//! A TCP segment, and the first bytes of what it carries.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes};
use orch_common::{
    flow::Flags,
    http::{HEAD_BYTES, Head},
    service::PATH_BYTES,
};

use crate::opaque::length;

/// A TCP segment in plain values, host order.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Segment {
    /// The packet.
    pub skb: *mut __sk_buff,
    /// Sequence number of the first byte.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags.
    pub flags: Flags,
    /// Offset of the payload.
    pub payload: u32,
    /// Length of the payload in bytes.
    pub len: u32,
}

impl Segment {
    /// Sequence number of the data: that which comes with a SYN (RFC 7413) begins one later.
    #[inline(always)]
    pub const fn data_seq(&self) -> u32 {
        self.seq.wrapping_add(self.flags.opens() as u32)
    }

    /// The first bytes of the payload from `skip` on.
    #[inline(always)]
    pub fn head(&self, skip: u32) -> Head {
        let mut head = Head::default();
        let left = self.len.saturating_sub(skip);
        if load(self.skb, self.payload + skip, &mut head.bytes, left) {
            head.len = left.min(HEAD_BYTES as u32);
        }
        head
    }

    /// The first bytes of the request's target, which begins `skip` bytes into the payload.
    #[inline(always)]
    pub fn target(&self, skip: u32, path: &mut [u8; PATH_BYTES]) {
        load(
            self.skb,
            self.payload + skip,
            path,
            self.len.saturating_sub(skip),
        );
    }
}

/// Loads what there is, at most the whole buffer. Payload never lies in direct reach.
#[inline(always)]
fn load<const N: usize>(skb: *mut __sk_buff, offset: u32, to: &mut [u8; N], left: u32) -> bool {
    let Some(len) = length(left as usize, N) else {
        return false;
    };
    // SAFETY: `len` is between 1 and the buffer's size, which the verifier follows.
    unsafe { bpf_skb_load_bytes(skb.cast(), offset, to.as_mut_ptr().cast(), len as u32) == 0 }
}

/// Loads exactly the whole buffer.
#[inline(always)]
pub fn load_whole<const N: usize>(skb: *mut __sk_buff, offset: u32, to: &mut [u8; N]) -> bool {
    // SAFETY: the helper fills the whole buffer, or fails.
    unsafe { bpf_skb_load_bytes(skb.cast(), offset, to.as_mut_ptr().cast(), N as u32) == 0 }
}
