//! Sequence numbers: what is new, and what may be believed.

use super::Side;
use crate::http::is_new;

/// How far from the next expected sequence number a RST may lie and still close a flow. The ends
/// demand an exact match (RFC 5961, 3.2); in between, segments may have been lost before they came
/// by. A RST outside is forwarded and changes nothing, so that a blind one cannot end a flow.
const RESET_WINDOW: i32 = 1 << 20;

/// Whether a RST with sequence number `seq` is near enough to `expected` to be believed.
#[must_use]
#[inline(always)]
pub const fn reset_is_plausible(seq: u32, expected: u32) -> bool {
    let distance = seq.wrapping_sub(expected) as i32;
    distance >= -RESET_WINDOW && distance <= RESET_WINDOW
}

/// Largest window of TCP, in bytes (RFC 7323, 2.2): nobody may send more beyond what has been
/// acknowledged.
const LARGEST_WINDOW: u32 = 1 << 30;

/// What [`Flow::sent`](super::Flow::sent) becomes when one side has sent its bytes up to `end`, and how many of them are new:
/// none of those of a leap that no window allows. `None` if all have been there before.
#[must_use]
#[inline(always)]
pub const fn reach(sent: u64, side: Side, end: u32) -> Option<(u64, u32)> {
    let (client, server) = (sent as u32, (sent >> 32) as u32);
    let (before, next) = match side {
        Side::Client => (client, (server as u64) << 32 | end as u64),
        Side::Server => (server, (end as u64) << 32 | client as u64),
    };
    if end == before || !is_new(end, before) {
        return None;
    }
    let new = end.wrapping_sub(before);
    Some((next, if new <= LARGEST_WINDOW { new } else { 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_counts_once_and_a_wild_leap_not_at_all() {
        let word = |client: u32, server: u32| u64::from(server) << 32 | u64::from(client);
        let rows = [
            (Side::Client, 1000, None),
            (Side::Client, 900, None),
            (Side::Client, 1016, Some((word(1016, u32::MAX), 16))),
            (Side::Server, u32::MAX, None),
            (Side::Server, 15, Some((word(1000, 15), 16))),
            (
                Side::Client,
                1000 + (1 << 30),
                Some((word(1000 + (1 << 30), u32::MAX), 1 << 30)),
            ),
            (
                Side::Client,
                1001 + (1 << 30),
                Some((word(1001 + (1 << 30), u32::MAX), 0)),
            ),
        ];
        for (side, end, expected) in rows {
            assert_eq!(
                reach(word(1000, u32::MAX), side, end),
                expected,
                "{side:?} {end}"
            );
        }
    }

    #[test]
    fn a_blind_reset_is_not_believed() {
        assert!(reset_is_plausible(1000, 1000));
        assert!(reset_is_plausible(5, u32::MAX - 5));
        assert!(!reset_is_plausible(0x4000_0000, 1000));
        assert!(!reset_is_plausible(0x8000_0000, 0));
    }
}
