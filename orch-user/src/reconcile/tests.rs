//! Whole lives of a controller, over a kernel and a runtime in memory, in time that jumps.

use std::{net::Ipv4Addr, time::Duration};

use orch_common::slot::SlotState;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::{
    fake::{FakeRuntime, FakeTables},
    *,
};
use crate::{
    config::{
        BackendConfig, CountConfig, DataplaneConfig, Delivery, HealthConfig, Interfaces, Listen,
        Local, Publish, RuntimeChoice, ScaleConfig, ServiceConfig,
    },
    dataplane::SlotEntry,
    view::SlotRow,
};

fn service(name: &str, port: u16, start_port: u16) -> ServiceConfig {
    ServiceConfig {
        name: name.into(),
        listen: Listen {
            address: None,
            port,
        },
        start_port,
        publish: Publish::None,
        expose_slots: false,
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
        },
    }
}

fn config(services: Vec<ServiceConfig>) -> Config {
    Config {
        state_dir: "state".into(),
        control: "orch.sock".into(),
        status: None,
        dataplane: DataplaneConfig {
            interfaces: Interfaces::Auto,
            local: Local::Auto,
            delivery: Delivery::Auto,
            flows: 262_144,
            pin_dir: "pins".into(),
        },
        services,
    }
}

fn acts() -> Config {
    config(vec![service("acts", 80, 8000)])
}

struct Life {
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

    /// A controller over what may be there already.
    fn over(config: Config, tables: FakeTables, runtime: FakeRuntime) -> Self {
        let (control, door) = door();
        let (signals, receiver) = mpsc::channel(4);
        let runtimes = Runtimes::new().with(Arc::new(runtime.clone()));
        let prober = Arc::new(runtime.clone());
        let controller = Controller::new(config, tables.clone(), runtimes, prober, door, receiver);
        Self {
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

#[tokio::test(start_paused = true)]
async fn one_copy_comes_up_and_goes_without_a_trace() {
    let life = Life::begin(acts());
    let took = life.until_ring(&[0]).await;
    assert!(took < Duration::from_millis(600), "{took:?}");
    life.until("ready", |life| life.row(0).is_some_and(|row| row.healthy))
        .await;
    let row = life.row(0).unwrap();
    assert_eq!((row.port, row.state.as_str()), (8000, "ready"));
    assert_eq!(life.kinds(), ["started", "ready"]);
    let (tables, runtime) = (life.tables.clone(), life.runtime.clone());
    life.end(false).await;
    assert_eq!(runtime.running(), 0);
    assert!(tables.kernel().detached && tables.kernel().slots.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_window_brings_the_second_copy_warm_before_its_end_and_into_the_ring_at_its_end() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    sleep(Duration::from_secs(77)).await;
    let first = Instant::now();
    life.tables.request(0, 20);
    life.until("warm", |life| life.runtime.at(8001).is_some())
        .await;
    assert!(first.elapsed() < Duration::from_secs(2), "prepared early");
    life.until("healthy", |life| life.row(1).is_some_and(|row| row.healthy))
        .await;
    assert_eq!(life.row(1).unwrap().state, "starting");
    sleep(Duration::from_secs(119).saturating_sub(first.elapsed())).await;
    assert_eq!(life.tables.ring(0), [0]);
    life.until_ring(&[0, 1]).await;
    assert!(
        first.elapsed() <= Duration::from_millis(120_010),
        "{:?}",
        first.elapsed()
    );
    let turns = life.tables.request(0, 4);
    assert!(turns == [0, 1, 0, 1] || turns == [1, 0, 1, 0], "{turns:?}");
    let decisions = life.control.journal.decisions(Some("acts"));
    assert_eq!((decisions[0].from, decisions[0].to), (1, 2));
    // 4 requests in the next window are too few for two.
    life.until_ring(&[0]).await;
    life.until("gone", |life| life.runtime.at(8001).is_none())
        .await;
    life.until("removed", |life| life.row(1).is_none()).await;
    assert_eq!(
        life.snapshot().services[0].requests_total,
        24,
        "none is forgotten"
    );
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_answers_500_is_replaced_on_its_port_within_two_and_a_half_seconds() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    sleep(Duration::from_secs(11)).await;
    life.scale(Some(2)).await.unwrap();
    life.until_ring(&[0, 1]).await;
    let old = life.runtime.at(8000).unwrap();
    let crashed = Instant::now();
    life.runtime.set_answer(8000, Answer::Status(500));
    life.until_ring(&[1]).await;
    life.until_ring(&[0, 1]).await;
    let took = crashed.elapsed();
    assert!(took < Duration::from_millis(2500), "{took:?}");
    assert_ne!(life.runtime.at(8000).unwrap(), old);
    assert_eq!(life.runtime.engine().graces, [Duration::ZERO]);
    life.until("shown", |life| !life.snapshot().recovery_s.is_empty())
        .await;
    let snapshot = life.snapshot();
    assert_eq!(
        snapshot.replacements,
        [("acts".into(), "unhealthy".into(), 1)]
    );
    assert!(snapshot.detection_s[0] <= 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_killed_copy_is_out_of_the_ring_with_its_event_and_another_takes_its_port() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.scale(Some(2)).await.unwrap();
    life.until_ring(&[0, 1]).await;
    life.runtime.kill(8001, true);
    let out = life.until_ring(&[0]).await;
    assert!(out < Duration::from_millis(100), "{out:?}");
    let back = life.until_ring(&[0, 1]).await;
    assert!(back < Duration::from_secs(2), "{back:?}");
}

#[tokio::test(start_paused = true)]
async fn a_death_without_an_event_is_found_all_the_same() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    let old = life.runtime.at(8000);
    life.runtime.kill(8000, false);
    life.until_ring(&[]).await;
    life.until_ring(&[0]).await;
    assert_ne!(life.runtime.at(8000), old);
}

#[tokio::test(start_paused = true)]
async fn silence_takes_two_probes() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    sleep(Duration::from_secs(3)).await;
    life.runtime.set_answer(8000, Answer::TimedOut);
    let took = life.until_ring(&[]).await;
    assert!(
        took > Duration::from_millis(1700) && took < Duration::from_secs(3),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_backs_off_says_why_and_recovers() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    sleep(Duration::from_secs(11)).await;
    life.runtime.engine().crashes = Some(3);
    life.runtime.kill(8000, true);
    life.until("backoff", |life| {
        life.row(0).is_some_and(|row| row.state == "backoff")
    })
    .await;
    let note = life.row(0).unwrap().note;
    assert!(
        note.contains("exit code 3") && note.contains("cannot open database"),
        "{note}"
    );
    assert!(note.contains("next try in"), "{note}");
    sleep(Duration::from_mins(1)).await;
    let tries = life.runtime.engine().creations;
    assert!((6..=9).contains(&tries), "{tries} tries in a minute");
    life.runtime.engine().crashes = None;
    let took = life.until_ring(&[0]).await;
    assert!(took < Duration::from_secs(32), "{took:?}");
    assert_eq!(life.row(0).unwrap().note, "");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_never_answers_200_ends_at_the_start_limit() {
    let life = Life::begin(acts());
    life.runtime.engine().answer = Some(Answer::Status(503));
    let condition = |life: &Life| life.kinds().contains(&"unhealthy".to_owned());
    let took = life.until("start limit", condition).await;
    assert!(
        took >= Duration::from_secs(30) && took < Duration::from_secs(32),
        "{took:?}"
    );
    life.until("counted", |life| {
        life.snapshot().replacements == [("acts".into(), "start_limit".into(), 1)]
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn many_copies_take_as_long_as_one() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.scale(Some(2)).await.unwrap();
    let one = life.until_ring(&[0, 1]).await;
    life.scale(Some(10)).await.unwrap();
    let begun = Instant::now();
    life.until("ten", |life| life.tables.ring(0).len() == 10)
        .await;
    assert!(
        begun.elapsed() < one + Duration::from_millis(100),
        "{one:?} {:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_live_flows() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.scale(Some(2)).await.unwrap();
    life.until_ring(&[0, 1]).await;
    let key = SlotKey {
        service: 0,
        slot: 1,
    };
    life.tables.set_live(key, 1);
    life.scale(Some(1)).await.unwrap();
    life.until_ring(&[0]).await;
    life.until("draining", |life| {
        life.row(1).is_some_and(|row| row.state == "draining")
    })
    .await;
    sleep(Duration::from_secs(20)).await;
    assert!(life.runtime.at(8001).is_some());
    life.tables.set_live(key, 0);
    life.until("stopped", |life| life.runtime.at(8001).is_none())
        .await;
    assert_eq!(life.runtime.engine().graces, [Duration::from_secs(10)]);
}

#[tokio::test(start_paused = true)]
async fn sigterm_leaves_all_and_the_next_controller_adopts_it_without_touching_the_ring() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.scale(Some(3)).await.unwrap();
    life.until("three", |life| life.tables.ring(0).len() == 3)
        .await;
    let (tables, runtime) = (life.tables.clone(), life.runtime.clone());
    life.end(true).await;
    assert_eq!((runtime.running(), tables.kernel().detached), (3, false));
    tables.kernel().ring_log.clear();
    let creations = runtime.engine().creations;
    let generations: Vec<_> = tables
        .kernel()
        .slots
        .values()
        .map(|(e, ..)| e.generation)
        .collect();

    let life = Life::over(acts(), tables.clone(), runtime.clone());
    life.until("adopted", |life| life.kinds().len() >= 3).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(
        tables.kernel().ring_log,
        [(0, vec![0, 1, 2])],
        "never another"
    );
    assert_eq!(runtime.engine().creations, creations, "nothing restarted");
    let after: Vec<_> = tables
        .kernel()
        .slots
        .values()
        .map(|(e, ..)| e.generation)
        .collect();
    assert_eq!(after, generations);
    assert_eq!(life.snapshot().services[0].desired, 3);
    // Without a request for a whole interval it goes down to its fewest.
    life.until_ring(&[0]).await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_replaced_and_what_belongs_nowhere_is_removed() {
    let (tables, runtime) = (FakeTables::default(), FakeRuntime::default());
    let old = runtime.plant("acts", 0, 8000, "another spec");
    runtime.plant("acts", 0, 9999, "a second in the same slot");
    runtime.plant("forgotten", 0, 7000, "");
    let life = Life::over(acts(), tables, runtime);
    life.until("strays gone", |life| {
        life.runtime.at(9999).is_none() && life.runtime.at(7000).is_none()
    })
    .await;
    life.until("replaced", |life| {
        life.runtime.at(8000).is_some_and(|id| id != old.0)
    })
    .await;
    life.until_ring(&[0]).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_runtime_stops_no_traffic_and_is_told_once() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.runtime.engine().gone = true;
    life.scale(Some(2)).await.unwrap();
    sleep(Duration::from_mins(1)).await;
    assert_eq!(life.tables.ring(0), [0]);
    let lost = life.kinds().iter().filter(|kind| *kind == "lost").count();
    let errors = life.kinds().iter().filter(|kind| *kind == "error").count();
    assert_eq!((lost, errors), (1, 0), "{:?}", life.kinds());
    life.runtime.engine().gone = false;
    let runtime = RuntimeKind::Process;
    life.runtime.send(RuntimeEvent::Back { runtime });
    let took = life.until_ring(&[0, 1]).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(life.kinds().contains(&"back".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_second_interrupt_ends_at_once() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    let key = SlotKey {
        service: 0,
        slot: 0,
    };
    life.tables.set_live(key, 5);
    life.signals
        .send(Signal::Shutdown { keep: false })
        .await
        .unwrap();
    sleep(Duration::from_secs(5)).await;
    assert!(!life.task.is_finished(), "connections may finish");
    let second = Instant::now();
    let (tables, runtime) = (life.tables.clone(), life.runtime.clone());
    life.end(false).await;
    assert!(
        second.elapsed() < Duration::from_secs(1),
        "{:?}",
        second.elapsed()
    );
    assert_eq!((runtime.running(), tables.kernel().detached), (0, true));
}

#[tokio::test(start_paused = true)]
async fn the_end_is_not_held_up_by_a_lost_runtime() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.runtime.engine().gone = true;
    let begun = Instant::now();
    let (tables, journal) = (life.tables.clone(), life.control.journal.clone());
    life.end(false).await;
    assert!(
        begun.elapsed() <= Duration::from_secs(51),
        "{:?}",
        begun.elapsed()
    );
    assert!(tables.kernel().detached);
    let last = journal.events_since(0).pop().unwrap();
    assert!(last.text.contains("left behind"), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn commands_answer_in_sentences_and_refuse_what_cannot_be() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    let refused = life.scale(Some(11)).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "11 copies of acts are outside its limits 1..10"
    );
    let refused = life.reset("atcs").await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "there is no service atcs; there is: acts"
    );
    assert_eq!(
        life.scale(Some(3)).await.unwrap(),
        "acts: 3 copies, set to 3 by hand"
    );
    life.until("three", |life| life.tables.ring(0).len() == 3)
        .await;
    let back = life.scale(None).await.unwrap();
    assert_eq!(
        back,
        "acts: 1 copies, handed back to the policy, which wants 1"
    );
    life.until_ring(&[0]).await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_leaves_one_copy_and_a_window_of_zero() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.tables.request(0, 45);
    life.until("three run", |life| life.runtime.running() == 3)
        .await;
    assert_eq!(
        life.reset("acts").await.unwrap(),
        "acts: the window counts 0, 1 copies"
    );
    life.until("one runs", |life| life.runtime.running() == 1)
        .await;
    assert_eq!(life.tables.ring(0), [0]);
    let row = life.snapshot().services[0].clone();
    assert_eq!((row.window_count, row.window_ends_in_s), (0, None));
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

#[tokio::test(start_paused = true)]
async fn a_reload_applies_limits_at_once_and_replaces_backends_one_by_one() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    let mut new = acts();
    new.services[0].scale.min = 3;
    reload(&life, new.clone()).await;
    life.until_ring(&[0, 1, 2]).await;
    let before: Vec<_> = (8000..8003).map(|port| life.runtime.at(port)).collect();
    life.tables.kernel().ring_log.clear();
    new.services[0].backend.command.push("--verbose".into());
    reload(&life, new).await;
    life.until("all new", |life| {
        (8000..8003).zip(&before).all(|(port, old)| {
            life.runtime
                .at(port)
                .is_some_and(|id| Some(&id) != old.as_ref())
        })
    })
    .await;
    life.until_ring(&[0, 1, 2]).await;
    let log = life.tables.kernel().ring_log.clone();
    assert!(log.iter().all(|(_, ring)| ring.len() >= 2), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reload_adds_and_removes_services_and_moves_none() {
    let (a, b, c) = (
        service("a", 80, 8000),
        service("b", 81, 8100),
        service("c", 82, 8200),
    );
    let life = Life::begin(config(vec![a.clone(), b.clone()]));
    life.until("both", |life| {
        life.tables.ring(0) == [0] && life.tables.ring(1) == [0]
    })
    .await;
    // `a` goes, `c` comes, and `b` keeps its index although it is first in the file now.
    reload(&life, config(vec![b.clone(), c])).await;
    assert_eq!(life.tables.kernel().services, ["a", "b", "c"]);
    life.until("c serves", |life| life.tables.ring(2) == [0])
        .await;
    life.until("a is gone", |life| life.runtime.at(8000).is_none())
        .await;
    life.until("a is not shown", |life| life.snapshot().services.len() == 2)
        .await;
    // What `a` held is free, and its place too.
    let d = service("d", 80, 8000);
    reload(&life, config(vec![b, d, service("c", 82, 8200)])).await;
    assert_eq!(life.tables.kernel().services, ["d", "b", "c"]);
    life.until("d serves", |life| life.tables.ring(0) == [0])
        .await;
    let key = SlotKey {
        service: 0,
        slot: 0,
    };
    assert_eq!(
        life.tables.kernel().slots[&key].0.generation,
        2,
        "flows of `a` stay dead"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_reload_changes_nothing() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    reload(&life, config(vec![service("other", 80, 9000)])).await;
    let last = life.control.journal.events_since(0).pop().unwrap();
    assert!(last.text.contains("other needs ports of acts"), "{last:?}");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(life.tables.kernel().services, ["acts"]);
    assert_eq!(life.tables.ring(0), [0]);
}

#[tokio::test(start_paused = true)]
async fn slots_of_another_configuration_are_forgotten_at_the_start() {
    let tables = FakeTables::default();
    let key = SlotKey {
        service: 0,
        slot: 4,
    };
    let entry = SlotEntry {
        address: (Ipv4Addr::LOCALHOST, 9004).into(),
        port: 9004,
        state: SlotState::Ready,
        generation: 7,
    };
    tables.clone().set_slot(key, &entry).unwrap();
    let life = Life::over(acts(), tables, FakeRuntime::default());
    life.until_ring(&[0]).await;
    let kernel = life.tables.kernel();
    assert!(!kernel.slots.contains_key(&key));
    let generations: Vec<_> = kernel.slots.values().map(|(e, ..)| e.generation).collect();
    assert_eq!(generations, [8], "above all that were");
}

#[tokio::test(start_paused = true)]
async fn a_data_plane_that_refuses_is_told_once_and_tried_again() {
    let life = Life::begin(acts());
    life.tables.kernel().refuses = true;
    sleep(Duration::from_secs(10)).await;
    let errors = life.kinds().iter().filter(|kind| *kind == "error").count();
    assert_eq!(errors, 1, "{:?}", life.kinds());
    life.tables.kernel().refuses = false;
    life.until_ring(&[0]).await;
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

#[tokio::test(start_paused = true)]
async fn under_load_no_request_meets_a_copy_that_is_not_there() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    for to in (0..20).flat_map(|_| [4, 1]) {
        life.scale(Some(to)).await.unwrap();
        for _ in 0..60 {
            assert_ring_answers(&life);
            life.tables.request(0, 3);
            sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_seeds_scenario() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.reset("acts").await.unwrap();
    sleep(Duration::from_secs(37)).await;
    // 5: 20 requests, 6: two minutes, 7: a second copy listens, 8 and 9: they take turns.
    for _ in 0..20 {
        life.tables.request(0, 1);
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_mins(2)).await;
    assert!(life.runtime.at(8001).is_some());
    let turns = life.tables.request(0, 4);
    assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");
    // 10: crash past the balancer, 11: another container on the same port within 20 s.
    let old = life.runtime.at(8000).unwrap();
    life.runtime.set_answer(8000, Answer::Status(500));
    sleep(Duration::from_secs(20)).await;
    assert_ne!(life.runtime.at(8000).unwrap(), old);
    assert_eq!(life.runtime.running(), 2);
    // 12 and 13.
    let turns = life.tables.request(0, 4);
    assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");
    // 14: 60 more, two minutes, 15: 4 + 4 + 60 requests want four.
    life.tables.request(0, 60);
    sleep(Duration::from_mins(2)).await;
    assert_eq!(life.tables.ring(0), [0, 1, 2, 3]);
    // 16 and 17.
    let mut turns = life.tables.request(0, 8);
    turns.sort_unstable();
    assert_eq!(turns, [0, 0, 1, 1, 2, 2, 3, 3]);
}

#[tokio::test(start_paused = true)]
async fn what_a_reload_cannot_change_is_said() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    let mut new = acts();
    new.dataplane.flows *= 2;
    reload(&life, new).await;
    let last = life.control.journal.events_since(0).pop().unwrap();
    assert_eq!(
        last.text,
        "the new configuration holds, but for [dataplane]: those need a restart"
    );
}

#[test]
fn the_digest_changes_with_what_a_backend_is_made_from_and_nothing_else() {
    let digest = |change: fn(&mut ServiceConfig)| {
        let mut service = service("acts", 80, 8000);
        change(&mut service);
        Hosted::new(service, Moment::ZERO).spec
    };
    let same = digest(|_| {});
    assert_eq!(digest(|new| new.backend.drain_limit *= 2), same);
    assert_eq!(digest(|new| new.health.path = "/other".into()), same);
    assert_eq!(digest(|new| new.scale.max = 3), same);
    assert_eq!(
        same, "807c410a49d3915a",
        "a change of this makes every upgrade replace all backends"
    );
    let changes: [fn(&mut ServiceConfig); 5] = [
        |new| new.backend.image = Some("acts:demo".into()),
        |new| new.backend.command.push("x".into()),
        |new| new.backend.env.extend([("A".into(), "b".into())]),
        |new| new.backend.memory = 1,
        |new| new.publish = Publish::Localhost,
    ];
    for change in changes {
        assert_ne!(digest(change), same);
    }
}

/// Whatever happens, in whatever order: once the world calms down, all copies serve.
#[tokio::test(start_paused = true)]
async fn random_lives_recover() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for _ in 0..10 {
        let life = Life::begin(acts());
        for _ in 0..200 {
            let port = 8000 + random(6) as u16;
            match random(9) {
                0 | 1 => drop(life.scale(Some(1 + random(6) as u16)).await),
                2 => life.runtime.kill(port, true),
                3 => life.runtime.kill(port, false),
                4 => life.runtime.set_answer(port, Answer::Status(500)),
                5 => life.runtime.set_answer(port, Answer::TimedOut),
                6 => {
                    let was = life.runtime.engine().gone;
                    life.runtime.engine().gone = !was;
                }
                7 => {
                    let mut new = acts();
                    new.services[0].backend.command.push(random(2).to_string());
                    let new = Signal::Reload(Box::new(new));
                    life.signals.send(new).await.unwrap();
                }
                _ => {
                    let crashes = (random(2) == 0).then_some(1);
                    life.runtime.engine().crashes = crashes;
                }
            }
            sleep(Duration::from_millis(random(800))).await;
        }
        life.runtime.engine().gone = false;
        life.runtime.engine().crashes = None;
        life.scale(Some(5)).await.unwrap();
        life.until("all ready and nothing else runs", |life| {
            let rows = life.snapshot();
            let ready = |row: &SlotRow| row.state == "ready" && row.healthy;
            rows.slots.len() == 5
                && rows.slots.iter().all(ready)
                && life.tables.ring(0) == [0, 1, 2, 3, 4]
                && life.runtime.running() == 5
        })
        .await;
        let runtime = life.runtime.clone();
        life.end(false).await;
        assert_eq!(runtime.engine().backends.len(), 0, "nothing is left");
    }
}
