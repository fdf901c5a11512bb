//! What the kernel knows about a TCP connection.

use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
/// `TCP_ESTABLISHED`, of the kernel.
pub const ESTABLISHED: u8 = 1;
/// Where `struct tcp_info` has `tcpi_bytes_acked`; `tcpi_state` is its first byte.
const BYTES_ACKED: usize = 120;
/// Where it has `tcpi_bytes_received`.
const BYTES_RECEIVED: usize = 128;

/// What the kernel knows about a connection.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Its state.
    pub state: u8,
    /// Bytes that the other end's kernel has acknowledged, our SYN among them.
    pub acked: u64,
    /// Bytes that have come in segments of the other end's.
    pub received: u64,
}

impl Info {
    /// Asks.
    pub fn of(stream: &impl AsFd) -> Self {
        let mut info = [0_u8; 256];
        let mut len = info.len() as libc::socklen_t;
        let fd = stream.as_fd().as_raw_fd();
        // SAFETY: the kernel writes at most `len` bytes to `info`, and both live on this stack.
        let done = unsafe {
            libc::getsockopt(
                fd,
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        assert!(done == 0 && len as usize >= BYTES_RECEIVED + 8, "TCP_INFO");
        let word = |at: usize| u64::from_ne_bytes(info[at..at + 8].try_into().unwrap());
        Self {
            state: info[0],
            acked: word(BYTES_ACKED),
            received: word(BYTES_RECEIVED),
        }
    }
}
