//! Memory that the allocator keeps.

/// What may lie free at the end of a heap (each thread has one) before it is given back.
#[cfg(target_env = "gnu")]
const SPARE: libc::c_int = 512 << 10;
/// Larger pieces are mapped one by one. The C library would raise both of these by itself, and then
/// keep megabytes.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 4 << 20;

/// Has the allocator keep little of what is free, where the C library can: to be said at the start.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and changes two numbers under the allocator's own locks.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, SPARE);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Gives whole free pages between what is in use back to the kernel, where the C library can. It
/// walks all free pieces and holds up whoever allocates meanwhile: for moments of rest.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and touches only what is free, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
