//! What the kernel programs tell the controller as it happens.

use crate::slot::SlotKey;

/// What happened.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A slot answered a balanced SYN with RST: nothing listens there.
    Refused = 1,
}

/// A record of the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// Where.
    pub slot: SlotKey,
    /// Generation of the backend.
    pub generation: u32,
}
