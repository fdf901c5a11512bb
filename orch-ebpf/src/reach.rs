//! The bytes of a packet that lie in direct reach of a program.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_pull_data};

use crate::opaque::opaque;

/// A pointer to `T` at an offset, if all of it lies within reach.
#[inline(always)]
pub fn at<T>(skb: *mut __sk_buff, offset: usize) -> Option<*const T> {
    // SAFETY: the context is the kernel's; the verifier knows these two fields.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    if data + offset + size_of::<T>() > end {
        return None;
    }
    Some((data + offset) as *const T)
}

/// A pointer to `T` at an offset that is not known at compile time.
#[inline(always)]
pub fn at_unknown<T>(skb: *mut __sk_buff, offset: usize) -> Option<*const T> {
    // SAFETY: as in `at`.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    let start = opaque(data + offset);
    if start + size_of::<T>() > end {
        return None;
    }
    Some(start as *const T)
}

/// A number in network order. IP headers are aligned to four bytes in memory (`NET_IP_ALIGN`).
macro_rules! read {
    ($skb:expr, $offset:expr, $kind:ty) => {
        $crate::reach::at::<$kind>($skb, $offset).map(|pointer| {
            // SAFETY: `at` has checked the bounds, and the verifier checks them again.
            <$kind>::from_be(unsafe { *pointer })
        })
    };
}
pub(crate) use read;

/// Brings headers into direct reach. Only TC programs may; at a socket they always are.
#[inline(always)]
pub fn pull(skb: *mut __sk_buff, bytes: u32) {
    // SAFETY: the context is the kernel's. A packet shorter than asked for stays as it is.
    unsafe {
        let len = (*skb).len.min(bytes);
        bpf_skb_pull_data(skb, len);
    }
}
