//! What the kernel knows about a TCP connection.

use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
use tokio::net::TcpStream;

/// `TCP_ESTABLISHED`, of the kernel.
pub const ESTABLISHED: u8 = 1;
/// Where `struct tcp_info` has `tcpi_bytes_acked`; `tcpi_state` is its first byte.
const BYTES_ACKED: usize = 120;

/// What the kernel knows about a connection.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Its state.
    pub state: u8,
    /// Bytes that the other end's kernel has acknowledged, our SYN among them.
    pub acked: u64,
}

impl Info {
    /// Asks.
    pub fn of(stream: &TcpStream) -> Self {
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
        assert!(done == 0 && len as usize >= BYTES_ACKED + 8, "TCP_INFO");
        let bytes = info[BYTES_ACKED..BYTES_ACKED + 8].try_into().unwrap();
        Self {
            state: info[0],
            acked: u64::from_ne_bytes(bytes),
        }
    }
}
