//! All there is to see at one moment, put together for who looks on: the status page and `orch top`.
//! Nothing here runs while nobody does.

use std::sync::Arc;

use orch_common::latency::upper_bound_ns;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    control::Control,
    events::now_s,
    history::Sample,
    view::{DecisionRow, EventRow, Outlook, ServiceRow, SlotRow, SlotSignals, Snapshot},
};

/// Events that the first picture shows.
const FIRST_EVENTS: usize = 100;

/// What can be seen now. Of samples, events and decisions only those since the picture before it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Live {
    /// Version of the controller.
    pub version: String,
    /// Seconds since 1970-01-01 UTC.
    pub time: f64,
    /// Seconds since the controller started.
    pub uptime_s: f64,
    /// Per service.
    pub services: Vec<LiveService>,
    /// Per slot, spares included.
    pub slots: Vec<LiveSlot>,
    /// What happened, oldest first.
    pub events: Vec<EventRow>,
    /// What was decided, oldest first.
    pub decisions: Vec<DecisionRow>,
}

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LiveService {
    /// What `orch status` shows.
    #[serde(flatten)]
    pub row: ServiceRow,
    /// When the next decision comes, and what it would be: a sentence.
    pub outlook: String,
    /// With so many requests in the window it would be one copy more; `null` at the most copies.
    pub next_step: Option<u64>,
    /// Copies, if the window ended now.
    pub would: u16,
    /// The last seconds.
    pub samples: Vec<Sample>,
}

/// A slot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LiveSlot {
    /// What `orch ps` shows.
    #[serde(flatten)]
    pub row: SlotRow,
    /// The last 60 polls, oldest first: `+` good, `.` not well yet, `!` bad.
    pub polls: String,
    /// Requests per second, over the last five to ten seconds.
    pub request_rate: f64,
    /// Half of the responses of these seconds took no longer, in seconds; `null` without any.
    pub p50_s: Option<f64>,
    /// 99 of 100 of them took no longer, in seconds.
    pub p99_s: Option<f64>,
}

/// Who looks on, and what was shown already.
#[derive(Clone, Debug)]
pub struct Viewer {
    control: Control,
    event: u64,
    decided: f64,
    sampled: f64,
}

impl Viewer {
    /// One who has seen nothing yet.
    pub const fn new(control: Control) -> Self {
        Self {
            control,
            event: 0,
            decided: 0.0,
            sampled: 0.0,
        }
    }

    /// What can be seen now, and is new.
    pub fn look(&mut self) -> Live {
        let snapshot = Arc::clone(&self.control.snapshot.borrow());
        let anchor = self.control.history.anchor();
        let rows = snapshot.prospects();
        let services: Vec<_> = rows.map(|(row, next)| self.service(row, &next)).collect();
        let newest = services.iter().filter_map(|one| one.samples.last());
        self.sampled = newest.map(|one| one.time).fold(self.sampled, f64::max);
        let slots = snapshot.slots.iter();
        let slots = slots.map(|row| slot(row, &snapshot, anchor.as_deref()));
        Live {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: now_s(),
            uptime_s: snapshot.uptime_s,
            slots: slots.collect(),
            services,
            events: self.events(),
            decisions: self.decisions(),
        }
    }

    fn service(&self, row: &ServiceRow, next: &Outlook) -> LiveService {
        LiveService {
            outlook: sentence(row, next),
            next_step: next.next_step,
            would: next.would,
            samples: self.control.history.since(&row.service, self.sampled),
            row: row.clone(),
        }
    }

    fn events(&mut self) -> Vec<EventRow> {
        let mut events = self.control.journal.events_since(self.event);
        events.drain(..events.len().saturating_sub(FIRST_EVENTS));
        self.event = events.last().map_or(self.event, |row| row.id);
        events
    }

    fn decisions(&mut self) -> Vec<DecisionRow> {
        let mut decisions = self.control.journal.decisions(None);
        decisions.retain(|row| row.time > self.decided);
        self.decided = decisions.last().map_or(self.decided, |row| row.time);
        decisions
    }
}

/// When the next decision comes, and what it would be: `in 0:41, 17 of 20 counted, would stay at 1`.
pub fn sentence(row: &ServiceRow, next: &Outlook) -> String {
    if row.held {
        let service = &row.service;
        return format!(
            "set to {} by hand; orch scale {service}=auto hands back",
            row.desired
        );
    }
    if let Some(policy) = next.windowless {
        return format!("at any time: policy {policy} wants {} now", next.would);
    }
    let Some(ends) = row.window_ends_in_s else {
        return "no window is open: the next request opens one".to_owned();
    };
    // A countdown that shows 0:00 for a second looks stuck.
    let left = ends.ceil() as u64;
    let counted = match next.next_step {
        Some(step) => format!("{} of {step}", row.window_count),
        None => row.window_count.to_string(),
    };
    let would = if next.would == row.desired {
        "stay at"
    } else {
        "go to"
    };
    format!(
        "in {}:{:02}, {counted} counted, would {would} {}",
        left / 60,
        left % 60,
        next.would
    )
}

fn slot(row: &SlotRow, now: &Snapshot, then: Option<&Snapshot>) -> LiveSlot {
    let signals = of_slot(now, row);
    let polls = signals.map(|signals| signals.polls.marks());
    let mut live = LiveSlot {
        row: row.clone(),
        polls: polls.unwrap_or_default(),
        ..LiveSlot::default()
    };
    let Some(then) = then else {
        return live;
    };
    let passed = now.uptime_s - then.uptime_s;
    let same = |old: &&SlotRow| old.service == row.service && old.slot == row.slot;
    let before = then.slots.iter().find(same).map_or(0, |old| old.requests);
    if passed > 0.0 {
        live.request_rate = row.requests.saturating_sub(before) as f64 / passed;
    }
    if let Some(signals) = signals {
        let old = of_slot(then, row).map(|old| old.buckets.as_slice());
        let fresh = difference(&signals.buckets, old.unwrap_or_default());
        live.p50_s = quantile(&fresh, 0.5);
        live.p99_s = quantile(&fresh, 0.99);
    }
    live
}

fn of_slot<'a>(snapshot: &'a Snapshot, row: &SlotRow) -> Option<&'a SlotSignals> {
    let same = |one: &&SlotSignals| one.service == row.service && one.slot == row.slot;
    snapshot.signals.iter().find(same)
}

fn difference(new: &[u64], old: &[u64]) -> Vec<u64> {
    let old = old.iter().copied().chain(std::iter::repeat(0));
    let pairs = new.iter().zip(old);
    pairs.map(|(new, old)| new.saturating_sub(old)).collect()
}

/// The time that this share of all responses did not exceed: inside its bucket, counted evenly.
fn quantile(buckets: &[u64], share: f64) -> Option<f64> {
    let all: u64 = buckets.iter().sum();
    let mut rank = (all as f64 * share).max(1.0);
    if all == 0 {
        return None;
    }
    for (at, count) in buckets.iter().enumerate() {
        let count = *count as f64;
        if rank <= count {
            let low = at.checked_sub(1).map_or(0, upper_bound_ns) as f64;
            let high = upper_bound_ns(at) as f64;
            return Some((low + (high - low) * rank / count) / 1e9);
        }
        rank -= count;
    }
    None
}

#[cfg(test)]
mod tests {
    use orch_common::latency::{BUCKETS, bucket};

    use super::*;

    #[test]
    fn the_sentence_says_when_and_what() {
        let mut row = ServiceRow {
            service: "acts".to_owned(),
            desired: 1,
            window_count: 17,
            window_ends_in_s: Some(40.3),
            ..ServiceRow::default()
        };
        let mut next = Outlook {
            would: 1,
            next_step: Some(20),
            ..Outlook::default()
        };
        let say = sentence;
        assert_eq!(
            say(&row, &next),
            "in 0:41, 17 of 20 counted, would stay at 1"
        );
        (row.window_count, next.would, next.next_step) = (250, 10, None);
        assert_eq!(say(&row, &next), "in 0:41, 250 counted, would go to 10");
        row.window_ends_in_s = None;
        assert!(say(&row, &next).contains("the next request opens one"));
        (next.windowless, next.would) = (Some("elastic"), 3);
        assert_eq!(say(&row, &next), "at any time: policy elastic wants 3 now");
        row.held = true;
        assert!(say(&row, &next).starts_with("set to 1 by hand"));
    }

    #[test]
    fn quantiles_lie_in_their_bucket() {
        let mut buckets = vec![0; BUCKETS];
        assert_eq!(quantile(&buckets, 0.5), None);
        buckets[bucket(1_000_000)] = 99;
        buckets[bucket(80_000_000)] = 1;
        let p50 = quantile(&buckets, 0.5).unwrap();
        assert!((0.000_9..=0.001_1).contains(&p50), "{p50}");
        let p99 = quantile(&buckets, 0.99).unwrap();
        assert!((0.000_9..=0.001_1).contains(&p99), "{p99}");
        let last = quantile(&buckets, 1.0).unwrap();
        assert!((0.07..=0.09).contains(&last), "{last}");
    }

    #[test]
    fn a_slot_s_rates_are_of_the_last_seconds_alone() {
        let snapshot = |uptime_s: f64, requests: u64, slow: u64| {
            let mut buckets = vec![0; BUCKETS];
            buckets[bucket(1_000_000)] = 1000;
            buckets[bucket(50_000_000)] = slow;
            Snapshot {
                uptime_s,
                slots: vec![SlotRow {
                    requests,
                    ..SlotRow::default()
                }],
                signals: vec![SlotSignals {
                    buckets,
                    ..SlotSignals::default()
                }],
                ..Snapshot::default()
            }
        };
        let (then, now) = (snapshot(10.0, 1000, 0), snapshot(18.0, 1040, 40));
        let live = slot(&now.slots[0], &now, Some(&then));
        assert!((live.request_rate - 5.0).abs() < 1e-9);
        assert!(live.p50_s.unwrap() > 0.04);
        let alone = slot(&now.slots[0], &now, None);
        assert_eq!((alone.request_rate, alone.p50_s), (0.0, None));
    }
}
