//! The journal: what happened, and what was decided. Kept in memory, bounded.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::broadcast;

use crate::view::{DecisionRow, EventRow};

/// Events and decisions that are remembered, each.
const KEPT: usize = 1000;

/// What happened, and what was decided. Cheap to clone; all clones share one journal.
#[derive(Clone, Debug)]
pub struct Journal {
    pages: Arc<Mutex<Pages>>,
    live: broadcast::Sender<EventRow>,
}

#[derive(Debug, Default)]
struct Pages {
    last_id: u64,
    events: VecDeque<EventRow>,
    decisions: VecDeque<DecisionRow>,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            pages: Arc::default(),
            live: broadcast::channel(256).0,
        }
    }
}

impl Journal {
    /// Notes an event, logs it, and sends it to whoever follows.
    pub fn record(&self, service: &str, slot: Option<u16>, kind: &str, text: String) {
        let place = match slot {
            Some(slot) => format!("{service}/{slot}: "),
            None if service.is_empty() => String::new(),
            None => format!("{service}: "),
        };
        log::log!(level(kind), "{place}{text}");
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.last_id += 1;
        let row = EventRow {
            id: pages.last_id,
            time: now_s(),
            service: service.to_owned(),
            slot,
            kind: kind.to_owned(),
            text,
        };
        keep(&mut pages.events, row.clone());
        // Nobody following is not a failure.
        let _ = self.live.send(row);
    }

    /// Notes a decision.
    pub fn decide(&self, decision: DecisionRow) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        keep(&mut pages.decisions, decision);
    }

    /// Remembered events with an id above `id`, oldest first.
    pub fn events_since(&self, id: u64) -> Vec<EventRow> {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages
            .events
            .iter()
            .filter(|event| event.id > id)
            .cloned()
            .collect()
    }

    /// Remembered decisions, oldest first; of one service, or of all.
    pub fn decisions(&self, service: Option<&str>) -> Vec<DecisionRow> {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |row: &&DecisionRow| service.is_none_or(|name| row.service == name);
        pages.decisions.iter().filter(wanted).cloned().collect()
    }

    /// Events from now on.
    pub fn follow(&self) -> broadcast::Receiver<EventRow> {
        self.live.subscribe()
    }
}

/// How loud the log is about an event.
fn level(kind: &str) -> log::Level {
    match kind {
        "error" => log::Level::Error,
        "unhealthy" | "exited" | "backoff" | "lost" => log::Level::Warn,
        _ => log::Level::Info,
    }
}

fn keep<T>(rows: &mut VecDeque<T>, row: T) {
    if rows.len() == KEPT {
        rows.pop_front();
    }
    rows.push_back(row);
}

/// Seconds since 1970-01-01 UTC.
pub fn now_s() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
