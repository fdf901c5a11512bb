//! The end of a backend, seen before the kernel closes its sockets: no SYN meets a dead port.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use orch_common::{counter::Reason, event::EventKind};

use crate::{backend, maps, verdict::count};

/// A thread of the current process ends. The first thread's end counts as the process's: a server
/// whose first thread ends while others serve on would be passed by until its next probe.
#[inline(always)]
pub fn ended() {
    let id = bpf_get_current_pid_tgid();
    let (process, thread) = ((id >> 32) as u32, id as u32);
    if process != thread {
        return;
    }
    let Some(owner) = maps::take_process(process) else {
        return;
    };
    if backend::pass_by(owner.slot, owner.generation, EventKind::Exited) {
        count(Reason::Exited);
    }
}
