//! The snapshot that API, status page and metrics show.

use std::{collections::BTreeMap, sync::Arc};

use orch_common::{
    counter::{Failure, Reason, SlotCounters},
    slot::{SlotKey, SlotState},
};

use super::{Controller, hosted::Hosted, observe::NOTHING, tables::Tables};
use crate::{
    health::Answer,
    scale::{Policy, outlook},
    state::{FIRST_SPARE, Moment, ServiceSeen, SlotSeen},
    view::{Outlook, ServiceRow, SlotRow, SlotSignals, Snapshot},
};

impl<T: Tables> Controller<T> {
    /// Publishes what there is to show, if it may have changed.
    pub(super) fn publish(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let snapshot = Arc::new(self.snapshot());
        self.door.history.sample(&snapshot);
        self.door.snapshot.send_replace(snapshot);
    }

    fn snapshot(&self) -> Snapshot {
        let now = self.now();
        let mut snapshot = Snapshot {
            uptime_s: now.as_secs_f64(),
            flows: self.flows,
            reasons: Reason::ALL
                .iter()
                .zip(self.reasons)
                .map(|(reason, count)| (reason.name().to_owned(), count))
                .collect(),
            detection: self.detection.clone(),
            recovery: self.recovery.clone(),
            ..Snapshot::default()
        };
        let services = self.services.iter().zip(&self.observed.services);
        for (index, (hosted, seen)) in services.enumerate() {
            if hosted.leaving && seen.is_idle() {
                continue;
            }
            let row = self.service_row(index as u16, hosted, seen, now);
            snapshot.services.push(row);
            snapshot.outlooks.push(outlook(hosted));
            let name = &hosted.config.name;
            let counts = |counts: &BTreeMap<&'static str, u64>| {
                let row =
                    |(label, count): (&&str, &u64)| (name.clone(), (*label).to_owned(), *count);
                counts.iter().map(row).collect::<Vec<_>>()
            };
            snapshot.replacements.extend(counts(&hosted.replacements));
            snapshot.decisions.extend(counts(&hosted.decisions));
            for (number, slot) in &seen.slots {
                let key = SlotKey {
                    service: index as u16,
                    slot: *number,
                };
                if *number >= FIRST_SPARE {
                    if !slot.is_idle() || now < slot.retry_at {
                        let row = self.slot_row(key, hosted, seen, slot, now);
                        snapshot.slots.push(row);
                    }
                    continue;
                }
                let wanted = *number < hosted.wish(self.closing.as_ref()).warm;
                if slot.is_idle() && !wanted {
                    continue;
                }
                snapshot
                    .slots
                    .push(self.slot_row(key, hosted, seen, slot, now));
                snapshot.signals.push(self.signals(key, hosted));
            }
        }
        snapshot
    }

    fn service_row(
        &self,
        index: u16,
        hosted: &Hosted,
        seen: &ServiceSeen,
        now: Moment,
    ) -> ServiceRow {
        let (request_rate, response_rate) = hosted.rates();
        let end = hosted.policy.scaler().window_end(&hosted.config.scale);
        ServiceRow {
            service: hosted.config.name.clone(),
            listen: hosted.config.listen.to_string(),
            mode: hosted.config.mode.name().to_owned(),
            desired: hosted.desired(self.closing.as_ref()),
            min: hosted.config.scale.min,
            max: hosted.config.scale.max,
            held: hosted.policy.scaler().is_held(),
            leaving: hosted.leaving,
            ready: seen.ring.as_ref().map_or(0, |ring| ring.len() as u16),
            window_count: hosted.policy.scaler().count(&hosted.config.scale),
            window_ends_in_s: end.map(|end| end.saturating_sub(now).as_secs_f64()),
            request_rate,
            response_rate,
            requests_total: hosted.totals.requests,
            responses_total: super::hosted::responses(&hosted.totals),
            waiting: self.waiting(index),
        }
    }

    fn slot_row(
        &self,
        key: SlotKey,
        hosted: &Hosted,
        seen: &ServiceSeen,
        slot: &SlotSeen,
        now: Moment,
    ) -> SlotRow {
        let in_ring = seen
            .ring
            .as_ref()
            .is_some_and(|ring| ring.contains(&key.slot));
        let spare = key.slot >= FIRST_SPARE;
        let state = if spare {
            slot.spare_state(now)
        } else {
            slot.state(in_ring, now)
        };
        let reading = self.readings.get(&key);
        let counters = reading.map_or(NOTHING, |slot| slot.counters);
        let suspect = self.suspects.get(&key);
        let current = slot.current.as_ref();
        let healthy = |current: &crate::state::Running| {
            current.fault.is_none() && current.health.last.is_some_and(Answer::is_good)
        };
        let age = |current: &crate::state::Running| {
            (current.age + now.saturating_sub(current.seen_at)).as_secs_f64()
        };
        let delivery = hosted.delivery_to(key.slot);
        SlotRow {
            service: hosted.config.name.clone(),
            slot: key.slot,
            spare,
            port: if spare { 0 } else { seen.port(key.slot) },
            state: state.name().to_owned(),
            backend: current
                .map(|current| current.id.0.clone())
                .unwrap_or_default(),
            runtime: current
                .map_or(hosted.kind, |current| current.runtime)
                .name()
                .to_owned(),
            address: current
                .map(|current| current.address.to_string())
                .unwrap_or_default(),
            delivery: delivery.way.name().to_owned(),
            delivery_reason: delivery.reason.clone(),
            healthy: current.is_some_and(healthy),
            connections: slot.live,
            requests: counters.requests,
            responses: counters.responses.iter().sum(),
            errors: counters.responses[5],
            age_s: current.map_or(0.0, age),
            note: self.note(key, slot, state, now),
            suspect: suspect.map_or("", |suspect| suspect.name()).to_owned(),
            in_flight: reading.map_or(0, |reading| reading.in_flight),
            bytes_in: reading.map_or(0, |reading| reading.bytes.received),
            bytes_out: reading.map_or(0, |reading| reading.bytes.sent),
            connection_errors: failures(&counters),
        }
    }

    /// What is wrong with a slot, for a person.
    fn note(&self, key: SlotKey, slot: &SlotSeen, state: SlotState, now: Moment) -> String {
        if state == SlotState::Backoff {
            let wait = slot.retry_at.saturating_sub(now).as_secs_f64();
            return format!("{}; next try in {wait:.1} s", slot.note);
        }
        match self.suspects.get(&key) {
            Some(suspect) if state == SlotState::Ready => {
                let more = if slot.note.is_empty() { "" } else { "; " };
                format!("passed by, since it {}{more}{}", suspect.deed(), slot.note)
            }
            _ => slot.note.clone(),
        }
    }

    fn signals(&self, key: SlotKey, hosted: &Hosted) -> SlotSignals {
        let counters = self
            .readings
            .get(&key)
            .map_or(NOTHING, |slot| slot.counters);
        let histogram = self.latencies.get(&key);
        SlotSignals {
            service: hosted.config.name.clone(),
            slot: key.slot,
            excluded: counters.excluded,
            responses: counters.responses,
            failures: counters.failures,
            sum_s: histogram.map_or(0.0, |histogram| histogram.sum_ns as f64 / 1e9),
            buckets: histogram
                .map(|histogram| histogram.buckets.to_vec())
                .unwrap_or_default(),
            polls: self.polls.get(&key).copied().unwrap_or_default(),
        }
    }
}

/// Connections that failed, by kind.
fn failures(counters: &SlotCounters) -> BTreeMap<String, u64> {
    let kinds = Failure::ALL.iter().zip(counters.failures);
    kinds
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| (kind.name().to_owned(), count))
        .collect()
}

fn outlook(hosted: &Hosted) -> Outlook {
    let rules = &hosted.config.scale;
    let scaler = hosted.policy.scaler();
    let coming = outlook::of(scaler, rules);
    Outlook {
        would: coming.would,
        next_step: coming.next_step,
        windowless: (rules.policy != Policy::Step).then(|| rules.policy.name()),
        window_s: rules.interval.as_secs_f64(),
        errors_total: hosted.totals.responses[5],
    }
}
