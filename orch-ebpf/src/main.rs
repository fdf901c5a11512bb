//! The kernel programs of orch. Entry points only: each hands its packet or call to the module of
//! its family and turns the verdict into what the hook wants. The way of a packet:
//! `packet` (where are the headers) -> `service` (is the port ours) -> `flow` (known, or picked by
//! `backend` and created) -> `exchange` (requests and responses) -> `rewrite` -> `verdict`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(unreachable_pub, reason = "a binary without a library has no outside")]
#![allow(
    missing_docs,
    reason = "aya's macros make a second function of each entry point"
)]
#![allow(
    clippy::needless_pass_by_value,
    reason = "aya's macros hand over contexts by value"
)]

mod atomic;
mod backend;
mod belief;
mod call;
mod choice;
mod compare;
mod create;
mod dial;
mod direct;
mod ends;
mod exchange;
mod exit;
mod flow;
mod half;
mod header;
mod hold;
mod icmp;
mod inject;
mod inside;
mod interim;
mod join;
mod live;
mod local;
mod maps;
mod opaque;
mod open;
mod outside;
mod packet;
mod pulse;
mod quote;
mod reach;
mod rebuild;
mod redirect;
mod relay;
mod replay;
mod reply;
mod rescue;
mod retake;
mod rewrite;
mod segment;
mod service;
mod signal;
mod socket;
mod storage;
mod suit;
mod sweep;
mod syn;
mod tally;
mod turn;
mod upkeep;
mod verdict;
mod whole;

use aya_ebpf::{
    macros::{
        cgroup_skb, cgroup_sock, cgroup_sock_addr, classifier, raw_tracepoint, sk_msg, sock_ops,
    },
    programs::{
        RawTracePointContext, SkBuffContext, SkMsgContext, SockAddrContext, SockContext,
        SockOpsContext, TcContext,
    },
};

/// What the cgroup hooks answer: go on.
const PROCEED: i32 = 1;

/// TC ingress of an uplink.
#[classifier]
pub fn orch_ingress(ctx: TcContext) -> i32 {
    outside::arriving(&ctx).into_action()
}

/// TC egress of an uplink.
#[classifier]
pub fn orch_egress(ctx: TcContext) -> i32 {
    reply::leaving(&ctx).into_action()
}

/// TC ingress of the host's end of a backend's interface.
#[classifier]
pub fn orch_veth(ctx: TcContext) -> i32 {
    reply::leaving_backend(&ctx).into_action()
}

/// TC egress of the same.
#[classifier]
pub fn orch_entry(ctx: TcContext) -> i32 {
    inside::entering(&ctx).into_action()
}

/// TC ingress of an interface that is not balanced.
#[classifier]
pub fn orch_guard(ctx: TcContext) -> i32 {
    direct::guarded(&ctx).into_action()
}

/// A TCP socket connects over IPv4.
#[cgroup_sock_addr(connect4)]
pub fn orch_connect4(ctx: SockAddrContext) -> i32 {
    local::connect4(&ctx);
    PROCEED
}

/// A TCP socket connects over IPv6.
#[cgroup_sock_addr(connect6)]
pub fn orch_connect6(ctx: SockAddrContext) -> i32 {
    local::connect6(&ctx);
    PROCEED
}

/// A program asks whom its IPv4 socket is connected to.
#[cgroup_sock_addr(getpeername4)]
pub fn orch_peer4(ctx: SockAddrContext) -> i32 {
    storage::peer::<false>(&ctx);
    PROCEED
}

/// A program asks whom its IPv6 socket is connected to.
#[cgroup_sock_addr(getpeername6)]
pub fn orch_peer6(ctx: SockAddrContext) -> i32 {
    storage::peer::<true>(&ctx);
    PROCEED
}

/// The last holder of a socket has closed it.
#[cgroup_sock(sock_release)]
pub fn orch_release(ctx: SockContext) -> i32 {
    storage::released(&ctx);
    PROCEED
}

/// Something happens to a TCP socket of this host or of a container.
#[sock_ops]
pub fn orch_dial(ctx: SockOpsContext) -> u32 {
    dial::dials(ctx.ops);
    PROCEED as u32
}

/// Something happens to a TCP socket of this host or of a container, while there is a gateway.
#[sock_ops]
pub fn orch_join(ctx: SockOpsContext) -> u32 {
    join::changed(ctx.ops);
    PROCEED as u32
}

/// The gateway or a copy sends.
#[sk_msg]
pub fn orch_relay(ctx: SkMsgContext) -> u32 {
    relay::sending(ctx.msg);
    // By TCP, where nothing else was said.
    PROCEED as u32
}

/// A socket of this host sends a packet.
#[cgroup_skb]
pub fn orch_sent(ctx: SkBuffContext) -> i32 {
    socket::sent(&ctx);
    PROCEED
}

/// A socket of this host receives a packet.
#[cgroup_skb]
pub fn orch_received(ctx: SkBuffContext) -> i32 {
    socket::received(&ctx);
    PROCEED
}

/// A process ends.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn orch_exit(_ctx: RawTracePointContext) -> i32 {
    exit::ended();
    0
}

/// A process is sent a signal.
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn orch_signal(ctx: RawTracePointContext) -> i32 {
    signal::generated(&ctx);
    0
}

/// A process takes a signal.
#[raw_tracepoint(tracepoint = "signal_deliver")]
pub fn orch_deliver(ctx: RawTracePointContext) -> i32 {
    signal::delivered(&ctx);
    0
}

/// Changes one slot; see `orch_common::command`.
#[classifier]
pub fn orch_command(ctx: TcContext) -> i32 {
    upkeep::command(&ctx)
}

/// Frees closed and silent flows; answers how many are left.
#[classifier]
pub fn orch_sweep(_ctx: TcContext) -> i32 {
    sweep::sweep()
}

/// Hands over the SYNs that dead backends have swallowed; see `replay`.
#[classifier]
pub fn orch_replay(_ctx: TcContext) -> i32 {
    replay::replay()
}

/// Has a held SYN arrive once more; see `inject`.
#[classifier]
pub fn orch_inject(ctx: TcContext) -> i32 {
    inject::inject(&ctx)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers that only GPL programs may call are used.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
