//! What is believed of whom: may a segment change the state of its flow, as it does at its ends?

use orch_common::flow::{self, Flags, Flow, FlowState, Side};

use crate::{exchange, segment::Segment};

/// Whether a segment acknowledges the backend's FIN. Where the numbers are not followed nobody knows.
#[inline(always)]
pub fn ends_all(flow: &Flow, side: Side, segment: &Segment) -> bool {
    matches!(side, Side::Client)
        && segment.flags.has(Flags::ACK)
        && segment.ack == flow.server_next.wrapping_add(1)
}

/// Whether a RST ends the flow. Before the backend's SYN-ACK, a client answers with RST what an
/// earlier connection of its port has left at the backend, and then sends its SYN again: that RST
/// has the earlier connection's numbers, and the SYN must find its slot.
///
/// Later a backend believes a client's RST at the number that it expects next (RFC 5961, 3.2). That is no less than
/// it has acknowledged, and no more than it was sent. Beyond a gap it believes one at the end of what it has.
#[inline(always)]
pub fn is_believed(flow: &Flow, side: Side, seq: u32) -> bool {
    let (from, most) = match (flow.state, side) {
        (FlowState::SynSent, Side::Client) => (flow.client_next, 0),
        // It has said nothing yet by which to judge.
        (FlowState::SynSent, Side::Server) => return true,
        // It refuses what does not acknowledge its SYN-ACK, and goes on waiting for what does.
        (FlowState::SynReceived, Side::Server) => (
            flow.server_next.wrapping_sub(flow::FORGERY_WINDOW),
            2 * flow::FORGERY_WINDOW,
        ),
        // One that has given up says so where its client's acknowledgement ends.
        (_, Side::Server) => (
            flow.server_next.wrapping_sub(UNDER_WAY),
            UNDER_WAY + flow::FORGERY_WINDOW,
        ),
        (FlowState::SynReceived, Side::Client) => {
            let first = flow.isn.wrapping_add(1);
            (first, flow::unacknowledged(flow.client_next, first))
        }
        (_, Side::Client) if exchange::is_followed(flow) && flow.beyond() == Some(seq) => {
            return true;
        }
        (state, Side::Client) => {
            let fin = u32::from(matches!(state, FlowState::FinClient | FlowState::Closed));
            let sent = if exchange::is_followed(flow) {
                flow::unacknowledged(flow.client_next, flow.acked)
            } else {
                flow::FORGERY_WINDOW
            };
            (flow.acked, sent + fin)
        }
    };
    flow::is_in_reach(seq, from, most)
}

/// Most bytes that a side has sent and the other has not acknowledged: several times what Linux keeps at the most by
/// default (`tcp_rmem` and `tcp_wmem` in tcp(7): 6 and 4 MiB).
const UNDER_WAY: u32 = 64 << 20;

/// Most bytes that a backend sends before its client has acknowledged its SYN-ACK (RFC 7413): its first window, of ten
/// segments (RFC 6928), which may be jumbo frames.
const EARLY: u32 = 10 * 9000;

/// Whether a segment that is no RST may be the client's own, and change the state. Nobody who has not seen the SYN-ACK can
/// acknowledge it. What lies before a FIN may have been lost before it came by, and a FIN that is not believed may come
/// no second time.
#[inline(always)]
pub fn may_step(flow: &Flow, segment: &Segment) -> bool {
    let acked = match flow.state {
        FlowState::SynSent => return false,
        FlowState::SynReceived => {
            if !flow::is_in_reach(segment.ack, flow.server_next.wrapping_sub(EARLY), EARLY) {
                return false;
            }
            flow.isn.wrapping_add(1)
        }
        _ => flow.acked,
    };
    if !segment.flags.has(Flags::FIN) {
        return true;
    }
    let end = segment.seq.wrapping_add(segment.len);
    // One that the backend has acknowledged comes again where that was lost.
    flow::is_in_reach(end, acked.wrapping_sub(1), UNDER_WAY)
}
