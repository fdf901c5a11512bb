//! Atomic operations on 64-bit words of maps. `core::sync::atomic` has no read-modify-write for
//! this target, the instruction set does (RFC 9669, 5.3; Linux 5.12).

use core::arch::asm;

/// Adds to a word and gives its value from before.
#[inline(always)]
pub fn fetch_add(word: *mut u64, amount: u64) -> u64 {
    let mut value = amount;
    // SAFETY: callers pass pointers into map values, which the verifier checks again: a word of
    // eight bytes at an aligned offset.
    unsafe {
        asm!("{r} = atomic_fetch_add((u64 *)({p} + 0), {r})", r = inout(reg) value, p = in(reg) word);
    }
    value
}

/// Adds to a word.
#[inline(always)]
pub fn add(word: *mut u64, amount: u64) {
    // SAFETY: as in `fetch_add`.
    unsafe {
        asm!("lock *(u64 *)({p} + 0) += {r}", r = in(reg) amount, p = in(reg) word);
    }
}

/// Stores a word and gives its value from before.
#[inline(always)]
pub fn exchange(word: *mut u64, new: u64) -> u64 {
    let mut value = new;
    // SAFETY: as in `fetch_add`.
    unsafe {
        asm!("{r} = xchg_64({p} + 0, {r})", r = inout(reg) value, p = in(reg) word);
    }
    value
}

/// Stores a word if it is as expected, and gives its value from before.
#[inline(always)]
pub fn compare_exchange(word: *mut u64, expected: u64, new: u64) -> u64 {
    let mut value = expected;
    // SAFETY: as in `fetch_add`. The instruction has its operand in r0.
    unsafe {
        asm!("r0 = cmpxchg_64({p} + 0, r0, {n})", inout("r0") value, p = in(reg) word, n = in(reg) new);
    }
    value
}
