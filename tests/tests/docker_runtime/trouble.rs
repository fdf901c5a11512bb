//! What if the engine goes, or refuses?

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use orch::runtime::{
    BackendId, Prepared, PublishOn, Runtime, RuntimeError, RuntimeEvent, docker::DockerRuntime,
};
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
    task::{JoinHandle, JoinSet},
};

use crate::bench::{Bench, LIMIT, docker, exit_of};

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
