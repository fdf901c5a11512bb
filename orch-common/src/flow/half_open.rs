//! Flows whose handshake is not complete.

use super::FlowKey;

/// The places of half-open flows (SYN seen, handshake not complete): each new flow takes the next,
/// around and around.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Flows that have taken a place so far.
    pub tickets: u64,
    /// How many places there are: at most [`MAX_HALF_OPEN`](crate::layout::MAX_HALF_OPEN). 0 switches
    /// the bound off.
    pub places: u32,
    /// Always zero.
    pub pad: u32,
}

impl Queue {
    /// The places for a table of so many flows: a quarter of it, so that established flows have the
    /// rest whatever comes.
    #[must_use]
    pub const fn places(flows: u32) -> u32 {
        let quarter = flows / 4;
        if quarter < crate::layout::MAX_HALF_OPEN as u32 {
            quarter
        } else {
            crate::layout::MAX_HALF_OPEN as u32
        }
    }
}

const _: () = assert!(size_of::<Queue>() == 16);

/// Room for keys that do not fit on the stack of a kernel program.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    /// The connection.
    pub key: FlowKey,
    /// Another one that may be in its way.
    pub other: FlowKey,
}
