//! A backend that is told to end: no connection goes there while it shuts down, so that none meets
//! a listener that closes.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel},
    programs::RawTracePointContext,
};
use orch_common::{counter::Reason, event::EventKind};

use crate::{backend, maps, verdict::count};

/// Where a process's number is in the kernel's `task_struct`, in bytes. The controller writes it.
#[unsafe(no_mangle)]
static TASK_TGID: u32 = 0;

/// Signals that ask a process to end (signal(7)), one bit each: SIGINT, SIGQUIT, SIGTERM.
const ENDING: u64 = 1 << 2 | 1 << 3 | 1 << 15;
/// Nobody survives it (signal(7)), but on a busy host it takes a while until the process ends, and its
/// sockets with it: who is sent elsewhere from now on has no SYN on its way when they close.
const SIGKILL: u64 = 9;
/// `TRACE_SIGNAL_DELIVERED`: the process has not chosen to ignore it.
const DELIVERED: u64 = 0;

/// A signal is sent: `signal_generate(sig, info, task, group, result)`.
#[inline(always)]
pub fn generated(ctx: &RawTracePointContext) {
    let signal = argument(ctx, 0);
    if !(ends(signal) || signal == SIGKILL) || argument(ctx, 4) != DELIVERED {
        return;
    }
    // SAFETY: the loader has written the constant, so the compiler must not know it.
    let offset = unsafe { core::ptr::read_volatile(&raw const TASK_TGID) };
    let task = argument(ctx, 2) + u64::from(offset);
    // SAFETY: the helper checks the address.
    let Ok(process) = (unsafe { bpf_probe_read_kernel(task as *const u32) }) else {
        return;
    };
    if signal == SIGKILL {
        pass_by(process, EventKind::Exited, Reason::Exited);
    } else {
        pass_by(process, EventKind::Signalled, Reason::Signalled);
    }
}

/// The current process takes a signal: `signal_deliver(sig, info, action)`.
#[inline(always)]
pub fn delivered(ctx: &RawTracePointContext) {
    if ends(argument(ctx, 0)) {
        let process = (bpf_get_current_pid_tgid() >> 32) as u32;
        pass_by(process, EventKind::Signalled, Reason::Signalled);
    }
}

#[inline(always)]
fn argument(ctx: &RawTracePointContext, at: usize) -> u64 {
    // SAFETY: the context is the kernel's: one word for each argument of the tracepoint, and the
    // verifier lets none be read that is not there.
    unsafe { ctx.as_ptr().cast::<u64>().add(at).read_volatile() }
}

#[inline(always)]
const fn ends(signal: u64) -> bool {
    ENDING >> (signal & 63) & 1 == 1
}

#[inline(always)]
fn pass_by(process: u32, kind: EventKind, reason: Reason) {
    if let Some(owner) = maps::process(process)
        && backend::pass_by(owner.slot, owner.generation, kind)
    {
        count(reason);
    }
}
