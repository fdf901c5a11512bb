//! What a simulation takes place in.

use std::time::Duration;

use super::dist::Dist;

/// What is simulated, beside arrivals and policy.
#[derive(Clone, Debug)]
pub struct World {
    /// How long a request takes that does not wait.
    pub service: Dist,
    /// From the order of a copy to its place in the ring.
    pub start: Dist,
    /// From a copy's stop to its end; its slot has no other until then.
    pub stop: Duration,
    /// Requests that a copy works on at a time.
    pub concurrency: usize,
    /// Most copies.
    pub max: u16,
    /// Copies there are at the start.
    pub first: u16,
    /// How long before the load its controller began, ordered the first copies, and counted its beats
    /// from then. Zero: they are there, and nobody has read before.
    pub lead: Duration,
    /// When clients stop waiting and everything ends.
    pub end: Duration,
    /// Answers that take longer are late.
    pub late: Duration,
    /// When the first reading falls, below [`crate::beat::BEAT`], where `lead` does not say it: a real pattern
    /// begins at any moment between two.
    pub phase: Duration,
    /// Ready spares kept at hand: one takes a slot at once, and another is started for it.
    pub spares: u16,
}

impl World {
    /// Requests a second that a busy copy answers.
    pub fn service_rate(&self) -> f64 {
        self.concurrency as f64 / self.service.mean().as_secs_f64().max(1e-9)
    }
}
