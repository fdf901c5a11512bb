//! The hook that sees a backend told to end. The best place needs to know where the kernel keeps a
//! process's number; without that there is another, which misses programs that wait for signals
//! instead of handling them, as small init programs do.

use aya::{Ebpf, programs::RawTracePoint};
use orch_common::layout::program;

use super::{
    DataplaneError, attach, btf,
    load::{self, typed},
    pin::{Pins, remove_pin},
};

/// Where signals are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalHook {
    /// Where they are sent.
    Sent,
    /// Where they are taken: only by programs that handle them.
    Taken,
}

/// Where this kernel lets signals be seen, if it does at all.
pub fn signal_hook() -> SignalHook {
    task_tgid().map_or(SignalHook::Taken, |_| SignalHook::Sent)
}

/// Where a process's number is in the kernel's `task_struct`.
pub(super) fn task_tgid() -> Option<u32> {
    btf::offset("task_struct", "tgid")
}

/// Attaches the hook; `known` says whether the object was given [`task_tgid`].
pub(super) fn attach(ebpf: &mut Ebpf, pins: &Pins, known: bool) -> Result<(), DataplaneError> {
    let (name, place, other) = if known {
        (program::SIGNAL, "signal_generate", program::DELIVER)
    } else {
        (program::DELIVER, "signal_deliver", program::SIGNAL)
    };
    let failed = |source| DataplaneError::program(name, place)(source);
    let hook: &mut RawTracePoint = typed(ebpf, name)?;
    load::once(hook.load()).map_err(failed)?;
    let id = hook.attach(place).map_err(failed)?;
    let failed = |source| DataplaneError::program(name, place)(source);
    let link = hook.take_link(id).map_err(failed)?;
    attach::keep(link.into(), &pins.link(name))?;
    remove_pin(&pins.link(other))
}
