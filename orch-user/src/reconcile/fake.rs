//! A kernel and a runtime in memory.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::future::BoxFuture;
use orch_common::{
    counter::{Bytes, Reason, SlotCounters},
    event::{Event, EventKind},
    hold::{HeldSyn, Release},
    latency::Histogram,
    slot::{SlotKey, SlotState},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::tables::{Outcome, Tables};
use crate::{
    config::{BackendConfig, ServiceConfig},
    dataplane::{DataplaneError, HoldTerms, Injected, Reach, Reading, SlotEntry, SlotReading},
    health::{
        Answer,
        probe::{Prober, Target},
    },
    runtime::{
        Answer as RuntimeAnswer, Backend, BackendId, Order, Prepared, PublishOn, Runtime,
        RuntimeError, RuntimeEvent, RuntimeKind,
    },
};

/// What the kernel holds.
#[derive(Default)]
pub(super) struct Kernel {
    pub(super) slots: BTreeMap<SlotKey, (SlotEntry, SlotCounters, u64)>,
    pub(super) rings: BTreeMap<u16, Vec<u16>>,
    pub(super) services: Vec<String>,
    /// Every ring there ever was.
    pub(super) ring_log: Vec<(u16, Vec<u16>)>,
    pub(super) detached: bool,
    /// Calls of `set_slot` that were obeyed.
    pub(super) sets: u32,
    pub(super) refuses: bool,
    /// Refuses slots that are to be reached directly, so.
    pub(super) refuses_direct: Option<ErrorKind>,
    /// What it has to tell, at the next tick.
    pub(super) alarms: Vec<Event>,
    /// Slots that picks pass by.
    pub(super) passed_by: BTreeMap<SlotKey, EventKind>,
    /// SYNs that wait to be taken.
    pub(super) held: Vec<HeldSyn>,
    /// On which terms connections wait.
    pub(super) holding: BTreeMap<u16, Option<HoldTerms>>,
    /// What was sent on: by which interface, and how.
    pub(super) injected: Vec<(u32, Release)>,
    /// How often SYNs without an answer were looked for.
    pub(super) replays: u32,
    turn: usize,
}

#[derive(Clone, Default)]
pub(super) struct FakeTables(pub(super) Arc<Mutex<Kernel>>);

impl FakeTables {
    pub(super) fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.0.lock().unwrap()
    }

    /// So many requests, in turns over the ring; returns the slots that answered.
    pub(super) fn request(&self, service: u16, count: usize) -> Vec<u16> {
        let mut kernel = self.kernel();
        let ring = kernel.rings.get(&service).cloned().unwrap_or_default();
        assert!(!ring.is_empty(), "nobody answers");
        (0..count)
            .map(|_| {
                let slot = ring[kernel.turn % ring.len()];
                kernel.turn += 1;
                let key = SlotKey { service, slot };
                let (_, counters, _) = kernel.slots.get_mut(&key).unwrap();
                counters.requests += 1;
                counters.responses[2] += 1;
                slot
            })
            .collect()
    }

    pub(super) fn ring(&self, service: u16) -> Vec<u16> {
        let kernel = self.kernel();
        kernel.rings.get(&service).cloned().unwrap_or_default()
    }

    /// The slot answers a SYN with RST.
    pub(super) fn refuse(&self, key: SlotKey, generation: u32) {
        self.alarm(key, generation, EventKind::Refused);
    }

    /// The kernel passes a slot by, and tells.
    pub(super) fn alarm(&self, slot: SlotKey, generation: u32, kind: EventKind) {
        let mut kernel = self.kernel();
        kernel.passed_by.insert(slot, kind);
        kernel.alarms.push(Event {
            kind,
            slot,
            generation,
        });
    }

    pub(super) fn generation(&self, key: SlotKey) -> u32 {
        let kernel = self.kernel();
        kernel.slots.get(&key).map_or(0, |slot| slot.0.generation)
    }

    pub(super) fn set_live(&self, key: SlotKey, live: u64) {
        self.kernel().slots.get_mut(&key).unwrap().2 = live;
    }
}

impl Tables for FakeTables {
    fn set_services(&mut self, services: &[ServiceConfig]) -> Outcome<()> {
        self.kernel().services = services.iter().map(|s| s.name.clone()).collect();
        Ok(())
    }

    fn set_slot(&mut self, key: SlotKey, entry: &SlotEntry) -> Outcome<()> {
        let mut kernel = self.kernel();
        let direct = kernel.refuses_direct.filter(|_| entry.reach != Reach::Port);
        let all = kernel.refuses.then_some(ErrorKind::PermissionDenied);
        if let Some(kind) = all.or(direct) {
            return Err(DataplaneError::File {
                path: "/sys/fs/bpf/orch".into(),
                source: kind.into(),
            });
        }
        kernel.sets += 1;
        if entry.state == SlotState::Ready {
            kernel.passed_by.remove(&key);
        }
        let new = (entry.clone(), SlotCounters::default(), 0);
        kernel.slots.entry(key).or_insert(new).0 = entry.clone();
        Ok(())
    }

    fn prepare(&mut self, _reach: &Reach, _address: SocketAddr) -> Outcome<()> {
        Ok(())
    }

    fn remove_slot(&mut self, key: SlotKey) -> Outcome<()> {
        self.kernel().slots.remove(&key);
        Ok(())
    }

    fn set_ring(&mut self, service: u16, slots: &[u16]) -> Outcome<()> {
        let mut kernel = self.kernel();
        kernel.rings.insert(service, slots.to_vec());
        kernel.ring_log.push((service, slots.to_vec()));
        Ok(())
    }

    fn read(&self) -> Outcome<Reading> {
        let kernel = self.kernel();
        let slots = kernel
            .slots
            .iter()
            .map(|(key, (entry, counters, live))| SlotReading {
                key: *key,
                port: entry.port,
                state: entry.state,
                address: Some(entry.address),
                generation: entry.generation,
                live: *live,
                passed_by: kernel.passed_by.get(key).copied(),
                connections: 0,
                counters: *counters,
                in_flight: 0,
                bytes: Bytes::default(),
            });
        Ok(Reading {
            slots: slots.collect(),
            reasons: [0; Reason::COUNT],
        })
    }

    fn latency(&self, _: SlotKey) -> Outcome<Histogram> {
        Ok(Histogram::default())
    }

    fn sync_host(&mut self) -> Outcome<Vec<String>> {
        Ok(Vec::new())
    }

    fn sweep(&mut self) -> Outcome<u64> {
        Ok(0)
    }

    fn alarms(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.kernel().alarms)
    }

    fn bell(&self) -> Option<OwnedFd> {
        None
    }

    fn held(&mut self) -> Vec<HeldSyn> {
        std::mem::take(&mut self.kernel().held)
    }

    fn replay(&mut self) -> Outcome<u32> {
        self.kernel().replays += 1;
        Ok(0)
    }

    fn hold_bell(&self) -> Option<OwnedFd> {
        None
    }

    fn set_holding(&mut self, service: u16, terms: Option<HoldTerms>) -> Outcome<()> {
        self.kernel().holding.insert(service, terms);
        Ok(())
    }

    fn inject(&mut self, ifindex: u32, _: &[u8], release: Release) -> Outcome<Injected> {
        self.kernel().injected.push((ifindex, release));
        Ok(Injected::Arrived)
    }

    fn detach(self) -> Outcome<()> {
        self.kernel().detached = true;
        Ok(())
    }
}

/// How long the fake runtime takes for anything.
pub(super) const WORK: Duration = Duration::from_millis(200);

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

    fn check_gone(&self) -> Result<(), RuntimeError> {
        if self.engine().gone {
            return Err(RuntimeError::EngineGone {
                endpoint: "nowhere".into(),
                source: "gone".into(),
            });
        }
        Ok(())
    }

    fn begin(&self, prepared: &Prepared) -> Result<Backend, RuntimeError> {
        let order = &prepared.order;
        if order.publish != PublishOn::Nowhere && self.at(order.slot_port).is_some() {
            return Err(RuntimeError::PortTaken {
                port: order.slot_port,
                service: order.service.clone(),
            });
        }
        let mut engine = self.engine();
        let crashes = engine.crashes;
        let direct = order.direct && engine.lacks != Some(Lack::Addresses);
        let address = if direct {
            ([10, 0, 0, engine.born as u8], order.backend.port)
        } else {
            ([127, 0, 0, 1], order.slot_port)
        };
        let backend = Backend {
            id: prepared.id.clone(),
            service: order.service.clone(),
            slot: order.slot,
            address: address.into(),
            pid: Some(1000 + engine.born),
            netns: direct.then(|| format!("netns/{}", prepared.id).into()),
            running: crashes.is_none() || order.gated,
            gated: order.gated,
            age: Duration::ZERO,
            spec: order.spec.clone(),
        };
        let answer = engine.answer.unwrap_or(Answer::Status(200));
        engine.backends.push(FakeBackend {
            backend: backend.clone(),
            answer,
            frozen: false,
            started: Instant::now(),
        });
        if let Some(code) = crashes.filter(|_| !order.gated) {
            let how = format!("exit code {code}");
            let id = backend.id.clone();
            let event = RuntimeEvent::Exited { id, how };
            engine.events.as_ref().unwrap().try_send(event).unwrap();
        }
        Ok(backend)
    }
}

impl Runtime for FakeRuntime {
    fn kind(&self) -> RuntimeKind {
        if self.engine().docker {
            RuntimeKind::Docker
        } else {
            RuntimeKind::Process
        }
    }

    fn check<'a>(&'a self, _: &'a str, _: &'a BackendConfig) -> RuntimeAnswer<'a, ()> {
        Box::pin(async { self.check_gone() })
    }

    fn create<'a>(&'a self, order: &'a Order) -> RuntimeAnswer<'a, Prepared> {
        Box::pin(async {
            self.check_gone()?;
            sleep(WORK).await;
            let mut engine = self.engine();
            engine.born += 1;
            engine.creations += 1;
            Ok(Prepared {
                order: order.clone(),
                id: BackendId(format!("born{}", engine.born)),
            })
        })
    }

    fn start(&self, prepared: Prepared) -> RuntimeAnswer<'_, Backend> {
        Box::pin(async move {
            self.check_gone()?;
            let backend = self.begin(&prepared)?;
            sleep(WORK).await;
            Ok(backend)
        })
    }

    fn stop<'a>(&'a self, id: &'a BackendId, grace: Duration) -> RuntimeAnswer<'a, ()> {
        Box::pin(async move {
            self.check_gone()?;
            let extra = self.engine().stop_takes;
            sleep(WORK + extra).await;
            let mut engine = self.engine();
            engine.graces.push(grace);
            engine.backends.retain(|fake| fake.backend.id != *id);
            Ok(())
        })
    }

    fn set_frozen(&self, id: &BackendId, _: u32, frozen: bool) -> Result<(), RuntimeError> {
        let mut engine = self.engine();
        if engine.lacks == Some(Lack::Freezer) {
            return Err(RuntimeError::Freezer {
                id: id.clone(),
                source: std::io::ErrorKind::NotFound.into(),
            });
        }
        let mut backends = engine.backends.iter_mut();
        let fake = backends.find(|fake| fake.backend.id == *id).unwrap();
        fake.frozen = frozen;
        Ok(())
    }

    fn open(&self, id: &BackendId, _: u32, order: &Order) -> Result<(), RuntimeError> {
        let mut engine = self.engine();
        if engine.lacks == Some(Lack::Gate) {
            return Err(RuntimeError::Gate {
                id: id.clone(),
                source: std::io::ErrorKind::NotFound.into(),
            });
        }
        let ends = engine.crashes;
        let events = engine.events.clone();
        let mut backends = engine.backends.iter_mut();
        let fake = backends.find(|fake| fake.backend.id == *id).unwrap();
        fake.backend.gated = false;
        if fake.backend.netns.is_none() {
            fake.backend.slot = order.slot;
            fake.backend.address.set_port(order.slot_port);
        }
        fake.started = Instant::now();
        if let Some(code) = ends {
            fake.backend.running = false;
            let (id, how) = (id.clone(), format!("exit code {code}"));
            let event = RuntimeEvent::Exited { id, how };
            events.unwrap().try_send(event).unwrap();
        }
        Ok(())
    }

    fn list(&self) -> RuntimeAnswer<'_, Vec<Backend>> {
        Box::pin(async {
            self.check_gone()?;
            let engine = self.engine();
            Ok(engine.backends.iter().map(|b| b.backend.clone()).collect())
        })
    }

    fn log_tail<'a>(&'a self, _: &'a BackendId, _: usize) -> RuntimeAnswer<'a, String> {
        Box::pin(async { Ok("cannot open database\n".to_owned()) })
    }

    fn watch(self: Arc<Self>, events: mpsc::Sender<RuntimeEvent>) -> BoxFuture<'static, ()> {
        self.engine().events = Some(events);
        Box::pin(std::future::pending())
    }
}

/// How long a backend takes before it answers anything.
pub(super) const BOOT: Duration = Duration::from_millis(120);

impl Prober for FakeRuntime {
    fn ask<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Answer> {
        Box::pin(async {
            let answer = {
                let engine = self.engine();
                let mut backends = engine.backends.iter();
                let there = |b: &&FakeBackend| {
                    b.backend.running
                        && !b.backend.gated
                        && b.backend.address == target.address
                        && b.started.elapsed() >= BOOT
                };
                match backends.find(there) {
                    None => Answer::Refused,
                    Some(fake) if fake.frozen => Answer::TimedOut,
                    Some(fake) => fake.answer,
                }
            };
            if answer == Answer::TimedOut {
                std::future::pending::<()>().await;
            }
            answer
        })
    }
}
