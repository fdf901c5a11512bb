//! SYNs that wait for a backend.

use aya_ebpf::{
    btf_maps::{Array, RingBuf},
    macros::btf_map,
    maps::ring_buf::RingBufEntry,
};
use orch_common::{
    hold::{BUCKETS as BUCKET_COUNT, HELD_BYTES, HeldSyn, Holding, SIGNATURES as SIGNATURE_COUNT},
    layout::MAX_SERVICES,
};

use super::element;

#[btf_map]
static HOLDING: Array<Holding, MAX_SERVICES> = Array::new();
#[btf_map]
static HELD: RingBuf<HeldSyn, HELD_BYTES> = RingBuf::new();
#[btf_map]
static SIGNATURES: Array<u64, SIGNATURE_COUNT> = Array::new();
#[btf_map]
static BUCKETS: Array<u64, BUCKET_COUNT> = Array::new();

/// Whether and how SYNs of a service wait.
#[inline(always)]
pub fn holding(service: u32) -> Option<&'static Holding> {
    element(HOLDING.get_ptr_mut(service)).map(|holding| &*holding)
}

/// The place of a signature.
#[inline(always)]
pub fn signature(signature: u64) -> Option<&'static mut u64> {
    element(SIGNATURES.get_ptr_mut((signature >> 32) as u32 % SIGNATURE_COUNT as u32))
}

/// A token bucket.
#[inline(always)]
pub fn bucket(index: u32) -> Option<&'static mut u64> {
    element(BUCKETS.get_ptr_mut(index))
}

/// Room for a held SYN; `None` while the buffer is full.
#[inline(always)]
pub fn held() -> Option<RingBufEntry<HeldSyn>> {
    HELD.reserve(0)
}
