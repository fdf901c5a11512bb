//! Sequence numbers: what is new, and what may be believed.

use super::Side;
use crate::http::is_new;

/// How far from what is expected a segment may lie and still change the state of a flow, where no nearer
/// bound is known: what came before it may have been lost before it came by. One that lies outside is
/// forwarded and changes nothing, so that it has to be guessed among 2^32.
pub const FORGERY_WINDOW: u32 = 1 << 20;

/// Whether `seq` is `from`, or comes so little after it.
#[must_use]
#[inline(always)]
pub const fn is_in_reach(seq: u32, from: u32, most: u32) -> bool {
    seq.wrapping_sub(from) <= most
}

/// How much of what a side has sent up to `next` is not acknowledged yet.
#[must_use]
#[inline(always)]
pub const fn unacknowledged(next: u32, acked: u32) -> u32 {
    let sent = next.wrapping_sub(acked);
    if is_new(next, acked) { sent } else { 0 }
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
    fn numbers_go_around() {
        assert!(is_in_reach(1000, 1000, 0));
        assert!(!is_in_reach(999, 1000, 10));
        assert!(is_in_reach(5, u32::MAX - 5, 11));
        assert!(!is_in_reach(5, u32::MAX - 5, 10));
        assert_eq!(unacknowledged(5, u32::MAX), 6);
        assert_eq!(unacknowledged(1000, 1000), 0);
        assert_eq!(
            unacknowledged(999, 1000),
            0,
            "more was acknowledged than seen"
        );
    }
}
