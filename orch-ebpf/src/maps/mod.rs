//! Every map, and the typed way to it. Nothing outside this module names a map.

mod flows;
mod holds;
mod relays;
mod services;
mod signals;

pub use self::{flows::*, holds::*, relays::*, services::*, signals::*};

/// `BPF_F_NO_PREALLOC`: a trie demands it, and elsewhere an entry that is removed is not another's at
/// once, to which somebody still writes.
const NO_PREALLOC: usize = 1;

/// A mutable reference into a map.
#[inline(always)]
fn element<T>(pointer: Option<*mut T>) -> Option<&'static mut T> {
    // SAFETY: the kernel keeps an element's memory in place while a program that has looked it up
    // runs. Other CPUs may write the same element: what must not be lost is changed by atomic
    // instructions, everything else is single aligned words of which the last one wins.
    pointer.map(|pointer| unsafe { &mut *pointer })
}
