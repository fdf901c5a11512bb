//! Identity of network namespaces, as the kernel programs see it.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
};

/// The cookie of the network namespace that a socket belongs to (`SO_NETNS_COOKIE`, Linux 5.14):
/// the number that `bpf_get_netns_cookie` gives in a kernel program.
pub fn cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut len = mem::size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the pointers are to live locals of the sizes that are passed, and the descriptor is
    // borrowed for the time of the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// From `asm-generic/socket.h`; the libc crate does not have it for every architecture.
const SO_NETNS_COOKIE: libc::c_int = 71;
