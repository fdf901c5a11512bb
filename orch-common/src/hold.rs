//! SYNs that wait for a backend: what the kernel hands to the controller, and on which terms.

use crate::{address::Address, flow::FlowKey, layout::MAX_SERVICES};

/// Longest frame of a SYN that is kept: the longest headers (Ethernet, IPv4 with options, TCP with
/// options: 134 bytes), and room for extension headers of IPv6. A SYN with data is longer (RFC
/// 7413): its client sends it again without (4.1.3).
pub const FRAME_BYTES: usize = 168;
/// Bytes of the ring buffer of held SYNs.
pub const HELD_BYTES: usize = 1 << 20;
/// Signatures of SYNs that are held. Two with one place: the later one's repetitions are copied
/// too, and known by the controller.
pub const SIGNATURES: usize = 16_384;
/// Buckets of sources, after those of services.
pub const SOURCES: usize = 4096;
/// Token buckets of all kinds.
pub const BUCKETS: usize = MAX_SERVICES + SOURCES;
/// SYNs that may come at once, in seconds of their rate.
pub const BURST_NS: u64 = 1_000_000_000;
/// One source may have a quarter of a service's rate.
pub const SOURCE_SHARE: u64 = 4;
/// A SYN that has been without an answer for so long, on one host, will have none of a backend that
/// is dead: an answer takes microseconds.
pub const REPLAY_AFTER_NS: u64 = 30_000_000;
/// Length of a record that holds a [`crate::syn::Syn`]: what is remembered of a SYN that the only
/// backend has refused.
pub const REMEMBERED: u16 = 0;
/// Length of a record without a frame: a socket of this host has sent its SYN to a backend's own
/// address, whose process has ended since. It goes on waiting for an answer from there.
pub const OF_SOCKET: u16 = u16::MAX;
/// Mark of a packet that is not held: the host may answer it.
pub const LET_GO: u32 = 0x6f72_6368;

/// Whether and how SYNs of a service wait while it has no backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// They wait until then (`CLOCK_MONOTONIC`): without a controller nobody would send them on.
    pub until_ns: u64,
    /// Time per SYN of the service: a second by its limit.
    pub cost_ns: u64,
    /// Port of the loopback where the controller takes connections of this host; 0 for none.
    pub listener: u16,
    /// Port where it takes those of containers, at every address of the host and by its bridges
    /// alone; 0 for none.
    pub bridge_listener: u16,
    /// Which controller it is: what an earlier one held is held no more.
    pub session: u32,
}

/// What is to become of a SYN that was held.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// It arrives as if it had just come.
    Arrive = 0,
    /// The same, but it is not held again: the host answers it if nobody else does.
    LetGo = 1,
    /// Nothing: its client sends it again.
    Forget = 2,
    /// It arrives once more although it has a flow: its backend is dead.
    Replay = 3,
}

/// A SYN that waits: a record of the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldSyn {
    /// Whose it is.
    pub key: FlowKey,
    /// Its sequence number: another one is another connection.
    pub seq: u32,
    /// The interface by which it came.
    pub ifindex: u32,
    /// Index of the service.
    pub service: u16,
    /// Bytes of `frame` that count; [`REMEMBERED`] or [`OF_SOCKET`] where it is no frame.
    pub len: u16,
    /// The frame as it came, from its Ethernet header on.
    pub frame: [u8; FRAME_BYTES],
}

impl HeldSyn {
    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let len = usize::from(self.len).min(FRAME_BYTES);
        self.frame.split_at(len).0
    }
}

/// A number that tells one SYN from another, never 0.
#[must_use]
#[inline(always)]
pub fn signature(key: &FlowKey, seq: u32, session: u32) -> u64 {
    let ports = u64::from(key.client_port) << 16 | u64::from(key.local_port);
    let mut hash = mix(u64::from(seq) | ports << 32) ^ u64::from(session);
    hash = add(hash, &key.client);
    add(hash, &key.local) | 1
}

/// The bucket of a source: an address of IPv4, or a network of IPv6 (RFC 4291, 2.5.1: its first
/// half names the network).
#[must_use]
#[inline(always)]
pub fn source_bucket(client: &Address) -> u32 {
    let [first, last] = halves(client);
    let source = if first == 0 { last } else { first };
    (mix(source) >> 32) as u32 % SOURCES as u32 + MAX_SERVICES as u32
}

/// What a SYN costs its source, if it costs its service so much: a bucket gives one at the least.
#[must_use]
#[inline(always)]
pub const fn source_cost(cost: u64) -> u64 {
    let share = SOURCE_SHARE * cost;
    if share < BURST_NS { share } else { BURST_NS }
}

/// Takes a token. `full_at` is when the bucket will be full again: the whole of its state (the
/// generic cell rate algorithm). Gives its new value; `None` if the bucket is empty.
#[must_use]
#[inline(always)]
pub const fn take_token(full_at: u64, now: u64, cost: u64) -> Option<u64> {
    let base = if full_at > now { full_at } else { now };
    let next = base + cost;
    if next - now > BURST_NS {
        return None;
    }
    Some(next)
}

#[inline(always)]
fn add(hash: u64, address: &Address) -> u64 {
    let [first, last] = halves(address);
    mix(mix(hash ^ first) ^ last)
}

#[inline(always)]
const fn halves(address: &Address) -> [u64; 2] {
    let a = *address;
    [
        u64::from_ne_bytes([a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]]),
        u64::from_ne_bytes([a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15]]),
    ]
}

/// The finalizer of `SplitMix64`: every bit of the input changes half of the output's.
#[inline(always)]
const fn mix(mut value: u64) -> u64 {
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

const _: () = assert!(size_of::<Holding>() == 24);
const _: () = assert!(size_of::<HeldSyn>() == 48 + FRAME_BYTES);
const _: () = assert!(size_of::<crate::syn::Syn>() <= FRAME_BYTES);
const _: () = assert!(SIGNATURES.is_power_of_two() && SOURCES.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::from_v4;

    fn key(last: u8, client_port: u16) -> FlowKey {
        FlowKey {
            client: from_v4([10, 9, 0, last]),
            local: from_v4([10, 9, 0, 1]),
            client_port,
            local_port: 80,
        }
    }

    #[test]
    fn every_part_of_a_syn_changes_its_signature() {
        let plain = signature(&key(2, 4000), 7, 1);
        assert_eq!(plain, signature(&key(2, 4000), 7, 1));
        let mut other = key(2, 4000);
        other.local = from_v4([10, 9, 0, 9]);
        let others = [
            signature(&key(3, 4000), 7, 1),
            signature(&key(2, 4001), 7, 1),
            signature(&key(2, 4000), 8, 1),
            signature(&key(2, 4000), 7, 2),
            signature(&other, 7, 1),
        ];
        assert!(others.iter().all(|one| *one != plain), "{others:?}");
    }

    #[test]
    fn a_bucket_gives_a_second_of_its_rate_at_once_and_then_its_rate() {
        let cost = BURST_NS / 100;
        let (mut full_at, mut given) = (0, 0);
        while let Some(next) = take_token(full_at, 5 * BURST_NS, cost) {
            (full_at, given) = (next, given + 1);
        }
        assert_eq!(given, 100);
        assert!(take_token(full_at, 5 * BURST_NS + cost / 2, cost).is_none());
        assert!(take_token(full_at, 5 * BURST_NS + cost, cost).is_some());
    }

    #[test]
    fn a_source_has_its_share_and_one_at_the_least() {
        assert_eq!(source_cost(BURST_NS / 100), BURST_NS / 25);
        for limit in 1..=4 {
            let cost = source_cost(BURST_NS / limit);
            assert!(take_token(0, 5 * BURST_NS, cost).is_some(), "{limit}");
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let mut one = [0x20; 16];
        let bucket = source_bucket(&one);
        one[15] = 9;
        assert_eq!(source_bucket(&one), bucket);
        assert!(bucket >= MAX_SERVICES as u32 && bucket < BUCKETS as u32);
        assert_ne!(
            source_bucket(&from_v4([10, 0, 0, 1])),
            source_bucket(&from_v4([10, 0, 0, 2]))
        );
    }
}
