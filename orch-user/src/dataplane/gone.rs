//! Which backends have lost their interface? An engine that cuts a container off its network tells nobody who does not ask, and
//! the container lives on.

use orch_common::slot::SlotKey;

use super::{Dataplane, is_interface};

impl Dataplane {
    /// Slots whose backends are to be reached by interfaces that are gone.
    pub fn cut_off(&self) -> Vec<SlotKey> {
        let ways = self.ways.of_slots();
        let gone = ways.filter(|(_, ifindex)| !is_interface(*ifindex));
        gone.map(|(key, _)| key).collect()
    }
}
