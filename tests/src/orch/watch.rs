//! What does the controller show, and when is it as it should be?

use std::time::{Duration, Instant};

use orch::view::{EventRow, ServiceRow, SlotRow};

use super::Orch;
use crate::client;

impl Orch {
    /// Its slots, by its socket; nothing while it does not answer.
    pub fn slots(&self) -> Vec<SlotRow> {
        self.rows("/v1/slots")
    }

    /// Its services.
    pub fn services(&self) -> Vec<ServiceRow> {
        self.rows("/v1/services")
    }

    /// Its events.
    pub fn events(&self) -> Vec<EventRow> {
        self.rows("/v1/events")
    }

    fn rows<T: serde::de::DeserializeOwned>(&self, path: &str) -> Vec<T> {
        let answer = client::get_unix(&self.control(), path).unwrap_or_default();
        serde_json::from_str(&answer).unwrap_or_default()
    }

    /// The slot, if it is shown.
    pub fn slot(&self, slot: u16) -> Option<SlotRow> {
        self.slots().into_iter().find(|row| row.slot == slot)
    }

    /// Ids of the copies by slot.
    pub fn ids(&self) -> Vec<String> {
        self.slots().into_iter().map(|row| row.backend).collect()
    }

    /// Waits until exactly so many copies are there, all ready; spares are not looked at.
    pub fn wait_ready(&self, copies: u16) -> Vec<SlotRow> {
        let right = || {
            let mut rows = self.slots();
            rows.retain(|row| !row.spare);
            let ready = rows.iter().all(|row| row.state == "ready" && row.healthy);
            (ready && rows.len() == usize::from(copies)).then_some(rows)
        };
        self.until(&format!("{copies} copies are ready"), right)
    }

    /// Waits for an event of this kind with these words, after the event `after`.
    pub fn wait_event(&self, after: u64, kind: &str, words: &str) -> EventRow {
        self.until(&format!("an event {kind}: {words}"), || {
            let mut events = self.events().into_iter();
            events.find(|row| row.id > after && row.kind == kind && row.text.contains(words))
        })
    }

    /// The id of the latest event.
    pub fn last_event(&self) -> u64 {
        self.events().last().map_or(0, |row| row.id)
    }

    /// Waits for a condition. Where it never comes, the slots are shown, and the log when this is dropped.
    pub fn until<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + *crate::wait::PATIENCE;
        loop {
            if let Some(value) = condition() {
                return value;
            }
            assert!(Instant::now() < end, "{what}: in vain; {:?}", self.slots());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
