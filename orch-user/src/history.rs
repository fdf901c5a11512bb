//! The last ten minutes, for charts: a sample per second and service, so that a page that is opened
//! later has something to show at once. Kept by the controller as it publishes; costs it a few
//! additions a second and 15 KB per service.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    events::now_s,
    view::{Outlook, ServiceRow, Snapshot},
};

/// Samples that are kept of a service.
const KEPT: usize = 600;
/// Between two samples, in seconds: a little less than the time between two snapshots at rest.
const STEP_S: f64 = 0.9;
/// Rates of slots are averages over the time since a snapshot that is one to two times as old.
const ANCHOR_S: f64 = 5.0;

/// A second of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// Seconds since 1970-01-01 UTC.
    pub time: f64,
    /// Requests per second.
    pub requests: f32,
    /// Responses per second.
    pub responses: f32,
    /// Responses of class 5xx per second.
    pub errors: f32,
    /// Copies wanted.
    pub desired: u16,
    /// Copies in the ring.
    pub ready: u16,
}

/// The last ten minutes. Cheap to clone; all clones share one history.
#[derive(Clone, Debug, Default)]
pub struct History {
    pages: Arc<Mutex<Pages>>,
}

#[derive(Debug, Default)]
struct Pages {
    sampled_at: Option<f64>,
    services: BTreeMap<String, Strip>,
    anchors: VecDeque<Arc<Snapshot>>,
}

#[derive(Debug)]
struct Strip {
    totals: [u64; 3],
    samples: VecDeque<Sample>,
}

impl History {
    /// Takes in a snapshot, if the last sample is a second old.
    pub fn sample(&self, snapshot: &Arc<Snapshot>) {
        let now = snapshot.uptime_s;
        let mut pages = self.pages();
        let passed = pages.sampled_at.map(|before| now - before);
        if passed.is_some_and(|passed| passed < STEP_S) {
            return;
        }
        pages.sampled_at = Some(now);
        for (row, outlook) in snapshot.prospects() {
            pages.add(row, &outlook, passed);
        }
        if pages.services.len() > snapshot.services.len() {
            let there = |name: &str| snapshot.services.iter().any(|row| row.service == name);
            pages.services.retain(|name, _| there(name));
        }
        let newest = pages.anchors.back();
        if newest.is_none_or(|anchor| now - anchor.uptime_s >= ANCHOR_S) {
            pages.anchors.push_back(Arc::clone(snapshot));
            if pages.anchors.len() > 2 {
                pages.anchors.pop_front();
            }
        }
    }

    /// The samples of a service after this time, oldest first.
    pub fn since(&self, service: &str, time: f64) -> Vec<Sample> {
        let pages = self.pages();
        let samples = pages.services.get(service).map(|strip| &strip.samples);
        let Some(samples) = samples else {
            return Vec::new();
        };
        let begin = samples.partition_point(|sample| sample.time <= time);
        samples.range(begin..).copied().collect()
    }

    /// An older snapshot, against which rates can be told.
    pub fn anchor(&self) -> Option<Arc<Snapshot>> {
        self.pages().anchors.front().cloned()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn add(&mut self, row: &ServiceRow, outlook: &Outlook, passed: Option<f64>) {
        let totals = [
            row.requests_total,
            row.responses_total,
            outlook.errors_total,
        ];
        if !self.services.contains_key(&row.service) {
            let strip = Strip {
                totals,
                samples: VecDeque::new(),
            };
            self.services.insert(row.service.clone(), strip);
        }
        let Some(strip) = self.services.get_mut(&row.service) else {
            return;
        };
        // Without a time before it there is no rate to tell.
        let rate = |at: usize| {
            let more = totals[at].saturating_sub(strip.totals[at]) as f64;
            passed.map_or(0.0, |passed| tenths(more / passed)) as f32
        };
        let sample = Sample {
            time: tenths(now_s()),
            requests: rate(0),
            responses: rate(1),
            errors: rate(2),
            desired: row.desired,
            ready: row.ready,
        };
        strip.totals = totals;
        if strip.samples.len() == KEPT {
            strip.samples.pop_front();
        }
        strip.samples.push_back(sample);
    }
}

/// Nobody reads a finer number off a chart.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(uptime_s: f64, requests: u64) -> Arc<Snapshot> {
        let row = ServiceRow {
            service: "acts".to_owned(),
            requests_total: requests,
            ready: 2,
            ..ServiceRow::default()
        };
        Arc::new(Snapshot {
            uptime_s,
            services: vec![row],
            outlooks: vec![Outlook::default()],
            ..Snapshot::default()
        })
    }

    #[test]
    fn a_sample_a_second_with_rates() {
        let history = History::default();
        for (uptime, requests) in [(10.0, 500), (10.25, 510), (11.0, 520), (13.0, 560)] {
            history.sample(&snapshot(uptime, requests));
        }
        let samples = history.since("acts", 0.0);
        let rates: Vec<_> = samples.iter().map(|sample| sample.requests).collect();
        // What was counted before the first sample is nobody's second.
        assert_eq!(rates, [0.0, 20.0, 20.0]);
        assert_eq!(samples[0].ready, 2);
        assert_eq!(history.since("acts", samples[2].time), []);
        assert_eq!(history.since("other", 0.0), []);
    }

    #[test]
    fn ten_minutes_are_kept_and_a_service_that_goes_is_forgotten() {
        let history = History::default();
        for second in 0..700_u32 {
            history.sample(&snapshot(f64::from(second), 0));
        }
        assert_eq!(history.since("acts", 0.0).len(), KEPT);
        let anchor = history.anchor().unwrap().uptime_s;
        assert!((690.0..=695.0).contains(&anchor), "{anchor}");
        history.sample(&Arc::new(Snapshot {
            uptime_s: 700.0,
            ..Snapshot::default()
        }));
        assert_eq!(history.since("acts", 0.0), []);
    }
}
