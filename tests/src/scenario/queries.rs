//! What the verbs of a running `orch` say.

use std::collections::BTreeSet;

use orch::view::{DecisionRow, ServiceRow, SlotRow};

use super::stage::Stage;

impl Stage {
    /// The only row of `orch status`.
    pub fn status(&self) -> ServiceRow {
        let text = self.orch(&["status", "-o", "json"]);
        let mut rows: Vec<ServiceRow> = serde_json::from_str(&text).unwrap();
        assert_eq!(rows.len(), 1, "{text}");
        rows.remove(0)
    }

    /// `orch ps`.
    pub fn ps(&self) -> Vec<SlotRow> {
        serde_json::from_str(&self.orch(&["ps", "-o", "json"])).unwrap()
    }

    /// `orch why`.
    pub fn why(&self) -> Vec<DecisionRow> {
        serde_json::from_str(&self.orch(&["why", "-o", "json"])).unwrap()
    }

    /// The copies in the ring, as they call themselves in their answers.
    pub fn ring(&self) -> BTreeSet<String> {
        let rows = self.ps();
        let ready = rows.iter().filter(|row| row.state == "ready");
        ready.map(|row| self.name(&row.backend)).collect()
    }

    /// Whether so many copies are in the ring, at the lowest ports, and nothing else runs.
    pub fn is_settled(&self, copies: u16) -> bool {
        let rows = self.ps();
        let ports: Vec<_> = rows.iter().map(|row| row.port).collect();
        let all_ready = rows.iter().all(|row| row.state == "ready" && row.healthy);
        all_ready && ports == (8000..8000 + copies).collect::<Vec<_>>()
    }
}
