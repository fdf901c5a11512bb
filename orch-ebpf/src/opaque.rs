//! Values whose origin the compiler must not know. It draws conclusions that the verifier cannot
//! follow: it computes the same packet pointer twice, of which only one has been checked, or checks
//! a length at another place than where it is used.

/// The same value, of which the compiler knows nothing. One instruction: without any, it would have
/// line information that the kernel refuses.
#[inline(always)]
pub fn opaque(mut value: usize) -> usize {
    // SAFETY: changes nothing.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value) };
    value
}

/// A length that helpers take, at most `limit`; nothing for 0. Before Linux 6.8 the verifier learns
/// nothing from a comparison with 0, so what it sees is one less, and one more.
#[inline(always)]
pub fn length(len: usize, limit: usize) -> Option<usize> {
    if len == 0 {
        return None;
    }
    let mut rest = opaque(len - 1);
    if rest >= limit {
        rest = limit - 1;
    }
    Some(rest + 1)
}
