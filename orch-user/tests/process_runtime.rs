//! The runtime of processes against real processes. Needs no root.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    net::TcpListener,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use orch::{
    config::{BackendConfig, RuntimeChoice, Volume},
    runtime::{
        Backend, BackendId, Order, PublishOn, Runtime, RuntimeError, RuntimeEvent,
        process::ProcessRuntime,
    },
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;

const GRACE: Duration = Duration::from_secs(10);

fn config(command: &[&str]) -> BackendConfig {
    BackendConfig {
        runtime: RuntimeChoice::Process,
        image: None,
        command: command.iter().map(ToString::to_string).collect(),
        port: 8080,
        env: BTreeMap::new(),
        volumes: Vec::new(),
        memory: 0,
        cpus: 0.0,
        drain_limit: GRACE,
        stop_grace: GRACE,
    }
}

fn order_of(backend: BackendConfig) -> Order {
    Order {
        gated: false,
        service: "web".to_owned(),
        slot: Some(2),
        slot_port: free_port(),
        backend: Arc::new(backend),
        direct: false,
        publish: PublishOn::Localhost,
        spec: "digest".to_owned(),
    }
}

fn order(script: &str) -> Order {
    order_of(config(&["sh", "-c", script]))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn runtime(state: &Path) -> Arc<ProcessRuntime> {
    Arc::new(ProcessRuntime::new(state, "/pins/a"))
}

async fn start(runtime: &ProcessRuntime, order: &Order) -> Backend {
    let prepared = runtime.create(order).await.unwrap();
    assert_eq!(prepared.id.0, "");
    runtime.start(prepared).await.unwrap()
}

fn watch(runtime: &Arc<ProcessRuntime>) -> mpsc::Receiver<RuntimeEvent> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(runtime.clone().watch(sender));
    receiver
}

async fn exit_of(events: &mut mpsc::Receiver<RuntimeEvent>, expected: &BackendId) -> String {
    let event = tokio::time::timeout(GRACE, events.recv()).await.unwrap();
    let Some(RuntimeEvent::Exited { id, how }) = event else {
        panic!("{event:?}");
    };
    assert_eq!(&id, expected);
    how
}

/// Waits until the backend has written as many lines, and gives them.
async fn written(runtime: &ProcessRuntime, id: &BackendId, lines: usize) -> Vec<String> {
    let begin = Instant::now();
    loop {
        let tail = runtime.log_tail(id, 100).await.unwrap();
        if tail.lines().count() >= lines {
            return tail.lines().map(str::to_owned).collect();
        }
        assert!(begin.elapsed() < GRACE, "wrote only {tail:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process is there, zombies included: a stopped child must be reaped.
fn exists(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

fn lives(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" Z"))
}

#[tokio::test]
async fn starts_lists_and_stops() {
    let state = tempfile::tempdir().unwrap();
    let runtime = runtime(state.path());
    let order = order("echo up; exec sleep 600");
    let begin = Instant::now();
    let backend = start(&runtime, &order).await;
    println!("create and start: {:?}", begin.elapsed());

    assert_eq!(
        backend.address.to_string(),
        format!("127.0.0.1:{}", order.slot_port)
    );
    assert_eq!((backend.service.as_str(), backend.slot), ("web", Some(2)));
    assert!(backend.running);
    let listed = runtime.list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].id, listed[0].running), (&backend.id, true));
    assert_eq!(listed[0].spec, "digest");
    let other = ProcessRuntime::new(state.path(), "/pins/b");
    assert_eq!(other.list().await.unwrap(), []);
    other.stop(&backend.id, Duration::ZERO).await.unwrap();
    assert!(lives(&backend.id.0), "another instance must not touch it");

    written(&runtime, &backend.id, 1).await;
    let begin = Instant::now();
    runtime.stop(&backend.id, GRACE).await.unwrap();
    println!("stop: {:?}", begin.elapsed());
    assert!(!exists(&backend.id.0));
    assert_eq!(runtime.list().await.unwrap(), []);
    runtime.stop(&backend.id, GRACE).await.unwrap();
    runtime
        .stop(&BackendId("no pid".to_owned()), GRACE)
        .await
        .unwrap();
}

#[tokio::test]
async fn tells_how_a_backend_ended() {
    let state = tempfile::tempdir().unwrap();
    let runtime = runtime(state.path());
    let early = start(&runtime, &order("exit 3")).await;
    let mut events = watch(&runtime);
    assert_eq!(exit_of(&mut events, &early.id).await, "exit code 3");
    let killed = start(&runtime, &order("kill -9 $$")).await;
    assert_eq!(exit_of(&mut events, &killed.id).await, "signal 9");

    let listed = runtime.list().await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|backend| !backend.running));
    for backend in listed {
        runtime.stop(&backend.id, GRACE).await.unwrap();
    }
    assert_eq!(runtime.list().await.unwrap(), []);
}

#[tokio::test]
async fn no_member_of_the_group_outlives_its_leader() {
    let state = tempfile::tempdir().unwrap();
    let runtime = runtime(state.path());
    let mut events = watch(&runtime);
    let script = "sh -c 'trap \"\" TERM; while :; do sleep 600; done' & echo $!; wait; exit 0";
    for grace in [GRACE, Duration::ZERO] {
        let backend = start(&runtime, &order(script)).await;
        let member = written(&runtime, &backend.id, 1).await.remove(0);
        runtime.stop(&backend.id, grace).await.unwrap();
        assert!(!exists(&backend.id.0) && !lives(&member));
        exit_of(&mut events, &backend.id).await;
    }
    // The leader ends by itself.
    let backend = start(&runtime, &order("sleep 600 & echo $!; exit 7")).await;
    assert_eq!(exit_of(&mut events, &backend.id).await, "exit code 7");
    let member = written(&runtime, &backend.id, 1).await.remove(0);
    assert!(!lives(&member));
}

#[tokio::test]
async fn a_backend_that_ignores_sigterm_is_killed_after_the_grace() {
    let state = tempfile::tempdir().unwrap();
    let runtime = runtime(state.path());
    let mut events = watch(&runtime);
    let script = "trap '' TERM; echo up; while :; do sleep 600; done";
    let backend = start(&runtime, &order(script)).await;
    written(&runtime, &backend.id, 1).await;
    let grace = Duration::from_millis(300);
    let begin = Instant::now();
    runtime.stop(&backend.id, grace).await.unwrap();
    assert!(begin.elapsed() >= grace && begin.elapsed() < GRACE);
    assert_eq!(exit_of(&mut events, &backend.id).await, "signal 9");
}

#[tokio::test]
async fn text_of_command_and_environment() {
    let state = tempfile::tempdir().unwrap();
    let runtime = runtime(state.path());
    let script = "echo {port} $PORT $ORCH_SERVICE $ORCH_SLOT; echo $URL; \
        echo {volume:my-data} $ORCH_VOLUME_MY_DATA; echo err >&2; exec sleep 600";
    let mut config = config(&["sh", "-c", script]);
    let url = "p={port} d={volume:my-data}".to_owned();
    config.env.insert("URL".to_owned(), url);
    config.volumes.push(Volume {
        source: "my-data".to_owned(),
        target: "/data".to_owned(),
    });
    let order = order_of(config);
    let backend = start(&runtime, &order).await;
    let dir = state.path().join("volumes/my-data");
    assert!(dir.is_dir());
    let (port, dir) = (order.slot_port, dir.display());
    assert_eq!(
        written(&runtime, &backend.id, 4).await,
        [
            format!("{port} {port} web 2"),
            format!("p={port} d={dir}"),
            format!("{dir} {dir}"),
            "err".to_owned(),
        ]
    );
    assert_eq!(runtime.log_tail(&backend.id, 1).await.unwrap(), "err");
    runtime.stop(&backend.id, Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn the_next_controller_adopts() {
    let state = tempfile::tempdir().unwrap();
    let first = runtime(state.path());
    let backend = start(&first, &order("exec sleep 600")).await;
    let second = runtime(state.path());
    let mut events = watch(&second);
    let adopted = second.list().await.unwrap();
    assert_eq!(adopted.len(), 1);
    assert_eq!((&adopted[0].id, adopted[0].running), (&backend.id, true));
    second.stop(&backend.id, GRACE).await.unwrap();
    exit_of(&mut events, &backend.id).await;
    assert!(!lives(&backend.id.0));
}

/// As after a real restart: the process is not our child, and we cannot learn how it ended.
#[tokio::test]
async fn the_end_of_somebody_else_s_child_is_noticed() {
    let state = tempfile::tempdir().unwrap();
    let first = runtime(state.path());
    let template = start(&first, &order("exec sleep 600")).await;
    let output = Command::new("sh")
        .args(["-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"])
        .output()
        .unwrap();
    let orphan = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let begin = Instant::now();
    let stat = loop {
        let stat = fs::read_to_string(format!("/proc/{orphan}/stat")).unwrap();
        // Its own group, once setsid has run.
        if stat.split(' ').nth(4) == Some(&orphan) {
            break stat;
        }
        assert!(begin.elapsed() < GRACE);
    };
    let dir = state.path().join("backends");
    let text = fs::read_to_string(dir.join(format!("{}.json", template.id))).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["pid"] = orphan.parse::<i32>().unwrap().into();
    record["start_ticks"] = stat
        .split(' ')
        .nth(21)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        .into();
    fs::write(dir.join(format!("{orphan}.json")), record.to_string()).unwrap();
    first.stop(&template.id, Duration::ZERO).await.unwrap();

    let second = runtime(state.path());
    let mut events = watch(&second);
    assert!(second.list().await.unwrap()[0].running);
    let id = BackendId(orphan.clone());
    let pid = Pid::from_raw(orphan.parse().unwrap()).unwrap();
    let begin = Instant::now();
    kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(exit_of(&mut events, &id).await, "gone");
    println!("noticed after {:?}", begin.elapsed());
    assert!(!second.list().await.unwrap()[0].running);
    second.stop(&id, GRACE).await.unwrap();
    assert_eq!(second.list().await.unwrap(), []);
}

#[test]
fn backends_outlive_the_controller() {
    let state = tempfile::tempdir().unwrap();
    let controller = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
    };
    let first = controller().unwrap();
    let id = first.block_on(async {
        let runtime = runtime(state.path());
        let backend = start(&runtime, &order("exec sleep 600")).await;
        tokio::task::yield_now().await;
        backend.id
    });
    drop(first);
    assert!(lives(&id.0));
    controller().unwrap().block_on(async {
        let runtime = runtime(state.path());
        assert!(runtime.list().await.unwrap()[0].running);
        runtime.stop(&id, Duration::ZERO).await.unwrap();
    });
    assert!(!exists(&id.0));
}

#[tokio::test]
async fn a_process_that_took_over_the_pid_is_not_touched() {
    let state = tempfile::tempdir().unwrap();
    let first = runtime(state.path());
    let backend = start(&first, &order("exec sleep 600")).await;
    let path = state.path().join(format!("backends/{}.json", backend.id));
    let text = fs::read_to_string(&path).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["start_ticks"] = 1.into();
    fs::write(&path, record.to_string()).unwrap();

    let second = runtime(state.path());
    assert!(!second.list().await.unwrap()[0].running);
    second.stop(&backend.id, Duration::ZERO).await.unwrap();
    assert!(lives(&backend.id.0));
    assert_eq!(second.list().await.unwrap(), []);
    fs::write(&path, text).unwrap();
    first.stop(&backend.id, Duration::ZERO).await.unwrap();
    assert!(!exists(&backend.id.0));
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let state = tempfile::tempdir().unwrap();
    let runtime = runtime(state.path());
    let mut order = order("exec sleep 600");
    for address in ["127.0.0.1:0", "[::]:0"] {
        let Ok(listener) = TcpListener::bind(address) else {
            continue;
        };
        order.slot_port = listener.local_addr().unwrap().port();
        let prepared = runtime.create(&order).await.unwrap();
        let error = runtime.start(prepared).await.unwrap_err();
        let said = error.to_string();
        let RuntimeError::PortTaken { port, service, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!((port, service.as_str()), (order.slot_port, "web"));
        let us = format!("(pid {})", std::process::id());
        assert!(said.contains(&us), "{said}");
    }
    assert_eq!(runtime.list().await.unwrap(), []);
}

#[tokio::test]
async fn programs_that_cannot_run_are_named() {
    let state = tempfile::tempdir().unwrap();
    let runtime = runtime(state.path());
    let plain = state.path().join("plain");
    fs::write(&plain, "").unwrap();
    let plain = plain.to_str().unwrap();
    for program in ["/nowhere/prog", "no-such-program-anywhere", plain, "/", ""] {
        let error = runtime.check("web", &config(&[program])).await.unwrap_err();
        assert!(
            matches!(error, RuntimeError::Spawn { .. }),
            "{program}: {error:?}"
        );
    }
    runtime.check("web", &config(&["sh"])).await.unwrap();
    runtime.check("web", &config(&["/bin/sh"])).await.unwrap();
}

#[tokio::test]
async fn killed_and_replaced_on_one_port() {
    let state = tempfile::tempdir().unwrap();
    let runtime = runtime(state.path());
    let mut events = watch(&runtime);
    let order = order("exec sleep 600");
    let mut pids = HashSet::new();
    for _ in 0..20 {
        let backend = start(&runtime, &order).await;
        assert!(pids.insert(backend.id.clone()), "a new identity");
        let pid = Pid::from_raw(backend.id.0.parse().unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        assert_eq!(exit_of(&mut events, &backend.id).await, "signal 9");
        runtime.stop(&backend.id, Duration::ZERO).await.unwrap();
    }
    let logs = fs::read_dir(state.path().join("logs")).unwrap().count();
    assert!(logs <= 3, "{logs} logs");
}

#[tokio::test]
async fn a_host_that_cannot_limit_still_starts() {
    let state = tempfile::tempdir().unwrap();
    let runtime = runtime(state.path());
    let mut config = config(&["sleep", "600"]);
    config.memory = 64 << 20;
    config.cpus = 0.5;
    let backend = start(&runtime, &order_of(config)).await;
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", backend.id)).unwrap();
    let own = format!("/orch/{}", backend.id);
    println!("{groups}limited: {}", groups.contains(&own));
    runtime.stop(&backend.id, Duration::ZERO).await.unwrap();
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    for mount in mounts.lines().filter(|line| line.contains(" cgroup")) {
        let mount = mount.split(' ').nth(1).unwrap();
        assert!(!Path::new(&format!("{mount}{own}")).exists(), "{mount}");
    }
}

/// A spare that waits, and becomes what the slot that it is put in makes of it.
#[tokio::test]
async fn a_gate_is_waited_at_and_opened() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a link");
    std::os::unix::fs::symlink(dir.path(), &state).unwrap();
    let runtime = runtime(&state);
    let mut backend = config(&[
        "sh",
        "-c",
        "echo $0 $PORT $ORCH_SLOT \"$TEXT\"; exec sleep 60",
        "{port}",
    ]);
    let text = "a = b\nand {port}";
    backend.env.insert("TEXT".to_owned(), text.to_owned());
    let mut spare = order_of(backend);
    (spare.slot, spare.slot_port, spare.gated) = (None, 0, true);
    let mut events = watch(&runtime);
    let waiting = start(&runtime, &spare).await;
    assert!(waiting.gated && waiting.running, "{waiting:?}");
    // The next controller finds it as it is.
    let next = self::runtime(&state);
    let listed = next.list().await.unwrap();
    assert_eq!(
        (listed.len(), listed[0].gated, listed[0].slot),
        (1, true, None)
    );

    let place = Order {
        slot: Some(3),
        slot_port: free_port(),
        gated: false,
        ..spare.clone()
    };
    let pid = waiting.pid.unwrap();
    runtime.open(&waiting.id, pid, &place).unwrap();
    let port = place.slot_port;
    let lines = written(&runtime, &waiting.id, 2).await;
    assert_eq!(
        lines,
        [format!("{port} {port} 3 a = b"), format!("and {port}")]
    );
    let listed = runtime.list().await.unwrap();
    let now = (listed[0].gated, listed[0].slot, listed[0].address.port());
    assert_eq!((now, listed[0].pid), ((false, Some(3), port), Some(pid)));
    runtime.stop(&waiting.id, GRACE).await.unwrap();
    // Either of the two runtimes reaps it, and the other cannot say how it ended.
    exit_of(&mut events, &waiting.id).await;

    // One whose port is taken is not let go; it ends as soon as it is told to.
    let waiting = start(&runtime, &spare).await;
    let _listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let pid = waiting.pid.unwrap();
    let error = runtime.open(&waiting.id, pid, &place).unwrap_err();
    assert!(matches!(error, RuntimeError::PortTaken { .. }), "{error:?}");
    assert!(runtime.list().await.unwrap()[0].gated);
    runtime.stop(&waiting.id, GRACE).await.unwrap();
    assert_eq!(exit_of(&mut events, &waiting.id).await, "exit code 143");
    assert_eq!(runtime.list().await.unwrap(), []);
    let left: Vec<_> = fs::read_dir(state.join("backends")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
