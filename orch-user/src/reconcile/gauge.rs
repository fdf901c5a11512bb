//! What a service's policy is told: the kernel's counts and the state of the slots, put together.

use std::{collections::VecDeque, time::Duration};

use orch_common::{
    latency::{BUCKETS, upper_bound_ns},
    slot::SlotKey,
};

use super::{Controller, hosted::Hosted, observe::NOTHING, tables::Tables};
use crate::{
    events::now_s,
    scale::{Learner, Metrics, Phase, Policy, SlotCount},
    state::{FIRST_SPARE, Life, Moment, Next, ServiceSeen, SlotSeen},
};

/// Quantiles of response times are of so many seconds.
const RECENT: usize = 10;

/// What is remembered of a service for its policy.
#[derive(Default)]
pub(super) struct Gauge {
    learner: Learner,
    /// Responses by bucket of time, in all, one for each of the last seconds.
    times: VecDeque<[u64; BUCKETS]>,
    second: u64,
}

impl Gauge {
    /// Response times of the last seconds, at these parts of all responses, in seconds.
    fn quantiles(&mut self, now: Moment, sum: &[u64; BUCKETS], parts: [f64; 3]) -> [f64; 3] {
        if self.second != now.as_secs() || self.times.is_empty() {
            self.second = now.as_secs();
            self.times.push_back(*sum);
        }
        if self.times.len() > RECENT {
            self.times.pop_front();
        }
        let before = self.times.front().unwrap_or(sum);
        let recent: Vec<u64> = sum
            .iter()
            .zip(before)
            .map(|(now, then)| now.saturating_sub(*then))
            .collect();
        let all: u64 = recent.iter().sum();
        parts.map(|part| {
            let wanted = ((all as f64 * part).ceil() as u64).max(1);
            let mut seen = 0;
            let found = recent.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            found.map_or(0.0, |bucket| upper_bound_ns(bucket) as f64 / 1e9)
        })
    }
}

fn phase(slot: &SlotSeen) -> Phase {
    if slot.can_serve() {
        return Phase::Ready;
    }
    let well =
        |current: &crate::state::Running| current.fault.is_none() && current.life == Life::Running;
    let comes = match &slot.current {
        Some(current) => well(current),
        None => matches!(
            slot.next,
            Next::Creating | Next::Prepared { .. } | Next::Starting
        ),
    };
    if comes { Phase::Starting } else { Phase::Other }
}

impl<T: Tables> Controller<T> {
    /// What is known of a service now.
    pub(super) fn measure(&mut self, service: usize, now: Moment) -> Option<Metrics> {
        let seen = self.observed.services.get(service)?;
        let hosted = self.services.get(service)?;
        // Windows count requests and nothing else.
        let learns = hosted.config.scale.policy != Policy::Step;
        let mut sum = [0; BUCKETS];
        let mut counts = Vec::new();
        for (slot, state) in seen.slots.range(..FIRST_SPARE) {
            let key = SlotKey {
                service: service as u16,
                slot: *slot,
            };
            let reading = self.readings.get(&key);
            let counters = reading.map_or(NOTHING, |slot| slot.counters);
            let histogram = learns.then(|| self.tables.latency(key).ok()).flatten();
            if let Some(histogram) = &histogram {
                for (sum, part) in sum.iter_mut().zip(histogram.buckets) {
                    *sum += part;
                }
            }
            counts.push(SlotCount {
                slot: *slot,
                phase: phase(state),
                requests: counters.requests,
                responses: counters.responses.iter().sum(),
                time: histogram.map_or(Duration::ZERO, |one| Duration::from_nanos(one.sum_ns)),
                in_flight: reading.map_or(0, |slot| slot.in_flight),
            });
        }
        let mut metrics = plain(hosted, seen);
        if learns {
            let gauge = &mut self.services.get_mut(service)?.gauge;
            gauge.learner.read(now, counts.into_iter());
            let (rate, saturated) = gauge.learner.service_rate().unwrap_or_default();
            metrics.in_flight = gauge.learner.in_flight();
            metrics.service_rate = rate;
            metrics.saturated = saturated;
            metrics.alone_s = gauge.learner.alone_s().unwrap_or_default();
            metrics.start_s = gauge.learner.start_s().unwrap_or_default();
            let times = gauge.quantiles(now, &sum, [0.5, 0.9, 0.99]);
            [metrics.p50_s, metrics.p90_s, metrics.p99_s] = times;
        }
        Some(metrics)
    }
}

/// What there is to know without having learnt anything.
fn plain(hosted: &Hosted, seen: &ServiceSeen) -> Metrics {
    let slots = || seen.slots.range(..FIRST_SPARE).map(|(_, slot)| slot);
    let number = |is: &dyn Fn(&SlotSeen) -> bool| slots().filter(|slot| is(slot)).count() as u16;
    let spares = seen
        .slots
        .range(FIRST_SPARE..)
        .filter(|(_, spare)| spare.can_serve());
    Metrics {
        requests: hosted.totals.requests,
        responses: super::hosted::responses(&hosted.totals),
        errors: hosted.totals.responses[5],
        ready: number(&|slot| phase(slot) == Phase::Ready),
        starting: number(&|slot| phase(slot) == Phase::Starting),
        running: number(&|slot| slot.current.is_some() || slot.next != Next::None),
        replacing: number(&|slot| slot.broken.is_some()),
        spares: spares.count() as u16,
        wall_s: now_s(),
        ..Metrics::default()
    }
}
