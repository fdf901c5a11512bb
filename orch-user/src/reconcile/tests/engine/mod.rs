//! An engine in memory: what runs there, and what befalls it?

mod answers;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use orch_common::slot::SlotKey;
use tokio::{sync::mpsc, time::Instant};

use super::kernel::FakeTables;
use crate::{
    health::Answer,
    runtime::{Backend, BackendId, RuntimeEvent},
};

/// How long the fake runtime takes for anything.
pub(super) const WORK: Duration = Duration::from_millis(200);
/// How long a backend takes before it answers anything.
pub(super) const BOOT: Duration = Duration::from_millis(120);

#[derive(Default)]
pub(super) struct Engine {
    pub(super) backends: Vec<FakeBackend>,
    born: u32,
    pub(super) gone: bool,
    /// It is an engine of containers, rather than of processes.
    pub(super) docker: bool,
    /// What its containers have not.
    pub(super) lacks: Option<Lack>,
    /// Exit code with which whatever is started ends at once.
    pub(super) crashes: Option<i32>,
    /// What a new backend answers.
    pub(super) answer: Option<Answer>,
    pub(super) creations: u32,
    pub(super) graces: Vec<Duration>,
    /// How long a stop takes beyond the usual.
    pub(super) stop_takes: Duration,
    events: Option<mpsc::Sender<RuntimeEvent>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// Addresses of their own.
    Addresses,
    Freezer,
    Gate,
}

pub(super) struct FakeBackend {
    pub(super) backend: Backend,
    pub(super) answer: Answer,
    pub(super) frozen: bool,
    started: Instant,
}

#[derive(Clone, Default)]
pub(super) struct FakeRuntime(Arc<Mutex<Engine>>);

impl FakeRuntime {
    pub(super) fn engine(&self) -> MutexGuard<'_, Engine> {
        self.0.lock().unwrap()
    }

    /// The id of what runs at this port.
    pub(super) fn at(&self, port: u16) -> Option<String> {
        let engine = self.engine();
        let mut backends = engine.backends.iter();
        let found = backends.find(|b| b.backend.running && b.backend.address.port() == port)?;
        Some(found.backend.id.0.clone())
    }

    /// The backend that the kernel leads to in this slot.
    pub(super) fn behind(&self, tables: &FakeTables, slot: u16) -> Option<Backend> {
        let key = SlotKey { service: 0, slot };
        let entry = tables.kernel().slots.get(&key)?.0.clone();
        let engine = self.engine();
        let mut backends = engine.backends.iter().map(|fake| &fake.backend);
        let found = backends.find(|b| b.running && b.address == entry.address);
        found.cloned()
    }

    pub(super) fn set_answer_of(&self, id: &BackendId, answer: Answer) {
        let mut engine = self.engine();
        let mut backends = engine.backends.iter_mut();
        let fake = backends.find(|fake| fake.backend.id == *id).unwrap();
        fake.answer = answer;
    }

    /// Ends a backend, as `docker kill` would.
    pub(super) fn kill_id(&self, id: &BackendId) {
        let mut engine = self.engine();
        let events = engine.events.clone();
        let mut backends = engine.backends.iter_mut();
        let fake = backends.find(|fake| fake.backend.id == *id).unwrap();
        fake.backend.running = false;
        let (id, how) = (id.clone(), "exit code 137".to_owned());
        let event = RuntimeEvent::Exited { id, how };
        events.unwrap().try_send(event).unwrap();
    }

    pub(super) fn running(&self) -> usize {
        let engine = self.engine();
        engine.backends.iter().filter(|b| b.backend.running).count()
    }

    pub(super) fn set_answer(&self, port: u16, answer: Answer) {
        let mut engine = self.engine();
        for fake in &mut engine.backends {
            if fake.backend.address.port() == port {
                fake.answer = answer;
            }
        }
    }

    /// Ends what runs at this port, as `kill -9` would.
    pub(super) fn kill(&self, port: u16, tell: bool) {
        let mut engine = self.engine();
        let events = engine.events.clone();
        for fake in &mut engine.backends {
            if fake.backend.address.port() == port && fake.backend.running {
                fake.backend.running = false;
                if tell {
                    let id = fake.backend.id.clone();
                    let how = "signal 9".to_owned();
                    let event = RuntimeEvent::Exited { id, how };
                    events.as_ref().unwrap().try_send(event).unwrap();
                }
            }
        }
    }

    pub(super) fn send(&self, event: RuntimeEvent) {
        let events = self.engine().events.clone();
        events.unwrap().try_send(event).unwrap();
    }

    /// Something that runs already.
    pub(super) fn plant(&self, service: &str, slot: u16, port: u16, spec: &str) -> BackendId {
        let mut engine = self.engine();
        engine.born += 1;
        let id = BackendId(format!("planted{}", engine.born));
        engine.backends.push(FakeBackend {
            backend: Backend {
                id: id.clone(),
                service: service.into(),
                slot: Some(slot),
                address: SocketAddr::from(([127, 0, 0, 1], port)),
                pid: None,
                netns: None,
                running: true,
                gated: false,
                age: Duration::from_mins(1),
                spec: spec.into(),
            },
            answer: Answer::Status(200),
            frozen: false,
            started: Instant::now(),
        });
        id
    }
}
