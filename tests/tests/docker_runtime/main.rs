//! The runtime of containers against the Docker engine of this host. Makes its own image, and
//! removes it and every container afterwards.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::Arc,
    time::{Duration, Instant},
};

use orch::{
    config::{BackendConfig, RuntimeChoice},
    runtime::{
        Backend, BackendId, Order, Prepared, PublishOn, Runtime, RuntimeError, RuntimeEvent,
        docker::DockerRuntime,
    },
};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

const LIMIT: Duration = Duration::from_secs(20);

/// An image and an instance that only this test has.
struct Bench {
    image: String,
    instance: String,
    runtime: Arc<DockerRuntime>,
    state: TempDir,
}

impl Bench {
    async fn new(name: &str) -> Self {
        let image = format!("orch-test-{name}:{}", process::id());
        build_image(&image);
        let instance = format!("/orch-test/{name}/{}", process::id());
        let state = tempfile::tempdir().unwrap();
        let runtime = DockerRuntime::connect(&instance, state.path()).await;
        let runtime = runtime.unwrap();
        Self {
            image,
            instance,
            runtime: Arc::new(runtime),
            state,
        }
    }

    fn order(&self, publish: PublishOn) -> Order {
        let backend = BackendConfig {
            runtime: RuntimeChoice::Docker,
            image: Some(self.image.clone()),
            command: Vec::new(),
            port: 8080,
            env: BTreeMap::new(),
            volumes: Vec::new(),
            memory: 64 << 20,
            cpus: 0.5,
            drain_limit: LIMIT,
            stop_grace: LIMIT,
        };
        Order {
            service: "web".to_owned(),
            slot: Some(4),
            slot_port: free_port(),
            gated: false,
            backend: Arc::new(backend),
            direct: publish == PublishOn::Nowhere,
            publish,
            spec: "digest".to_owned(),
        }
    }

    async fn start(&self, order: &Order) -> Backend {
        let prepared = self.runtime.create(order).await.unwrap();
        self.runtime.start(prepared).await.unwrap()
    }

    async fn kill_now(&self, id: &BackendId) {
        self.runtime.stop(id, Duration::ZERO).await.unwrap();
    }

    fn watch(&self) -> mpsc::Receiver<RuntimeEvent> {
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(self.runtime.clone().watch(sender));
        receiver
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let filter = format!("label=orch.instance={}", self.instance);
        for id in docker(&["ps", "-aq", "--filter", &filter]).lines() {
            docker(&["rm", "-f", id]);
        }
        docker(&["rmi", "-f", &self.image]);
    }
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// From nothing, with a static binary: no image has to be pulled.
fn build_image(image: &str) {
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docker_runtime/backend.rs");
    let rustc = Command::new("rustc")
        .args([
            "--edition",
            "2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
            "-o",
        ])
        .arg(dir.path().join("backend"))
        .arg(source)
        .output()
        .unwrap();
    assert!(
        rustc.status.success(),
        "{}",
        String::from_utf8_lossy(&rustc.stderr)
    );
    let dockerfile = "FROM scratch\nCOPY backend /backend\nENTRYPOINT [\"/backend\"]\n\
        CMD [\"from\", \"image\"]\n";
    fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
    let build = Command::new("docker")
        .env("DOCKER_BUILDKIT", "0")
        .args(["build", "-q", "-t", image])
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(
        build.status.success(),
        "{}",
        String::from_utf8_lossy(&build.stderr)
    );
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Waits until the backend answers.
async fn ready(address: SocketAddr) {
    let begin = Instant::now();
    while !get(address, "/").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
        assert!(begin.elapsed() < LIMIT, "{address} does not answer");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn exit_of(events: &mut mpsc::Receiver<RuntimeEvent>, expected: &BackendId) -> String {
    let event = tokio::time::timeout(LIMIT, events.recv()).await.unwrap();
    let Some(RuntimeEvent::Exited { id, how }) = event else {
        panic!("{event:?}");
    };
    assert_eq!(&id, expected);
    how
}

#[tokio::test]
async fn a_life_from_create_to_stop() {
    let bench = Bench::new("life").await;
    let order = bench.order(PublishOn::Localhost);
    bench.runtime.check("web", &order.backend).await.unwrap();
    let begin = Instant::now();
    let prepared = bench.runtime.create(&order).await.unwrap();
    let created = begin.elapsed();
    let found = bench.runtime.list().await.unwrap();
    assert_eq!((found.len(), found[0].running), (1, false));
    let begin = Instant::now();
    let backend = bench.runtime.start(prepared).await.unwrap();
    let started = begin.elapsed();
    let begin = Instant::now();
    ready(backend.address).await;
    println!(
        "create {created:?}, start {started:?}, ready {:?}",
        begin.elapsed()
    );

    assert!(
        backend.running && backend.address.port() == 8080,
        "its own address"
    );
    assert_eq!((backend.service.as_str(), backend.slot), ("web", Some(4)));
    for host in ["127.0.0.1", "[::1]"] {
        if TcpListener::bind(format!("{host}:0")).is_ok() {
            ready(format!("{host}:{}", order.slot_port).parse().unwrap()).await;
        }
    }
    let found = bench.runtime.list().await.unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].age < LIMIT);
    let age = found[0].age;
    assert_eq!(
        found[0],
        Backend {
            age,
            ..backend.clone()
        }
    );
    let other = DockerRuntime::connect("/orch-test/somebody-else", bench.state.path())
        .await
        .unwrap();
    assert_eq!(other.list().await.unwrap(), []);

    let begin = Instant::now();
    bench.kill_now(&backend.id).await;
    println!("stop at once {:?}", begin.elapsed());
    assert_eq!(bench.runtime.list().await.unwrap(), []);
    bench.kill_now(&backend.id).await;
    bench.runtime.stop(&backend.id, LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_container_that_is_reached_directly_publishes_nothing() {
    let bench = Bench::new("direct").await;
    let order = bench.order(PublishOn::Nowhere);
    let backend = bench.start(&order).await;
    ready(backend.address).await;
    let published = docker(&["port", &backend.id.0]);
    assert_eq!(published.trim(), "");
    // Both hold the same slot port, and neither is in the other's way.
    let beside = bench.start(&order).await;
    let netns = backend.netns.clone().unwrap();
    assert!(netns.exists(), "{}", netns.display());
    assert_ne!(beside.netns, backend.netns);
    let pid = backend.pid.unwrap();
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroup.contains(&backend.id.0), "{cgroup}");
    let listed = bench.runtime.list().await.unwrap();
    let again = listed.iter().find(|one| one.id == backend.id).unwrap();
    assert_eq!(
        (again.address, again.pid, &again.netns),
        (backend.address, backend.pid, &backend.netns)
    );
    for id in [&backend.id, &beside.id] {
        bench.kill_now(id).await;
    }
}

/// What a gated container has in common with one that is not: the program that runs in the end, as
/// the first process, with the image's entry point, the file's command and the environment.
#[tokio::test]
async fn a_gate_is_waited_at_and_opened() {
    let bench = Bench::new("gate").await;
    let mut order = bench.order(PublishOn::Nowhere);
    let mut config = (*order.backend).clone();
    config.env.insert("KEY".to_owned(), "value".to_owned());
    (order.slot, order.gated) = (None, true);
    order.backend = Arc::new(config.clone());
    let mut events = bench.watch();
    let backend = bench.start(&order).await;
    assert!(backend.gated && backend.running, "{backend:?}");
    let pid = backend.pid.unwrap();
    assert!(get(backend.address, "/").is_err(), "nothing listens");
    let listed = bench.runtime.list().await.unwrap();
    assert_eq!((listed.len(), listed[0].gated), (1, true));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find(|line| line.starts_with("VmRSS"));

    let begin = Instant::now();
    bench.runtime.open(&backend.id, pid, &order).unwrap();
    ready(backend.address).await;
    println!("opened in {:?}, {resident:?} before", begin.elapsed());
    let log = bench.runtime.log_tail(&backend.id, 10).await.unwrap();
    let words = "out [\"from\", \"image\"] Some(\"value\")";
    assert!(log.contains(words), "{log}");
    let listed = bench.runtime.list().await.unwrap();
    assert_eq!((listed[0].gated, listed[0].pid), (false, Some(pid)));
    // A second time it is no gate any more, and not disturbed.
    bench.runtime.open(&backend.id, pid, &order).unwrap();
    ready(backend.address).await;
    bench.kill_now(&backend.id).await;
    assert_eq!(exit_of(&mut events, &backend.id).await, "exit code 137");

    // The file's command takes the place of the image's.
    config.command = vec!["own".to_owned()];
    order.backend = Arc::new(config);
    let backend = bench.start(&order).await;
    let pid = backend.pid.unwrap();
    bench.runtime.open(&backend.id, pid, &order).unwrap();
    ready(backend.address).await;
    let log = bench.runtime.log_tail(&backend.id, 10).await.unwrap();
    assert!(log.contains("out [\"own\"] Some(\"value\")"), "{log}");
    bench.kill_now(&backend.id).await;

    // One that was never opened hears SIGTERM, though it is the first process of its namespace.
    let backend = bench.start(&order).await;
    let begin = Instant::now();
    bench.runtime.stop(&backend.id, LIMIT).await.unwrap();
    println!("stopped in {:?}", begin.elapsed());
    assert!(begin.elapsed() < LIMIT / 2);
    assert_eq!(bench.runtime.list().await.unwrap(), []);
}

#[tokio::test]
async fn the_last_lines_of_a_log() {
    let bench = Bench::new("log").await;
    let backend = bench.start(&bench.order(PublishOn::Localhost)).await;
    ready(backend.address).await;
    let log = bench.runtime.log_tail(&backend.id, 10).await.unwrap();
    assert!(
        log.contains("out [\"from\", \"image\"] None") && log.contains("err"),
        "{log}"
    );
    assert_eq!(
        bench
            .runtime
            .log_tail(&backend.id, 1)
            .await
            .unwrap()
            .lines()
            .count(),
        1
    );
    bench.kill_now(&backend.id).await;
    assert_eq!(bench.runtime.log_tail(&backend.id, 1).await.unwrap(), "");
}

#[tokio::test]
async fn command_environment_and_grace() {
    let bench = Bench::new("grace").await;
    let mut order = bench.order(PublishOn::All);
    let mut config = (*order.backend).clone();
    config.command = vec!["own".to_owned()];
    config.env.insert("KEY".to_owned(), "value".to_owned());
    order.backend = Arc::new(config);
    let backend = bench.start(&order).await;
    ready(backend.address).await;
    let log = bench.runtime.log_tail(&backend.id, 10).await.unwrap();
    assert!(log.contains("out [\"own\"] Some(\"value\")"), "{log}");
    // As the first process of its namespace it does not hear SIGTERM: the grace passes.
    let begin = Instant::now();
    bench
        .runtime
        .stop(&backend.id, Duration::from_secs(1))
        .await
        .unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1) && begin.elapsed() < LIMIT);
    assert_eq!(bench.runtime.list().await.unwrap(), []);
}

#[tokio::test]
async fn tells_how_a_container_ended() {
    let bench = Bench::new("exit").await;
    let mut events = bench.watch();
    let order = bench.order(PublishOn::Localhost);
    let backend = bench.start(&order).await;
    ready(backend.address).await;
    let _ = get(backend.address, "/exit");
    assert_eq!(exit_of(&mut events, &backend.id).await, "exit code 3");
    // The engine's list is some milliseconds behind its events.
    let begin = Instant::now();
    while bench.runtime.list().await.unwrap()[0].running {
        assert!(begin.elapsed() < LIMIT);
    }
    bench.kill_now(&backend.id).await;

    let backend = bench.start(&order).await;
    let begin = Instant::now();
    docker(&["kill", &backend.id.0]);
    println!("docker kill took {:?}", begin.elapsed());
    assert_eq!(exit_of(&mut events, &backend.id).await, "exit code 137");
    println!("from docker kill to its event {:?}", begin.elapsed());
    bench.kill_now(&backend.id).await;
}

#[tokio::test]
async fn killed_and_replaced_on_one_port() {
    let bench = Bench::new("replace").await;
    let order = bench.order(PublishOn::All);
    let slot: SocketAddr = format!("127.0.0.1:{}", order.slot_port).parse().unwrap();
    let mut seen = HashSet::new();
    let (mut old, mut times) = (bench.start(&order).await, Vec::new());
    for _ in 0..20 {
        assert!(seen.insert(old.id.clone()), "a new identity");
        ready(slot).await;
        let begin = Instant::now();
        let (prepared, ()) = tokio::join!(bench.runtime.create(&order), bench.kill_now(&old.id));
        old = bench.runtime.start(prepared.unwrap()).await.unwrap();
        times.push(begin.elapsed());
    }
    times.sort();
    println!("replaced: median {:?}, longest {:?}", times[10], times[19]);
    bench.kill_now(&old.id).await;
    assert_eq!(bench.runtime.list().await.unwrap(), []);
}

#[tokio::test]
async fn two_removals_at_once_both_succeed() {
    let bench = Bench::new("twice").await;
    let backend = bench.start(&bench.order(PublishOn::Localhost)).await;
    tokio::join!(bench.kill_now(&backend.id), bench.kill_now(&backend.id));
    assert_eq!(bench.runtime.list().await.unwrap(), []);
}

/// A way to the engine that can be cut.
struct Bridge {
    socket: PathBuf,
    task: JoinHandle<()>,
}

impl Bridge {
    fn open(socket: &Path) -> Self {
        let _ = fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let task = tokio::spawn(async move {
            // Dropped, and so aborted, with this task.
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut engine = UnixStream::connect("/var/run/docker.sock").await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut engine).await;
                });
            }
        });
        let socket = socket.to_owned();
        Self { socket, task }
    }

    async fn cut(self) {
        self.task.abort();
        let _ = self.task.await;
        fs::remove_file(self.socket).unwrap();
    }
}

#[tokio::test]
async fn an_engine_that_goes_and_comes_back() {
    let mut bench = Bench::new("lost").await;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let endpoint = format!("unix://{}", socket.display());
    let error = DockerRuntime::connect_to(&endpoint, "x", dir.path())
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&endpoint), "{error}");

    let bridge = Bridge::open(&socket);
    let runtime = DockerRuntime::connect_to(&endpoint, &bench.instance, dir.path()).await;
    bench.runtime = Arc::new(runtime.unwrap());
    let backend = bench.start(&bench.order(PublishOn::Localhost)).await;
    let mut events = bench.watch();
    bridge.cut().await;
    let lost = tokio::time::timeout(LIMIT, events.recv()).await.unwrap();
    assert!(matches!(lost, Some(RuntimeEvent::Lost { .. })), "{lost:?}");
    let error = bench.runtime.list().await.unwrap_err();
    assert!(
        matches!(error, RuntimeError::EngineGone { .. }),
        "{error:?}"
    );
    // What happens meanwhile is told afterwards.
    docker(&["kill", &backend.id.0]);
    let _bridge = Bridge::open(&socket);
    let back = tokio::time::timeout(LIMIT, events.recv()).await.unwrap();
    assert!(matches!(back, Some(RuntimeEvent::Back { .. })), "{back:?}");
    assert_eq!(exit_of(&mut events, &backend.id).await, "exit code 137");
    bench.kill_now(&backend.id).await;
}

#[tokio::test]
async fn nothing_half_done_remains_after_a_failure() {
    let bench = Bench::new("failure").await;
    let mut order = bench.order(PublishOn::All);
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    order.slot_port = listener.local_addr().unwrap().port();
    let prepared = bench.runtime.create(&order).await.unwrap();
    let begin = Instant::now();
    let error = bench.runtime.start(prepared).await.unwrap_err();
    println!("a taken port is told after {:?}", begin.elapsed());
    assert!(matches!(error, RuntimeError::PortTaken { .. }), "{error:?}");
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert_eq!(bench.runtime.list().await.unwrap(), []);

    let mut config = (*order.backend).clone();
    config.image = Some("orch-test-no-such-image:1".to_owned());
    order.backend = Arc::new(config);
    for error in [
        bench
            .runtime
            .check("web", &order.backend)
            .await
            .unwrap_err(),
        bench.runtime.create(&order).await.unwrap_err(),
    ] {
        assert!(
            matches!(error, RuntimeError::ImageMissing { .. }),
            "{error:?}"
        );
    }
    let id = BackendId("0".repeat(64));
    let error = bench
        .runtime
        .start(Prepared { order, id })
        .await
        .unwrap_err();
    assert!(matches!(error, RuntimeError::Engine { .. }), "{error:?}");
}
