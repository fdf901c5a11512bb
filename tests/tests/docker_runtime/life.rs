//! How does a container live, from its creation to its stop?

use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use orch::runtime::{Backend, PublishOn, Runtime, docker::DockerRuntime};

use crate::bench::{Bench, LIMIT, docker, ready};

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
