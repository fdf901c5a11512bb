//! What the kernel programs tell the controller as it happens.

use crate::slot::SlotKey;

/// What happened.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A slot answered a balanced SYN with RST, nothing listening there, or its interface is gone.
    Refused = 1,
    /// The first process of a slot's backend has ended.
    Exited = 2,
    /// Somebody has told the first process of a slot's backend to end.
    Signalled = 3,
    /// A slot has stopped answering while its peers go on.
    Silent = 4,
    /// A slot answers with server errors while its peers do not.
    Failing = 5,
}

impl EventKind {
    /// The kind with this number.
    #[must_use]
    #[inline(always)]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Refused),
            2 => Some(Self::Exited),
            3 => Some(Self::Signalled),
            4 => Some(Self::Silent),
            5 => Some(Self::Failing),
            _ => None,
        }
    }

    /// Whether it is no more than a suspicion, which comes of comparing a slot with its peers.
    #[must_use]
    #[inline(always)]
    pub const fn is_compared(self) -> bool {
        matches!(self, Self::Silent | Self::Failing)
    }

    /// The word for it: in JSON and in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Exited => "exited",
            Self::Signalled => "signalled",
            Self::Silent => "silent",
            Self::Failing => "failing",
        }
    }
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

impl Event {
    /// A record as it comes out of the ring buffer. `None` if it is of another size or kind.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; size_of::<Self>()] = bytes.try_into().ok()?;
        let [k0, k1, k2, k3, s0, s1, n0, n1, g0, g1, g2, g3] = *bytes;
        Some(Self {
            kind: EventKind::from_number(u32::from_ne_bytes([k0, k1, k2, k3]))?,
            slot: SlotKey {
                service: u16::from_ne_bytes([s0, s1]),
                slot: u16::from_ne_bytes([n0, n1]),
            },
            generation: u32::from_ne_bytes([g0, g1, g2, g3]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut bytes = [0; 12];
        bytes[0..4].copy_from_slice(&1_u32.to_ne_bytes());
        bytes[4..6].copy_from_slice(&3_u16.to_ne_bytes());
        bytes[6..8].copy_from_slice(&9_u16.to_ne_bytes());
        bytes[8..12].copy_from_slice(&77_u32.to_ne_bytes());
        let event = Event::from_bytes(&bytes).unwrap();
        assert_eq!(
            (event.slot.service, event.slot.slot, event.generation),
            (3, 9, 77)
        );
        bytes[0] = 77;
        assert_eq!(Event::from_bytes(&bytes), None);
        assert_eq!(Event::from_bytes(&bytes[..11]), None);
    }
}
