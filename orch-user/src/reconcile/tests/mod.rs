//! Whole lives of a controller, over a kernel and a runtime in memory, in time that jumps.

mod beginning;
mod direct;
mod engine;
mod handshakes;
mod healing;
mod holding;
mod kernel;
mod rechecks;
mod reloading;
mod scaling;
mod spares;

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use orch_common::slot::SlotState;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep},
};

use self::{engine::FakeRuntime, kernel::FakeTables};
use super::*;
use crate::{
    config::{
        BackendConfig, Balance, CountConfig, DataplaneConfig, Delivery, HealthConfig, HttpConfig,
        Interfaces, Listen, Local, Mode, Publish, RuntimeChoice, ScaleConfig, ServiceConfig,
        SpareKind,
    },
    control::{Command, Control},
    dataplane::{Reach, SlotEntry},
    health::Answer,
    listeners::Listener,
    view::{SlotRow, Snapshot},
};

/// The defaults of `[service.http]`.
fn http() -> HttpConfig {
    let least = "[[service]]\nbackend.image = \"acts:demo\"\n";
    let config = crate::config::parse("least", least).unwrap();
    config.services[0].http.clone()
}

fn service(name: &str, port: u16, start_port: u16) -> ServiceConfig {
    ServiceConfig {
        name: name.into(),
        listen: Listen {
            address: None,
            port,
        },
        mode: Mode::Tcp,
        http: http(),
        start_port,
        publish: Publish::None,
        balance: Balance::RoundRobin,
        weights: Vec::new(),
        slow_start: Duration::ZERO,
        expose_slots: false,
        hold: Duration::from_secs(30),
        hold_limit: 1024,
        backend: BackendConfig {
            runtime: RuntimeChoice::Auto,
            image: None,
            command: vec!["serve".into()],
            port: 8080,
            env: BTreeMap::new(),
            volumes: Vec::new(),
            memory: 0,
            cpus: 0.0,
            drain_limit: Duration::from_secs(30),
            stop_grace: Duration::from_secs(10),
        },
        health: HealthConfig {
            path: "/health".into(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(900),
            unhealthy_after: 2,
            start_limit: Duration::from_secs(30),
        },
        count: CountConfig {
            prefix: "/".into(),
            exclude: Vec::new(),
        },
        scale: ScaleConfig {
            interval: Duration::from_mins(2),
            requests_per_replica: 20,
            min: 1,
            max: 10,
            spares: 0,
            spare_kind: SpareKind::Running,
            policy: crate::scale::Policy::Step,
            max_surge: 0,
            idle: Duration::ZERO,
        },
    }
}

fn config(services: Vec<ServiceConfig>) -> Config {
    Config {
        state_dir: "state".into(),
        control: "orch.sock".into(),
        status: None,
        token_file: None,
        dataplane: DataplaneConfig {
            interfaces: Interfaces::Auto,
            local: Local::Auto,
            delivery: Delivery::Auto,
            relay: true,
            flows: 262_144,
            pin_dir: "pins".into(),
        },
        services,
    }
}

fn acts() -> Config {
    config(vec![service("acts", 80, 8000)])
}

/// The same in containers.
fn containers() -> Config {
    let mut config = acts();
    config.services[0].backend.image = Some("acts:demo".into());
    config
}

/// Where another program listens on the host of every life.
const TAKEN: u16 = 9;

fn strangers() -> Vec<Listener> {
    vec![Listener {
        address: Ipv4Addr::LOCALHOST.into(),
        port: TAKEN,
        inode: 0,
    }]
}

static LIVES: AtomicU32 = AtomicU32::new(0);

struct Life {
    /// Within which it claims ports.
    scope: String,
    tables: FakeTables,
    runtime: FakeRuntime,
    control: Control,
    signals: mpsc::Sender<Signal>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Life {
    fn begin(config: Config) -> Self {
        Self::over(config, FakeTables::default(), FakeRuntime::default())
    }

    /// A controller with an engine of containers.
    fn with_containers(config: Config) -> Self {
        let runtime = FakeRuntime::default();
        runtime.engine().docker = true;
        Self::over(config, FakeTables::default(), runtime)
    }

    /// A controller over what may be there already.
    fn over(config: Config, tables: FakeTables, runtime: FakeRuntime) -> Self {
        let (control, door) = door();
        let (signals, receiver) = mpsc::channel(4);
        let runtimes = Runtimes::new().with(Arc::new(runtime.clone()));
        // Tests run side by side, and most of them have port 80.
        let life = LIVES.fetch_add(1, Ordering::Relaxed);
        let scope = format!("orch/test/{}/{life}", std::process::id());
        let mut claims = Claims::within(&scope, strangers);
        claims.add(&config.services).unwrap();
        let edges = Edges {
            runtimes,
            claims,
            prober: Arc::new(runtime.clone()),
            host: Host { cgroup2: true },
        };
        let controller = Controller::new(config, tables.clone(), edges, door, receiver);
        Self {
            scope,
            tables,
            runtime,
            control,
            signals,
            task: tokio::spawn(controller.run()),
        }
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) -> Duration {
        let begun = Instant::now();
        while !condition(self) {
            if self.task.is_finished() || begun.elapsed() > Duration::from_mins(10) {
                let events = self.control.journal.events_since(0);
                panic!("never: {what}; {:?}; {events:#?}", self.snapshot().slots);
            }
            sleep(Duration::from_millis(5)).await;
        }
        begun.elapsed()
    }

    async fn until_ring(&self, slots: &[u16]) -> Duration {
        self.until(&format!("ring {slots:?}"), |life| {
            life.tables.ring(0) == slots
        })
        .await
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.control.snapshot.borrow().clone()
    }

    fn row(&self, slot: u16) -> Option<SlotRow> {
        let snapshot = self.snapshot();
        snapshot.slots.iter().find(|row| row.slot == slot).cloned()
    }

    async fn scale(&self, to: Option<u16>) -> Result<String, crate::control::CommandError> {
        let (answer, result) = oneshot::channel();
        let service = "acts".to_owned();
        let command = Command::Scale {
            service,
            to,
            answer,
        };
        self.control.commands.send(command).await.unwrap();
        result.await.unwrap()
    }

    async fn reset(&self, service: &str) -> Result<String, crate::control::CommandError> {
        let (answer, result) = oneshot::channel();
        let service = service.to_owned();
        let command = Command::Reset { service, answer };
        self.control.commands.send(command).await.unwrap();
        result.await.unwrap()
    }

    async fn end(self, keep: bool) {
        self.signals.send(Signal::Shutdown { keep }).await.unwrap();
        self.task.await.unwrap().unwrap();
    }

    fn kinds(&self) -> Vec<String> {
        let events = self.control.journal.events_since(0);
        events.into_iter().map(|event| event.kind).collect()
    }
}

async fn reload(life: &Life, config: Config) {
    let before = life.control.journal.events_since(0).len() as u64;
    life.signals
        .send(Signal::Reload(Box::new(config)))
        .await
        .unwrap();
    life.until("an answer", |life| {
        let news = life.control.journal.events_since(before);
        news.iter()
            .any(|event| ["reloaded", "error"].contains(&event.kind.as_str()))
    })
    .await;
}

/// Whatever the ring names can answer, at every moment.
fn assert_ring_answers(life: &Life) {
    for slot in life.tables.ring(0) {
        let port = 8000 + slot;
        assert!(
            life.runtime.at(port).is_some(),
            "{port} is in the ring and nothing runs"
        );
    }
}
