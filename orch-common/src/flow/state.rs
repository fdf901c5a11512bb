//! Where a connection stands, and the step that a segment makes it take.

/// Where a flow stands. RFC 9293, 3.3.2, as far as somebody between the two ends can see it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// The client's SYN has passed.
    #[default]
    SynSent = 0,
    /// The backend's SYN-ACK has passed.
    SynReceived = 1,
    /// The client has acknowledged it.
    Established = 2,
    /// The client has sent FIN.
    FinClient = 3,
    /// The backend has sent FIN.
    FinServer = 4,
    /// Both have sent FIN, or one has sent RST, or the backend is gone.
    Closed = 5,
}

/// Who sent a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that opened the connection.
    Client,
    /// The backend.
    Server,
}

/// TCP flags (RFC 9293, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// The sender has finished sending.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Resets the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;

    /// Whether all of `bits` are set.
    #[must_use]
    #[inline(always)]
    pub const fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }

    /// SYN without ACK: asks for a connection, if perhaps in a way that no end grants.
    #[must_use]
    #[inline(always)]
    pub const fn asks(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN
    }

    /// SYN without ACK, RST or FIN: the first segment of a connection.
    #[must_use]
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST | Self::FIN) == Self::SYN
    }
}

impl FlowState {
    /// The state after a segment with `flags` from `side`. A pure SYN from the client is not for
    /// this function: it starts a flow anew.
    #[must_use]
    #[inline(always)]
    pub const fn next(self, side: Side, flags: Flags) -> Self {
        if flags.has(Flags::RST) {
            return Self::Closed;
        }
        let fin = flags.has(Flags::FIN);
        match (self, side) {
            (Self::SynSent, Side::Server) if flags.has(Flags::SYN | Flags::ACK) => {
                Self::SynReceived
            }
            (Self::SynSent | Self::SynReceived | Self::Established, Side::Client) if fin => {
                Self::FinClient
            }
            (Self::SynSent | Self::SynReceived | Self::Established, Side::Server) if fin => {
                Self::FinServer
            }
            (Self::SynReceived, Side::Client) if flags.has(Flags::ACK) => Self::Established,
            (Self::FinClient, Side::Server) | (Self::FinServer, Side::Client) if fin => {
                Self::Closed
            }
            (state, _) => state,
        }
    }

    /// Whether its handshake is not complete.
    #[must_use]
    #[inline(always)]
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::SynSent | Self::SynReceived)
    }

    /// Sweeps without a segment after which a flow in this state is freed. A sweep comes every
    /// [`SWEEP_SECONDS`].
    #[must_use]
    #[inline(always)]
    pub const fn patience(self) -> u32 {
        match self {
            Self::SynSent | Self::SynReceived => 60 / SWEEP_SECONDS,
            // TCP keep-alive first probes an idle connection after two hours (RFC 9293, 3.8.4).
            Self::Established => 3 * 3600 / SWEEP_SECONDS,
            Self::FinClient | Self::FinServer => 900 / SWEEP_SECONDS,
            Self::Closed => 10 / SWEEP_SECONDS,
        }
    }
}

/// Sweeps without a segment after which a handshake keeps a draining backend no longer. A server repeats
/// its SYN-ACK after 1, 3 and 7 s (RFC 6298, 5.5): whoever means it has answered by then, or comes anew.
pub const HANDSHAKE_SWEEPS: u32 = 3;
/// Sweeps without a segment after which a closed flow is freed whose last bytes the client has not
/// acknowledged: a backend sends them again after 0.2, 0.4 seconds and so on, up to a pause of 51.2 (RFC 6298, 5.5).
pub const LINGER_SWEEPS: u32 = 60 / SWEEP_SECONDS;
/// Seconds between two sweeps of the flow table.
pub const SWEEP_SECONDS: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const SYN_ACK: u8 = Flags::SYN | Flags::ACK;
    const FIN_ACK: u8 = Flags::FIN | Flags::ACK;

    fn walk(segments: &[(Side, u8)]) -> FlowState {
        segments
            .iter()
            .fold(FlowState::SynSent, |state, &(side, flags)| {
                state.next(side, Flags(flags))
            })
    }

    #[test]
    fn a_connection_opens_and_closes() {
        use Side::{Client, Server};
        let open = [(Server, SYN_ACK), (Client, Flags::ACK)];
        assert_eq!(walk(&open[..1]), FlowState::SynReceived);
        assert_eq!(walk(&open), FlowState::Established);
        let ends = [
            ([(Client, FIN_ACK), (Server, FIN_ACK)], FlowState::FinClient),
            ([(Server, FIN_ACK), (Client, FIN_ACK)], FlowState::FinServer),
        ];
        for (fins, half) in ends {
            let mut segments = open.to_vec();
            segments.push(fins[0]);
            assert_eq!(walk(&segments), half);
            segments.push((fins[1].0, Flags::ACK));
            assert_eq!(walk(&segments), half, "an ACK is no FIN");
            segments.push(fins[1]);
            assert_eq!(walk(&segments), FlowState::Closed);
            segments.push((Client, Flags::ACK));
            assert_eq!(walk(&segments), FlowState::Closed);
        }
    }

    #[test]
    fn a_reset_closes_in_every_state() {
        use FlowState::{Closed, Established, FinClient, FinServer, SynReceived, SynSent};
        for state in [
            SynSent,
            SynReceived,
            Established,
            FinClient,
            FinServer,
            Closed,
        ] {
            for side in [Side::Client, Side::Server] {
                assert_eq!(state.next(side, Flags(Flags::RST)), Closed);
                assert_eq!(state.next(side, Flags(Flags::RST | Flags::ACK)), Closed);
            }
        }
    }

    #[test]
    fn only_a_bare_syn_opens() {
        assert!(Flags(Flags::SYN).opens());
        assert!(Flags(Flags::SYN | 0xc0).opens(), "ECN set-up (RFC 3168)");
        for bits in [
            SYN_ACK,
            Flags::SYN | Flags::RST,
            Flags::SYN | Flags::FIN,
            Flags::ACK,
        ] {
            assert!(!Flags(bits).opens());
        }
        assert!(Flags(Flags::SYN | Flags::FIN).asks());
        assert!(!Flags(SYN_ACK).asks());
    }
}
