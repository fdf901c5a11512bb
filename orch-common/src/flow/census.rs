//! What a sweep of the flow table finds.

/// What a sweep has found of a slot: the flows that are there, beside the counts that say how many there
/// should be.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// The number of the sweep ([`crate::layout::map::EPOCH`]); what an earlier one has found is over.
    pub sweep: u32,
    /// Flows that count as live in the slot, of its backend of now.
    pub live: u32,
    /// Those of them whose request waits for a response.
    pub waiting: u32,
    /// Always zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<Census>() == 16);
