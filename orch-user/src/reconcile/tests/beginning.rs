//! Beginnings and ends.

use super::*;

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
    let tables = life.tables.clone();
    let end = Signal::Shutdown { keep: false };
    life.signals.send(end).await.unwrap();
    let error = life.task.await.unwrap().unwrap_err();
    assert!(
        begun.elapsed() <= Duration::from_secs(51),
        "{:?}",
        begun.elapsed()
    );
    assert!(tables.kernel().detached);
    assert!(error.to_string().contains("born1"), "{error}");
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
        reach: Reach::Port,
        pid: None,
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

/// However a controller ends: what the kernel has forgotten was written down when that happened.
#[tokio::test(start_paused = true)]
async fn totals_outlive_slots_and_controllers() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = acts();
    file.state_dir = dir.path().to_owned();
    let totals = |life: &Life| {
        let snapshot = life.snapshot();
        let mut services = snapshot.services.iter();
        services
            .next()
            .map(|row| (row.requests_total, row.responses_total))
    };
    let life = Life::begin(file.clone());
    life.until_ring(&[0]).await;
    life.scale(Some(3)).await.unwrap();
    life.until("three", |life| life.tables.ring(0).len() == 3)
        .await;
    life.tables.request(0, 9);
    life.scale(Some(1)).await.unwrap();
    life.until("one, and nothing left of the others", |life| {
        life.tables.kernel().slots.len() == 1 && totals(life) == Some((9, 9))
    })
    .await;
    let (tables, runtime) = (life.tables.clone(), life.runtime.clone());
    life.end(true).await;

    let life = Life::over(file, tables, runtime);
    life.until("as many as before", |life| totals(life) == Some((9, 9)))
        .await;
    life.tables.request(0, 1);
    life.until("and one more", |life| totals(life) == Some((10, 10)))
        .await;
    life.end(false).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_set_by_hand_outlives_the_controller() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = acts();
    file.state_dir = dir.path().to_owned();
    let life = Life::begin(file.clone());
    life.until_ring(&[0]).await;
    life.scale(Some(3)).await.unwrap();
    life.until("three", |life| life.tables.ring(0).len() == 3)
        .await;
    let (tables, runtime) = (life.tables.clone(), life.runtime.clone());
    life.end(true).await;

    // Where it is not allowed any more, the nearest is.
    for (max, desired) in [(2, 2), (10, 3)] {
        file.services[0].scale.max = max;
        let life = Life::over(file.clone(), tables.clone(), runtime.clone());
        life.until("it is known", |life| {
            let snapshot = life.snapshot();
            let mut services = snapshot.services.iter();
            services.any(|one| one.held && one.desired == desired)
        })
        .await;
        life.end(true).await;
    }
    let life = Life::over(file, tables, runtime);
    life.until("three again", |life| life.tables.ring(0).len() == 3)
        .await;
    life.scale(None).await.unwrap();
    assert_eq!(
        crate::kept::HELD.read(dir.path(), "orch.sock"),
        BTreeMap::new()
    );
    life.end(false).await;
}
