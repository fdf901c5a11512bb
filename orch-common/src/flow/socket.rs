//! What the data plane knows of a socket of this host that it balances.

use super::{Flow, FlowKey};
use crate::address::Address;

/// A balanced socket of this host.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Socket {
    /// Its connection.
    pub flow: Flow,
    /// The address its owner asked for, which `getpeername` goes on showing.
    pub asked: Address,
    /// The port its owner asked for.
    pub asked_port: u16,
    /// Its own port, once it connects to a backend's own address.
    pub client_port: u16,
    /// Always zero.
    pub pad: [u16; 2],
    /// Its own address, likewise.
    pub client: Address,
}

impl Socket {
    /// The key of the flow in which is noted what goes on in its connection to a backend's own address
    /// ([`Flow::is_of_socket`]).
    #[must_use]
    #[inline(always)]
    pub const fn key(&self) -> FlowKey {
        FlowKey {
            client: self.client,
            local: self.flow.address,
            client_port: self.client_port,
            local_port: self.flow.backend_port,
        }
    }
}

const _: () = assert!(size_of::<Socket>() == 128);
