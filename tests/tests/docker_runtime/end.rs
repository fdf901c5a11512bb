//! How does a container end, and what follows it?

use std::{collections::HashSet, net::SocketAddr, time::Instant};

use orch::runtime::{PublishOn, Runtime};

use crate::bench::{Bench, LIMIT, docker, exit_of, get, ready};

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
