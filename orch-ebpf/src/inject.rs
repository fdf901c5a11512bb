//! The program that the controller runs to end the holding of a SYN.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS},
    helpers::bpf_clone_redirect,
    programs::TcContext,
};
use orch_common::{
    counter::Reason,
    flow::FlowKey,
    hold::{self, LET_GO, Release},
};

use crate::{
    maps,
    packet::{self, ETHERNET},
    verdict::count,
};

/// The SYN goes its way.
const ON_ITS_WAY: i32 = 0;
/// It had come in already, by a repetition.
const IN_ALREADY: i32 = 1;
/// It could not be sent on.
const FAILED: i32 = 2;

/// Ends the holding of a SYN. In the context: its interface, a `Release`, the session.
#[inline(always)]
pub fn inject(ctx: &TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let Some((key, seq)) = identify(skb) else {
        return FAILED;
    };
    // SAFETY: the context is the kernel's.
    let [ifindex, release, session, ..] = unsafe { (*skb).cb };
    let signature = hold::signature(&key, seq, session);
    // Without it, repetitions of a SYN that gets lost from here on would be dropped.
    if let Some(place) = maps::signature(signature)
        && *place == signature
    {
        *place = 0;
    }
    if release == Release::Forget as u32 {
        return ON_ITS_WAY;
    }
    // What is sent on once more for another slot has a flow already.
    if release != Release::Replay as u32 && maps::flow(&key).is_some_and(|flow| flow.isn == seq) {
        return IN_ALREADY;
    }
    // SAFETY: the context is the kernel's; the helper refuses what is no interface.
    let failed = unsafe {
        if release == Release::LetGo as u32 {
            (*skb).mark = LET_GO;
        }
        bpf_clone_redirect(skb, ifindex, u64::from(BPF_F_INGRESS))
    };
    if failed != 0 {
        return FAILED;
    }
    count(Reason::Resumed);
    ON_ITS_WAY
}

#[inline(always)]
fn identify(skb: *mut __sk_buff) -> Option<(FlowKey, u32)> {
    let located = packet::locate(skb, ETHERNET).ok()?;
    let (client, local) = located.addresses()?;
    let segment = located.segment()?;
    let key = FlowKey {
        client,
        local,
        client_port: located.source_port,
        local_port: located.destination_port,
    };
    Some((key, segment.seq))
}
