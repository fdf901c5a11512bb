//! Slots: stable places in a service, and what runs in them now.

use crate::{address::Address, layout::SLOTS_PER_SERVICE};

/// Key of everything that is kept per slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotKey {
    /// Index of the service.
    pub service: u16,
    /// Number of the slot in the service.
    pub slot: u16,
}

impl SlotKey {
    /// Index of the slot among all slots.
    #[must_use]
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.service as u32 * SLOTS_PER_SERVICE as u32 + self.slot as u32
    }

    /// As one number, the service in its upper half: functions that the verifier checks by themselves
    /// take numbers and pointers alone.
    #[must_use]
    #[inline(always)]
    pub const fn packed(self) -> u32 {
        (self.service as u32) << 16 | self.slot as u32
    }

    /// From such a number.
    #[must_use]
    #[inline(always)]
    pub const fn unpacked(number: u32) -> Self {
        Self {
            service: (number >> 16) as u16,
            slot: number as u16,
        }
    }
}

/// A backend as a process: which slot it runs in.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The slot.
    pub slot: SlotKey,
    /// The generation of the backend.
    pub generation: u32,
}

/// What a slot is doing.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SlotState {
    /// A backend was started and has not answered a probe with 200 yet.
    #[default]
    Starting = 0,
    /// In the ring.
    Ready = 1,
    /// Out of the ring; its live flows may finish.
    Draining = 2,
    /// Its backend has been told to stop.
    Stopping = 3,
    /// Its backend died or failed its probes.
    Failed = 4,
    /// It failed repeatedly and waits before the next try.
    Backoff = 5,
    /// A ready backend without a slot.
    Spare = 6,
}

impl SlotState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Ready,
        Self::Draining,
        Self::Stopping,
        Self::Failed,
        Self::Backoff,
        Self::Spare,
    ];

    /// The word for it: in JSON, in tables, as metric label and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
            Self::Backoff => "backoff",
            Self::Spare => "spare",
        }
    }
}

/// A slot as the kernel programs see it, and as a person sees it with `bpftool map dump name SLOTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Where the backend itself listens.
    pub address: Address,
    /// Its IPv6 address where `address` is IPv4 and it has both; zeros otherwise.
    pub address6: Address,
    /// The slot's port on this host.
    pub port: u16,
    /// The port at `address`.
    pub backend_port: u16,
    /// What the slot is doing.
    pub state: SlotState,
    /// Raised with every new backend; flows of an older one are dead.
    pub generation: u32,
    /// The host's end of the backend's interface, for delivery `direct`; 0 for delivery `port`.
    pub ifindex: u32,
    /// The bridge that `ifindex` is a port of; 0 if it is of none.
    pub bridge: u32,
    /// 1 while the backend is thought to answer. Cleared by whoever sees it die: picks pass it by
    /// before the controller has taken it out of the ring.
    pub alive: u32,
    /// Connections that are open now, from outside and from this host.
    pub live: u64,
    /// Connections ever given to this slot.
    pub connections: u64,
    /// Those of `live` whose client is a socket of this host.
    pub local: u64,
}

const _: () = assert!(size_of::<Slot>() == 80);
const _: () = assert!(size_of::<Owner>() == 8);
