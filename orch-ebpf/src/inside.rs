//! Clients on this host and in its containers whose connections go to a backend's own address: seen
//! on its way in at the host's end of its interface, and on its way out with all others (`reply`). So no
//! other socket of the host pays for it.

use aya_ebpf::programs::TcContext;
use orch_common::{
    counter::Failure,
    flow::{Flags, Flow, FlowKey, FlowState, Side, mark},
};

use crate::{
    exchange, flow, maps,
    packet::{self, ETHERNET},
    segment::Segment,
    tally,
    verdict::Verdict,
};

/// A packet enters a backend. What comes from outside does not pass here: it is handed over at the
/// uplink.
#[inline(always)]
pub fn entering(ctx: &TcContext) -> Verdict {
    let Ok(located) = packet::locate(ctx.skb.skb, ETHERNET) else {
        return Verdict::Untouched;
    };
    if located.fragment || maps::port(located.destination_port).backend == 0 {
        return Verdict::Untouched;
    }
    if let (Some(key), Some(segment)) = (located.key(), located.segment())
        && let Some(flow) = maps::flow(&key)
        && flow.is_of_socket()
    {
        sends(flow, &segment);
        ends(&key, flow);
    }
    Verdict::Untouched
}

/// Forgets a connection that is over, and whose socket has gone: the table is there for what is open.
#[inline(always)]
pub fn ends(key: &FlowKey, flow: &Flow) {
    if flow.live == 0 && matches!(flow.state, FlowState::Closed) {
        maps::remove_flow(key);
    }
}

/// What a client's segment does to its flow.
#[inline(always)]
pub fn sends(flow: &mut Flow, segment: &Segment) {
    let closes = if segment.flags.opens() {
        // A SYN in a later state is not its socket's: anybody on the bridge may forge one.
        if matches!(flow.state, FlowState::SynSent) {
            opens(flow, segment);
        }
        false
    } else {
        flow::advance(flow, Side::Client, segment)
    };
    exchange::from_client(flow, segment);
    if closes && segment.flags.has(Flags::RST) {
        tally::cut(flow, Failure::Aborted);
    }
}

/// A socket sends its SYN, perhaps again because nobody answers.
#[inline(always)]
fn opens(flow: &mut Flow, segment: &Segment) {
    flow.seen = maps::epoch();
    if flow.client_next == 0 {
        flow.isn = segment.seq;
        flow.client_next = segment.seq.wrapping_add(1);
    } else if flow.isn == segment.seq && !flow.is(mark::REPEATED) {
        flow.set(mark::REPEATED, true);
        tally::failed(flow, Failure::Timeout);
    }
}
