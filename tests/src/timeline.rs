//! When copies of a service were ordered, ready and stopped, told from its tape and its events: what
//! a simulation of the same run has to be given.

use orch::{
    beat::BEAT,
    load::watch::Decided,
    scale::{Input, Log},
    view::EventRow,
};

/// What is known of a service since its controller began, which then ordered one copy.
#[derive(Debug)]
pub struct Timeline {
    /// When the controller began, and its beats with it; as the times of events.
    begin_s: f64,
    log: Log,
    events: Vec<EventRow>,
    /// Copies that were wanted, and from when on.
    orders: Vec<(f64, u16)>,
}

impl Timeline {
    /// Of a service that has decided something. Tape and events must reach back to the beginning.
    pub fn new(log: Log, events: Vec<EventRow>) -> Self {
        let decided: Vec<_> = log
            .entries
            .iter()
            .filter_map(|entry| Some((entry.at.as_secs_f64(), entry.decision.as_ref()?)))
            .collect();
        // Both tell of the same decisions, in the same order.
        let scaled = events.iter().filter(|event| event.kind == "scaled");
        let begun = scaled.zip(&decided).map(|(event, (at, _))| event.time - at);
        let begin_s = median(begun.collect());
        let mut orders = vec![(begin_s, 0)];
        for (at, decision) in &decided {
            orders.extend((decision.from..decision.to).map(|slot| (begin_s + at, slot)));
        }
        Self {
            begin_s,
            log,
            events,
            orders,
        }
    }

    /// How long before a load its controller began, in seconds: by the beats at which it decided.
    pub fn lead_s(&self, during: &[Decided]) -> f64 {
        let beat = BEAT.as_secs_f64();
        let leads = during.iter().filter_map(|one| {
            let mut entries = self.log.entries.iter();
            let found = entries.find(|entry| {
                let decision = entry.decision.as_ref();
                decision.is_some_and(|is| {
                    (is.from, is.to, &is.reason) == (one.from, one.to, &one.reason)
                })
            });
            let at = found?.at.as_secs_f64();
            Some((at / beat).floor() * beat - one.at_s)
        });
        median(leads.collect())
    }

    /// From the order of a copy to its readiness, in seconds, of each copy in the order in which they
    /// were ordered, those of one decision by slot. Where the one before was still being stopped, from
    /// its end on.
    pub fn starts_s(&self) -> Vec<f64> {
        let started = self.events.iter().filter(|event| event.kind == "started");
        let mut starts: Vec<(f64, u16, f64)> = started
            .filter_map(|started| {
                let slot = started.slot?;
                let free = self.last(slot, "stopped", started.time);
                let free = free.unwrap_or(self.begin_s);
                let mut orders = self.orders.iter().filter(|order| order.1 == slot);
                let order = orders.find(|(at, _)| (free..=started.time).contains(at));
                let ordered = order.map_or(free, |(at, _)| *at);
                let ready = self.next("ready", started.time, |is| is == slot)?;
                Some((ordered, slot, ready - ordered))
            })
            .collect();
        starts.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        starts.into_iter().map(|(.., took)| took).collect()
    }

    /// From the stop of a copy to its end, in seconds: the median of those that had nothing left to do,
    /// which are stopped when the counts are read the next time. 0 where none went.
    pub fn stop_s(&self) -> f64 {
        let draining = self.events.iter().filter(|event| event.kind == "draining");
        let idle = draining.filter(|event| event.text.contains(" 0 connections"));
        let stops = idle.filter_map(|event| {
            let slot = event.slot?;
            let end = self.next("stopped", event.time, |is| is == slot)?;
            let beat = BEAT.as_secs_f64();
            let beats = ((event.time - self.begin_s) / beat).floor() + 1.0;
            let others = ["draining", "stopped"].map(|kind| {
                let next = self.next(kind, event.time, |is| is != slot);
                next.unwrap_or(f64::INFINITY)
            });
            let read = (self.begin_s + beats * beat).min(others[0]).min(others[1]);
            // A copy that came back was stopped another time.
            let kept = self.next("ready", event.time, |is| is == slot);
            (kept.is_none_or(|kept| kept > end)).then_some((end - read).max(0.0))
        });
        let stops: Vec<_> = stops.collect();
        if stops.is_empty() { 0.0 } else { median(stops) }
    }

    /// Seconds that a request takes which does not wait, as the controller has learnt in the end.
    pub fn alone_s(&self) -> f64 {
        let mut latest = self.log.entries.iter().rev();
        let read = latest.find_map(|entry| match &entry.input {
            Input::Read(metrics) => Some(metrics.alone_s),
            _ => None,
        });
        read.unwrap_or_default()
    }

    /// The last event of this kind in the slot before this moment.
    fn last(&self, slot: u16, kind: &str, before_s: f64) -> Option<f64> {
        let is_it = |event: &&EventRow| {
            event.kind == kind && event.slot == Some(slot) && event.time < before_s
        };
        self.events.iter().rfind(is_it).map(|event| event.time)
    }

    /// The first event of this kind after this moment, in a slot that will do.
    fn next(&self, kind: &str, after_s: f64, slot: impl Fn(u16) -> bool) -> Option<f64> {
        let is_it = |event: &&EventRow| {
            event.kind == kind && event.slot.is_some_and(&slot) && event.time > after_s
        };
        self.events.iter().find(is_it).map(|event| event.time)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    assert!(!values.is_empty(), "nothing was decided");
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
