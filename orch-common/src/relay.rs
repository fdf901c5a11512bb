//! Connections between the gateway and a copy on the same host, whose bytes go from one socket into
//! the other: past TCP, the bridge, and conntrack, which have both ends all the same.
//!
//! What a copy answers may come by either way, so the order is to be kept: a socket gives out what was
//! put into it before what came by TCP (`tcp_bpf_recvmsg` in the kernel's `net/ipv4/tcp_bpf.c`). So
//! within an answer TCP may follow, and nothing is put in after it until the gateway asks again,
//! which it does when it has read all of the answer before. Nor does one reading give out both: who has
//! been given fewer bytes than there was room for has to ask once more.

/// Priority (`socket(7)`, `SO_PRIORITY`) of the gateway's sockets whose bytes may go so: on them it
/// only asks for what has no body, and each time in one piece. It takes `CAP_NET_ADMIN`, or
/// `CAP_NET_RAW`, to set it, and counts in the host's network namespace alone.
pub const PRIORITY: u32 = 0x6f72_6368;

/// Bytes of an answer, or of what is asked before one comes, that are put into the other's socket, with
/// the piece that they end in. The kernel does not bound what waits there, TCP does: the rest comes so.
pub const MOST: u32 = 1 << 20;

/// As so many bytes each piece counts at the least: the kernel's notes of one take about that.
pub const PIECE: u32 = 1 << 10;

/// An end of a connection as both ends know it: where each side's numbers began, which nobody else
/// can tell (RFC 6528), so that the same addresses in two namespaces are no danger.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayKey {
    /// The number of the first byte that this end sends.
    pub own_next: u32,
    /// The number of the first byte that the other end sends.
    pub peer_next: u32,
    /// This end's port.
    pub own_port: u16,
    /// The other end's port.
    pub peer_port: u16,
}

const _: () = assert!(size_of::<RelayKey>() == 12);

impl RelayKey {
    /// The other end.
    #[must_use]
    #[inline(always)]
    pub const fn flipped(self) -> Self {
        Self {
            own_next: self.peer_next,
            peer_next: self.own_next,
            own_port: self.peer_port,
            peer_port: self.own_port,
        }
    }
}

/// A connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relay {
    /// The copy's end is known, too: 1.
    pub joined: u32,
    /// Bytes asked since the last answer.
    pub asked: u32,
    /// Bytes of the answer so far.
    pub answered: u32,
}

const _: () = assert!(size_of::<Relay>() == 12);

impl Relay {
    /// The gateway asks: all of the answer before is read. Whether that may be put into the copy's
    /// socket. If not, nothing ever may again: who asks so much is no gateway.
    #[inline(always)]
    pub const fn ask(&mut self, size: u32) -> bool {
        self.answered = 0;
        let before = self.asked;
        self.asked = before.saturating_add(weight(size));
        before < MOST
    }

    /// The copy sends so many bytes; whether they may be put into the gateway's socket. If not, no
    /// later ones of this answer may.
    #[inline(always)]
    pub const fn answer(&mut self, size: u32) -> bool {
        self.asked = 0;
        let before = self.answered;
        self.answered = before.saturating_add(weight(size));
        before < MOST
    }
}

/// As how many bytes a piece counts.
#[inline(always)]
const fn weight(size: u32) -> u32 {
    if size < PIECE { PIECE } else { size }
}

/// What is remembered of a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayEnd {
    /// The gateway's end of the connection.
    pub gateway: RelayKey,
    /// This is the gateway's end: 1.
    pub asks: u32,
}

const _: () = assert!(size_of::<RelayEnd>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_by_tcp_is_not_overtaken() {
        let mut relay = Relay::default();
        assert!(relay.answer(MOST - 1));
        assert!(relay.answer(1));
        assert!(!relay.answer(1));
        assert!(!relay.answer(u32::MAX));
        assert!(!relay.answer(1), "the count does not wrap");
        assert!(relay.ask(10));
        assert!(relay.answer(MOST));
    }

    #[test]
    fn what_follows_a_large_piece_goes_by_tcp() {
        let mut relay = Relay::default();
        assert!(relay.answer(3 * MOST));
        assert!(!relay.answer(1));
    }

    #[test]
    fn small_pieces_count_as_what_they_cost() {
        let mut relay = Relay::default();
        let taken = (0..10_000).filter(|_| relay.answer(1)).count();
        assert_eq!(taken, (MOST / PIECE) as usize);
    }

    #[test]
    fn who_asks_and_asks_is_no_gateway() {
        let mut relay = Relay::default();
        for _ in 0..10 {
            let taken = (0..10_000).filter(|_| relay.ask(100)).count();
            assert_eq!(taken, (MOST / PIECE) as usize);
            assert!(relay.answer(1));
        }
    }

    #[test]
    fn both_ends_name_each_other() {
        let key = RelayKey {
            own_next: 1,
            peer_next: 2,
            own_port: 3,
            peer_port: 4,
        };
        assert_eq!(key.flipped().flipped(), key);
        assert_eq!((key.flipped().own_next, key.flipped().own_port), (2, 4));
    }
}
