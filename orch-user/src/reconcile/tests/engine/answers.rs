//! What does the engine in memory answer the controller, as a runtime and for its backends?

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{BOOT, FakeBackend, FakeRuntime, Lack, WORK};
use crate::{
    config::BackendConfig,
    health::{
        Answer,
        probe::{Prober, Target},
    },
    runtime::{
        Answer as RuntimeAnswer, Backend, BackendId, Order, Prepared, PublishOn, Runtime,
        RuntimeError, RuntimeEvent, RuntimeKind,
    },
};

impl FakeRuntime {
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
                holder: "another program".to_owned(),
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
        // One that ends at once has neither process nor address by the time it is looked at.
        let running = crashes.is_none() || order.gated;
        let backend = Backend {
            id: prepared.id.clone(),
            service: order.service.clone(),
            slot: order.slot,
            address: address.into(),
            pid: running.then_some(1000 + engine.born),
            netns: (direct && running).then(|| format!("netns/{}", prepared.id).into()),
            running,
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
