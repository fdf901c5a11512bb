//! What becomes of a packet. `into_action` is the only way out of a TC program.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use orch_common::counter::Reason;

use crate::{atomic, maps};

/// What becomes of a packet.
#[must_use]
#[derive(Clone, Copy)]
pub enum Verdict {
    /// Not ours: goes on as it came, and is not counted, for that would cost every packet.
    Untouched,
    /// Goes on, to the next program or to the stack.
    Pass(Reason),
    /// Goes on elsewhere, by the action that a redirecting helper gave.
    Redirect(Reason, i32),
    /// Ends here.
    Drop(Reason),
}

impl Verdict {
    /// Counts the reason and gives the TC action. `TC_ACT_UNSPEC` is also `TCX_NEXT`: programs
    /// after ours have their turn.
    #[inline(always)]
    pub fn into_action(self) -> i32 {
        match self {
            Self::Untouched => TC_ACT_UNSPEC,
            Self::Pass(reason) => {
                count(reason);
                TC_ACT_UNSPEC
            }
            Self::Redirect(reason, action) => {
                count(reason);
                action
            }
            Self::Drop(reason) => {
                count(reason);
                TC_ACT_SHOT
            }
        }
    }
}

/// Counts a reason on this CPU. Atomic, because a packet may interrupt a program that is counting.
#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(cell) = maps::reason(reason) {
        atomic::add(cell, 1);
    }
}
