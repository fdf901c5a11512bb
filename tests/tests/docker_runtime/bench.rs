//! An image and an instance for each test, and the ways to ask what runs there.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{self, Command},
    sync::Arc,
    time::{Duration, Instant},
};

use orch::{
    config::{BackendConfig, RuntimeChoice},
    runtime::{Backend, BackendId, Order, PublishOn, Runtime, RuntimeEvent, docker::DockerRuntime},
};
use tempfile::TempDir;
use tokio::sync::mpsc;

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// An image and an instance that only this test has.
pub(crate) struct Bench {
    image: String,
    pub(crate) instance: String,
    pub(crate) runtime: Arc<DockerRuntime>,
    pub(crate) state: TempDir,
}

impl Bench {
    pub(crate) async fn new(name: &str) -> Self {
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

    pub(crate) fn order(&self, publish: PublishOn) -> Order {
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

    pub(crate) async fn start(&self, order: &Order) -> Backend {
        let prepared = self.runtime.create(order).await.unwrap();
        self.runtime.start(prepared).await.unwrap()
    }

    pub(crate) async fn kill_now(&self, id: &BackendId) {
        self.runtime.stop(id, Duration::ZERO).await.unwrap();
    }

    pub(crate) fn watch(&self) -> mpsc::Receiver<RuntimeEvent> {
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

pub(crate) fn docker(arguments: &[&str]) -> String {
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

pub(crate) fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Waits until the backend answers.
pub(crate) async fn ready(address: SocketAddr) {
    let begin = Instant::now();
    while !get(address, "/").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
        assert!(begin.elapsed() < LIMIT, "{address} does not answer");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn exit_of(
    events: &mut mpsc::Receiver<RuntimeEvent>,
    expected: &BackendId,
) -> String {
    let event = tokio::time::timeout(LIMIT, events.recv()).await.unwrap();
    let Some(RuntimeEvent::Exited { id, how }) = event else {
        panic!("{event:?}");
    };
    assert_eq!(&id, expected);
    how
}
