//! Permission to read and write the map types as plain bytes.

use aya::Pod;

use crate::{
    counter::{Bytes, SlotCounters},
    flow::{Census, Flow, FlowKey, Queue},
    hold::{HeldSyn, Holding},
    latency::Histogram,
    pulse::Pulse,
    relay::{Relay, RelayKey},
    service::{ListenerKey, Maglev, Netns, PathKey, PathRule, Port, Ring, RingKey, Service},
    slot::{Owner, Slot, SlotKey},
    syn::Syn,
};

macro_rules! pod {
    ($($name:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)` or `repr(u32)` without padding between or after fields, as the
            // size asserts beside the types show. The enums among the fields are written by this
            // crate's own types on both sides, and LAYOUT_VERSION is part of the pin path, so a
            // map never holds another layout's numbers.
            unsafe impl Pod for $name {}
        )+
    };
}

pod!(
    Bytes,
    Census,
    Flow,
    FlowKey,
    HeldSyn,
    Histogram,
    Holding,
    ListenerKey,
    Maglev,
    Netns,
    Owner,
    PathKey,
    PathRule,
    Port,
    Pulse,
    Queue,
    Relay,
    RelayKey,
    Ring,
    RingKey,
    Service,
    Slot,
    SlotCounters,
    SlotKey,
    Syn,
);
