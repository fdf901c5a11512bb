//! Services: what listens, which ports are whose, and the ring of ready slots.

use crate::{
    address::Address,
    flow::Counting,
    layout::{MAGLEV_BYTES, RING_BANKS, RING_TURNS},
};

/// A service as the kernel programs need it. Key: the service's index, `0..MAX_SERVICES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Bank of [`Ring`] in force; only its low bits count. Written last when a ring changes.
    pub ring: u32,
    /// The port that clients connect to.
    pub listen_port: u16,
    /// 1 if outsiders may connect to slot ports past the balancer.
    pub expose_slots: u8,
    /// Which requests count.
    pub counting: Counting,
    /// How a slot is chosen.
    pub balance: Balance,
    /// Always zero.
    pub pad: [u8; 3],
}

/// How a slot is chosen for a connection.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The next turn of the ring.
    #[default]
    RoundRobin = 0,
    /// The slot with the fewest live connections for its weight; among equals, the next in the ring.
    LeastConnections = 1,
    /// The slot that the client's address belongs to, by a [`Maglev`] table.
    SourceIp = 2,
}

/// Key of the map of listeners.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    /// A local address, or `ANY_V4` or `ANY_V6`.
    pub address: Address,
    /// The port that clients connect to.
    pub port: u16,
    /// Always zero.
    pub pad: u16,
}

/// Key of a ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RingKey {
    /// Index of the service.
    pub service: u16,
    /// `0..RING_BANKS`.
    pub bank: u16,
}

impl RingKey {
    /// The key of the bank that `generation` names.
    #[must_use]
    #[inline(always)]
    pub const fn new(service: u16, generation: u32) -> Self {
        Self {
            service,
            bank: (generation as usize & (RING_BANKS - 1)) as u16,
        }
    }
}

/// The sequence of slots that the cursor walks: only slots that are ready. A slot of greater weight
/// has more turns.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// How many of `turns` count.
    pub len: u32,
    /// Who is served, in this order.
    pub turns: [Turn; RING_TURNS],
}

/// One turn of a ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The slot whose turn it is.
    pub slot: u8,
    /// Its weight, 1 or more: what `LeastConnections` divides its connections by. Of those with equally
    /// many for it, turns decide.
    pub weight: u8,
}

impl Ring {
    /// A ring of these turns; those past `RING_TURNS` are left out.
    #[must_use]
    pub fn new(order: impl IntoIterator<Item = Turn>) -> Self {
        let mut ring = Self {
            len: 0,
            turns: [Turn::default(); RING_TURNS],
        };
        for (place, turn) in ring.turns.iter_mut().zip(order) {
            *place = turn;
            ring.len += 1;
        }
        ring
    }

    /// The turns that count.
    #[must_use]
    pub fn turns(&self) -> &[Turn] {
        &self.turns[..(self.len as usize).min(RING_TURNS)]
    }
}

/// Slots by the hash of a client's address, filled as `select::maglev` does.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maglev {
    /// The slot of each hash, `0..MAGLEV_SIZE`; what lies behind is not used.
    pub slots: [u8; MAGLEV_BYTES],
}

/// What a TCP port of this host is to the balancer.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortClass {
    /// Nothing: packets pass untouched.
    #[default]
    Other = 0,
    /// At least one service listens on it.
    Service = 1,
    /// It belongs to a slot.
    Slot = 2,
}

/// What a TCP port of this host is, and to whom it belongs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// What the port is.
    pub class: PortClass,
    /// Number of the slot, for `PortClass::Slot`.
    pub slot: u8,
    /// Index of the service, for `PortClass::Slot`.
    pub service: u16,
    /// The port that the service listens on, for `PortClass::Slot`.
    pub listen_port: u16,
    /// 1 if outsiders may connect to it past the balancer.
    pub exposed: u8,
    /// 1 if backends listen on this port at addresses of their own.
    pub backend: u8,
}

/// A network namespace of this host.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Netns {
    /// Why it is known.
    pub kind: NetnsKind,
    /// Bridges of this host that its interfaces are ports of; 0 for none.
    pub bridges: [u32; NETNS_BRIDGES],
}

/// Bridges of a namespace that are known.
pub const NETNS_BRIDGES: usize = 3;

/// Why a network namespace is known.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetnsKind {
    /// The controller's own: its loopback is the services' loopback.
    Host = 1,
    /// A container's on this host: its own loopback is left alone.
    Container = 2,
}

/// Bytes of a path that rules can tell apart.
pub const PATH_BYTES: usize = 64;

/// Key of the trie of path rules: service index, then the path's first bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathKey {
    /// Index of the service.
    pub service: [u8; 4],
    /// The first bytes of the path, zero-filled.
    pub path: [u8; PATH_BYTES],
}

impl PathKey {
    /// Bits of the trie's key that are always compared: those of the service.
    pub const SERVICE_BITS: u32 = 32;
    /// All bits of the trie's key.
    pub const BITS: u32 = Self::SERVICE_BITS + 8 * PATH_BYTES as u32;

    /// The key for a path: its first `PATH_BYTES` bytes.
    #[must_use]
    pub fn new(service: u32, path: &[u8]) -> Self {
        let mut key = Self {
            service: service.to_ne_bytes(),
            path: [0; PATH_BYTES],
        };
        let len = path.len().min(PATH_BYTES);
        key.path[..len].copy_from_slice(&path[..len]);
        key
    }
}

/// The verdict of a path rule.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathRule {
    /// Requests below this path count.
    Count = 1,
    /// Requests below this path do not count.
    Exclude = 2,
}

const _: () = assert!(size_of::<Service>() == 12);
const _: () = assert!(size_of::<Port>() == 8);
const _: () = assert!(size_of::<Netns>() == 16);
const _: () = assert!(size_of::<ListenerKey>() == 20);
const _: () = assert!(size_of::<Ring>() == 4 + 2 * RING_TURNS);
const _: () = assert!(size_of::<Maglev>() == MAGLEV_BYTES);
