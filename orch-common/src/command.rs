//! What the controller asks of the command program. The map of slots has one writer, the kernel
//! side, because each entry holds counts that packets change at the same time.

use crate::{
    address::Address,
    slot::{SlotKey, SlotState},
};

/// What to do.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Create the slot, or change all of it but its counts.
    Set = 1,
    /// Remove the slot.
    Remove = 2,
    /// Correct its counts of live connections and of requests in flight from outside.
    Correct = 3,
    /// Have every flow look up the route to its client again, whatever slot is named.
    Reroute = 4,
}

/// A change of one slot: the payload of a frame that is only ever given to the command program by
/// `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotCommand {
    /// A [`Verb`].
    pub verb: u32,
    /// Which slot.
    pub key: SlotKey,
    /// Where the backend itself listens.
    pub address: Address,
    /// Its IPv6 address where it has both; zeros otherwise.
    pub address6: Address,
    /// The slot's port on this host.
    pub port: u16,
    /// The port at `address`.
    pub backend_port: u16,
    /// A [`SlotState`].
    pub state: u32,
    /// Generation of the backend.
    pub generation: u32,
    /// The host's end of the backend's interface; 0 for delivery `port`.
    pub ifindex: u32,
    /// The bridge that it is a port of; 0 if it is of none.
    pub bridge: u32,
    /// To correct: how many connections too many it has; below zero, too few.
    pub live: i32,
    /// The same of requests in flight.
    pub waiting: i32,
}

/// Length of the command's frame: an Ethernet header of zeros, then the command.
pub const FRAME_BYTES: usize = ETHERNET_BYTES + size_of::<SlotCommand>();
/// Length of an Ethernet header.
pub const ETHERNET_BYTES: usize = 14;

impl SlotCommand {
    /// The frame that carries this command.
    #[must_use]
    pub fn to_frame(&self) -> [u8; FRAME_BYTES] {
        let mut frame = [0; FRAME_BYTES];
        let mut at = ETHERNET_BYTES;
        let mut put = |bytes: &[u8]| {
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.verb.to_ne_bytes());
        put(&self.key.service.to_ne_bytes());
        put(&self.key.slot.to_ne_bytes());
        put(&self.address);
        put(&self.address6);
        put(&self.port.to_ne_bytes());
        put(&self.backend_port.to_ne_bytes());
        put(&self.state.to_ne_bytes());
        put(&self.generation.to_ne_bytes());
        put(&self.ifindex.to_ne_bytes());
        put(&self.bridge.to_ne_bytes());
        put(&self.live.to_ne_bytes());
        put(&self.waiting.to_ne_bytes());
        frame
    }
}

/// The state a command names; `Failed` for a number that none has.
#[must_use]
#[inline(always)]
pub const fn slot_state(number: u32) -> SlotState {
    match number {
        0 => SlotState::Starting,
        1 => SlotState::Ready,
        2 => SlotState::Draining,
        3 => SlotState::Stopping,
        5 => SlotState::Backoff,
        6 => SlotState::Spare,
        _ => SlotState::Failed,
    }
}

const _: () = assert!(size_of::<SlotCommand>() == 68);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive_the_way() {
        for state in SlotState::ALL {
            assert_eq!(slot_state(state as u32), state);
        }
    }
}
