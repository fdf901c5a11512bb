//! What runtimes report when they have finished what they were asked for.

use std::time::Duration;

use orch_common::slot::SlotKey;

use super::{Controller, adopt::short, execute::whole, tables::Tables};
use crate::{
    health::Health,
    runtime::{Backend, BackendId, Prepared, RuntimeError, RuntimeKind},
    state::{Cause, Next, Running, STOP_RETRY},
};

/// Something that a runtime was asked for and has finished, for better or worse.
#[derive(Debug)]
pub(super) enum Done {
    Created {
        key: SlotKey,
        kind: RuntimeKind,
        result: Result<Prepared, RuntimeError>,
    },
    Started {
        key: SlotKey,
        kind: RuntimeKind,
        result: Result<Backend, RuntimeError>,
    },
    Stopped {
        key: SlotKey,
        id: BackendId,
        tail: Option<String>,
        result: Result<(), RuntimeError>,
    },
    Discarded {
        key: SlotKey,
    },
    StrayStopped {
        id: BackendId,
        tail: Option<String>,
        result: Result<(), RuntimeError>,
    },
}

impl<T: Tables> Controller<T> {
    pub(super) fn done(&mut self, done: Done) {
        self.dirty = true;
        match done {
            Done::Created { key, kind, result } => self.created(key, kind, result),
            Done::Started { key, kind, result } => self.started(key, kind, result),
            Done::Stopped {
                key,
                id,
                tail,
                result,
            } => self.stopped(key, &id, tail.as_deref(), result),
            Done::Discarded { key } => {
                let now = self.now();
                if let Some(slot) = self.slot_mut(key) {
                    slot.next = Next::None;
                    slot.touched_at = now;
                }
            }
            Done::StrayStopped { id, tail, result } => {
                self.stray_stopped(&id, tail.as_deref(), result);
            }
        }
    }

    fn created(&mut self, key: SlotKey, kind: RuntimeKind, result: Result<Prepared, RuntimeError>) {
        let now = self.now();
        match result {
            Ok(prepared) => {
                let spec = prepared.order.spec.clone();
                self.prepared.insert(key, (kind, prepared));
                if let Some(slot) = self.slot_mut(key) {
                    slot.next = Next::Prepared { spec };
                    slot.touched_at = now;
                }
            }
            Err(error) => self.cannot_start(key, kind, &error),
        }
    }

    fn started(&mut self, key: SlotKey, kind: RuntimeKind, result: Result<Backend, RuntimeError>) {
        let now = self.now();
        let backend = match result {
            Ok(backend) => backend,
            Err(error) => return self.cannot_start(key, kind, &error),
        };
        let direct = self.is_direct(key);
        let text = format!("started {} at {}", short(&backend.id.0), backend.address);
        let exit = self
            .early_exits
            .iter()
            .position(|(id, _)| *id == backend.id);
        let exit = exit.map(|at| self.early_exits.swap_remove(at));
        self.make_room(backend.address.ip());
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        slot.next = Next::None;
        slot.touched_at = now;
        // One that has ended has no address any more: that says nothing of the engine.
        let unreachable = direct && backend.netns.is_none() && backend.pid.is_some();
        let gated = backend.gated;
        if gated {
            // It runs only once it is needed: what befell the one before it says nothing of it.
            slot.note.clear();
            slot.broken = None;
        }
        slot.current = Some(Running::new(backend, kind, Health::default(), now));
        self.record(key, "started", text);
        if unreachable {
            self.fall_back(key, "the engine gives containers no address of their own");
        }
        self.sync_host();
        match exit {
            Some((_, how)) => self.condemn(key, Cause::Exited(how)),
            // Nothing answers there yet.
            None if gated => self.prepare(key),
            None => self.begin_probing(key, true),
        }
        if !self.is_starting() {
            self.early_exits.clear();
        }
    }

    fn cannot_start(&mut self, key: SlotKey, kind: RuntimeKind, error: &RuntimeError) {
        let now = self.now();
        let text = whole(error);
        let gone = self.is_gone(kind, error);
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        let told = slot.note == text;
        slot.cannot_start(text.clone(), now);
        if gone {
            // Not this slot's fault, and no reason to make it wait once the runtime is back.
            slot.failures = 0;
            slot.retry_at = now + STOP_RETRY;
        }
        let wait = slot.retry_at.saturating_sub(now);
        if !told && !gone {
            self.record(key, "error", format!("{text}; next try in {wait:?}"));
        }
    }

    fn stopped(
        &mut self,
        key: SlotKey,
        id: &BackendId,
        tail: Option<&str>,
        result: Result<(), RuntimeError>,
    ) {
        let now = self.now();
        let failed = result.err();
        // A second stop of the same backend, in a hurry, reports the same end twice.
        let current = self.slot(key).and_then(|slot| slot.current.as_ref());
        let Some(kind) = current
            .filter(|current| current.id == *id)
            .map(|current| current.runtime)
        else {
            return;
        };
        let gone = failed
            .as_ref()
            .is_some_and(|error| self.is_gone(kind, error));
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        if let Some(error) = failed {
            let text = whole(&error);
            let told = slot.note == text;
            slot.note.clone_from(&text);
            slot.cannot_stop(now);
            if !told && !gone {
                self.record(key, "error", text);
            }
            return;
        }
        slot.note_tail(tail);
        slot.stopped(now);
        self.record(key, "stopped", format!("stopped {}", short(&id.0)));
        self.record_backoff(key);
        self.sync_host();
    }

    /// Notes that the slot waits before its next try, if it does.
    fn record_backoff(&mut self, key: SlotKey) {
        let now = self.now();
        let Some(slot) = self.slot(key) else {
            return;
        };
        let wait = slot.retry_at.saturating_sub(now);
        if slot.broken.is_some() && wait > Duration::ZERO {
            let (wait, note) = (wait.as_secs_f64(), &slot.note);
            let text = format!("fails again and again, next try in {wait:.1} s: {note}");
            self.record(key, "backoff", text);
        }
    }

    fn stray_stopped(
        &mut self,
        id: &BackendId,
        tail: Option<&str>,
        result: Result<(), RuntimeError>,
    ) {
        let now = self.now();
        let Err(error) = result else {
            let stray = self.observed.strays.remove(id);
            if let Some(key) = stray.and_then(|stray| stray.left) {
                return self.left_stopped(key, id, tail);
            }
            let text = format!("removed {}, which belonged to no slot", short(&id.0));
            self.door.journal.record("", None, "stopped", text);
            return;
        };
        log::debug!("cannot stop {id}: {}", whole(&error));
        if let Some(stray) = self.observed.strays.get_mut(id) {
            stray.stopping = false;
            stray.retry_at = now + STOP_RETRY;
        }
    }

    /// A backend that had left its slot for another is gone.
    fn left_stopped(&mut self, key: SlotKey, id: &BackendId, tail: Option<&str>) {
        let now = self.now();
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        slot.touched_at = now;
        slot.note_tail(tail);
        self.record(key, "stopped", format!("stopped {}", short(&id.0)));
        self.record_backoff(key);
        self.sync_host();
    }

    /// Whether the error says that the whole runtime is gone; that is told once.
    fn is_gone(&mut self, kind: RuntimeKind, error: &RuntimeError) -> bool {
        let gone = matches!(error, RuntimeError::EngineGone { .. });
        if gone {
            self.runtime_lost(kind, &whole(error));
        }
        gone
    }

    pub(super) fn runtime_lost(&mut self, kind: RuntimeKind, why: &str) {
        if !self.lost.insert(kind) {
            return;
        }
        let text = format!(
            "the {} runtime does not answer; what runs keeps its traffic: {why}",
            kind.name()
        );
        self.door.journal.record("", None, "lost", text);
    }

    /// The runtime answers: slots that waited for it need not wait longer.
    pub(super) fn runtime_back(&mut self, kind: RuntimeKind) {
        if !self.lost.remove(&kind) {
            return;
        }
        let now = self.now();
        let text = format!("the {} runtime answers again", kind.name());
        self.door.journal.record("", None, "back", text);
        for (hosted, seen) in self.services.iter().zip(&mut self.observed.services) {
            if hosted.kind != kind {
                continue;
            }
            for slot in seen.slots.values_mut() {
                slot.retry_at = slot.retry_at.min(now);
            }
        }
        self.resync(Some(kind));
    }
}
