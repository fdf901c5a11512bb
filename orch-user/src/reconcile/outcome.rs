//! What runtimes report when they have finished what they were asked for.

use std::time::Duration;

use orch_common::slot::SlotKey;

use super::{Controller, adopt::short, execute::whole, tables::Tables};
use crate::{
    health::Health,
    runtime::{Backend, BackendId, Prepared, RuntimeError, RuntimeKind},
    state::{Cause, Life, Moment, Next, Running, STOP_RETRY},
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
            Done::StrayStopped { id, result } => self.stray_stopped(&id, result),
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
        let text = format!("started {} at {}", short(&backend.id.0), backend.address);
        let exit = self
            .early_exits
            .iter()
            .position(|(id, _)| *id == backend.id);
        let exit = exit.map(|at| self.early_exits.swap_remove(at));
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        slot.next = Next::None;
        slot.touched_at = now;
        slot.current = Some(Running {
            id: backend.id,
            runtime: kind,
            address: backend.address,
            spec: backend.spec,
            seen_at: now,
            age: backend.age,
            health: Health::default(),
            life: Life::Running,
            fault: None,
            stop_at: Moment::ZERO,
        });
        self.record(key, "started", text);
        self.sync_host();
        match exit {
            Some((_, how)) => self.condemn(key, Cause::Exited(how)),
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
        if let Some(tail) = tail.filter(|tail| !tail.trim().is_empty() && slot.broken.is_some()) {
            let lines: Vec<_> = tail.lines().map(str::trim_end).collect();
            slot.note = format!("{}; its log ends: {}", slot.note, lines.join(" | "));
        }
        slot.stopped(now);
        let wait = slot.retry_at.saturating_sub(now);
        let crashed = slot.broken.is_some();
        let note = slot.note.clone();
        self.record(key, "stopped", format!("stopped {}", short(&id.0)));
        if crashed && wait > Duration::ZERO {
            let wait = wait.as_secs_f64();
            let text = format!("fails again and again, next try in {wait:.1} s: {note}");
            self.record(key, "backoff", text);
        }
        self.sync_host();
    }

    fn stray_stopped(&mut self, id: &BackendId, result: Result<(), RuntimeError>) {
        let now = self.now();
        let Err(error) = result else {
            self.observed.strays.remove(id);
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
