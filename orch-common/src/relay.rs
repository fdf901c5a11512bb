//! Connections between the gateway and a copy on the same host, whose bytes go from one socket into
//! the other: past TCP, the bridge, and conntrack, which have both ends all the same.
//!
//! What a copy answers may come by either way, so the order is to be kept: a socket gives out what was
//! put into it before what came by TCP (`tcp_bpf_recvmsg` in the kernel's `net/ipv4/tcp_bpf.c`). So
//! within an answer TCP may follow, and nothing is put in after it until the gateway asks again,
//! which it does when it has read all of the answer before. Nor does one reading give out both: who has
//! read [`MOST`] bytes has to ask once more, even if there were fewer than there was room for.

/// Priority (`socket(7)`, `SO_PRIORITY`) of the gateway's sockets whose bytes may go so: on them it
/// only asks for what has no body, and each time in one piece. Who is not privileged cannot set it.
pub const PRIORITY: u32 = 0x6f72_6368;

/// Bytes of an answer that are put into the gateway's socket, with the piece that they end in. The
/// kernel does not bound what waits there, TCP does: the rest comes so.
pub const MOST: u32 = 1 << 20;

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
    /// Bytes of the answer so far.
    pub answered: u32,
}

const _: () = assert!(size_of::<Relay>() == 8);

impl Relay {
    /// The gateway asks: all of the answer before is read.
    #[inline(always)]
    pub const fn ask(&mut self) {
        self.answered = 0;
    }

    /// The copy sends so many bytes; whether they may be put into the gateway's socket. If not, no
    /// later ones of this answer may.
    #[inline(always)]
    pub const fn answer(&mut self, size: u32) -> bool {
        let before = self.answered;
        self.answered = before.saturating_add(size);
        before < MOST
    }
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
        assert!(
            !relay.answer(1),
            "so none was passed by before there were enough"
        );
        assert!(!relay.answer(1));
        assert!(!relay.answer(u32::MAX));
        assert!(!relay.answer(1), "the count does not wrap");
        relay.ask();
        assert!(relay.answer(MOST));
    }

    #[test]
    fn what_follows_a_large_piece_goes_by_tcp() {
        let mut relay = Relay::default();
        assert!(relay.answer(3 * MOST));
        assert!(!relay.answer(1));
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
