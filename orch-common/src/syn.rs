//! SYNs that may have to be sent again to another backend.

/// Most bytes of options that a TCP header holds (RFC 9293, 3.1).
pub const OPTION_BYTES: usize = 40;

/// A client's SYN as far as a second backend has to see it: options, flags and window decide what
/// the connection can do (RFC 9293, 3.2; RFC 3168, 6.1.1).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn {
    /// The TCP header without its options, as it was on the wire.
    pub header: [u8; 20],
    /// The options, zero-filled.
    pub options: [u8; OPTION_BYTES],
    /// Bytes of `options` that count: a multiple of 4.
    pub option_len: u32,
    /// Type of service, or traffic class.
    pub tos: u32,
}

const _: () = assert!(size_of::<Syn>() == 68);
