//! How does a container wait at its gate, and begin?

use std::{fs, sync::Arc, time::Instant};

use orch::runtime::{PublishOn, Runtime};

use crate::bench::{Bench, LIMIT, exit_of, get, ready};

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
