//! Memory that the allocator keeps.

/// Gives whole free pages between what is in use back to the kernel, where the C library can. It
/// walks all free pieces and holds up whoever allocates meanwhile: for moments of rest.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and touches only what is free, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
