//! What the controller asks of runtimes and probes. Each request runs in a task of its own and
//! reports back as an event.

use std::{sync::Arc, time::Duration};

use orch_common::slot::SlotKey;
use tokio::time::timeout;

use super::{Controller, Event, outcome::Done, tables::Tables};
use crate::{
    health::{
        EAGER_INTERVAL, START_INTERVAL,
        probe::{self, Target},
    },
    runtime::{BackendId, Prepared, Runtime, RuntimeKind},
    state::{Life, Next},
};

/// How long a condemned backend may live on so that the end of its log can be kept.
const TAIL_LIMIT: Duration = Duration::from_millis(300);
/// Lines of that log.
const TAIL_LINES: usize = 5;

impl<T: Tables> Controller<T> {
    pub(super) fn stop(&mut self, key: SlotKey, grace: Duration) {
        let current = self.slot(key).and_then(|slot| slot.current.as_ref());
        let kind = current.map(|current| current.runtime);
        let Some(runtime) = kind.and_then(|kind| self.runtimes.get(kind)).cloned() else {
            return;
        };
        let Some(current) = self.slot_mut(key).and_then(|slot| slot.current.as_mut()) else {
            return;
        };
        current.life = Life::Stopping;
        let id = current.id.clone();
        let condemned = current.fault.is_some();
        self.probes.remove(&key);
        let report = self.report.clone();
        tokio::spawn(async move {
            let tail = if condemned {
                last_words(runtime.as_ref(), &id).await
            } else {
                None
            };
            let result = runtime.stop(&id, grace).await;
            let _ = report.send(Event::Done(Done::Stopped {
                key,
                id,
                tail,
                result,
            }));
        });
    }

    pub(super) fn create(&mut self, key: SlotKey) {
        let first = self.first_generation;
        let Some(hosted) = self.services.get(usize::from(key.service)) else {
            return;
        };
        let (kind, order) = (hosted.kind, hosted.order(key.slot));
        let Some(runtime) = self.runtimes.get(kind).cloned() else {
            return;
        };
        if let Some(slot) = self.slot_or_new(key, first) {
            slot.next = Next::Creating;
        }
        let report = self.report.clone();
        tokio::spawn(async move {
            let result = runtime.create(&order).await;
            let _ = report.send(Event::Done(Done::Created { key, kind, result }));
        });
    }

    pub(super) fn start(&mut self, key: SlotKey) {
        let taken = self.take_prepared(key);
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        let Some((runtime, kind, prepared)) = taken else {
            slot.next = Next::None;
            return;
        };
        slot.next = Next::Starting;
        let report = self.report.clone();
        tokio::spawn(async move {
            let id = prepared.id.clone();
            let result = runtime.start(prepared).await;
            if result.is_err() {
                remove(runtime.as_ref(), &id).await;
            }
            let _ = report.send(Event::Done(Done::Started { key, kind, result }));
        });
    }

    pub(super) fn discard(&mut self, key: SlotKey) {
        let taken = self.take_prepared(key);
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        let Some((runtime, _, prepared)) = taken else {
            slot.next = Next::None;
            return;
        };
        slot.next = Next::Discarding;
        let report = self.report.clone();
        tokio::spawn(async move {
            remove(runtime.as_ref(), &prepared.id).await;
            let _ = report.send(Event::Done(Done::Discarded { key }));
        });
    }

    /// How patient the end of a backend is that belongs to no slot.
    pub(super) fn stray_grace(&self) -> Duration {
        let first = self.services.first();
        first.map_or(Duration::ZERO, |hosted| hosted.config.backend.stop_grace)
    }

    pub(super) fn stop_stray(&mut self, id: BackendId) {
        let Some(stray) = self.observed.strays.get_mut(&id) else {
            return;
        };
        stray.stopping = true;
        let grace = stray.grace;
        let condemned = stray.left.is_some() && grace.is_zero();
        let Some(runtime) = self.runtimes.get(stray.runtime).cloned() else {
            return;
        };
        let report = self.report.clone();
        tokio::spawn(async move {
            let tail = if condemned {
                last_words(runtime.as_ref(), &id).await
            } else {
                None
            };
            let result = runtime.stop(&id, grace).await;
            let _ = report.send(Event::Done(Done::StrayStopped { id, tail, result }));
        });
    }

    /// Probes the backend in the slot from now on; often at first if it is `fresh`, and more often
    /// if somebody waits for it.
    pub(super) fn begin_probing(&mut self, key: SlotKey, fresh: bool) {
        let Some(hosted) = self.services.get(usize::from(key.service)) else {
            return;
        };
        let Some(current) = self.slot(key).and_then(|slot| slot.current.as_ref()) else {
            return;
        };
        let target = Target {
            address: current.address,
            path: hosted.config.health.path.clone(),
        };
        let waits = fresh && self.waiting(key.service) > 0;
        let often = if waits {
            EAGER_INTERVAL
        } else {
            START_INTERVAL
        };
        let id = current.id.clone();
        let seed = id.0.clone();
        let report = self.report.clone();
        let report = move |answer| {
            let id = id.clone();
            report.send(Event::Probe { key, id, answer }).is_ok()
        };
        let prober = Arc::clone(&self.prober);
        let when = (self.beats(), seed.as_str());
        let fresh = fresh.then_some(often);
        let task = probe::spawn(prober, target, &hosted.config.health, fresh, when, report);
        self.probes.insert(key, task);
        if waits {
            self.eager.insert(key);
        } else {
            self.eager.remove(&key);
        }
    }

    fn take_prepared(&mut self, key: SlotKey) -> Option<(Arc<dyn Runtime>, RuntimeKind, Prepared)> {
        let (kind, prepared) = self.prepared.remove(&key)?;
        let runtime = self.runtimes.get(kind).cloned()?;
        Some((runtime, kind, prepared))
    }
}

/// The end of a condemned backend's log.
async fn last_words(runtime: &dyn Runtime, id: &BackendId) -> Option<String> {
    let asked = timeout(TAIL_LIMIT, runtime.log_tail(id, TAIL_LINES)).await;
    asked.ok().and_then(Result::ok)
}

/// Removes a backend that never ran. What cannot be removed is found as a stray later.
async fn remove(runtime: &dyn Runtime, id: &BackendId) {
    if id.0.is_empty() {
        return;
    }
    if let Err(error) = runtime.stop(id, Duration::ZERO).await {
        log::debug!("cannot remove {id}: {error}");
    }
}
