//! The number of copies follows the load, or a person.

use super::*;

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
        "3 copies, set to 3 by hand"
    );
    life.until("three", |life| life.tables.ring(0).len() == 3)
        .await;
    let back = life.scale(None).await.unwrap();
    assert_eq!(back, "1 copy, handed back to the policy, which wants 1");
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
        "the window counts 0, 1 copy"
    );
    life.until("one runs", |life| life.runtime.running() == 1)
        .await;
    assert_eq!(life.tables.ring(0), [0]);
    let row = life.snapshot().services[0].clone();
    assert_eq!((row.window_count, row.window_ends_in_s), (0, None));
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

async fn recording(life: &Life) -> crate::control::Recording {
    let (answer, result) = oneshot::channel();
    let service = "acts".to_owned();
    let command = Command::Record { service, answer };
    life.control.commands.send(command).await.unwrap();
    *result.await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_is_decided_again_from_the_recording() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.tables.request(0, 45);
    life.until_ring(&[0, 1, 2]).await;
    life.scale(Some(5)).await.unwrap();
    life.scale(None).await.unwrap();
    life.reset("acts").await.unwrap();
    let recording = recording(&life).await;
    assert_eq!(recording.seconds.iter().sum::<u64>(), 45);
    let replayed = recording.log.replay();
    let changes: Vec<_> = replayed
        .iter()
        .filter_map(|(_, again, _)| again.as_ref().map(|one| (one.from, one.to)))
        .collect();
    assert_eq!(changes, [(1, 3), (3, 5), (5, 3), (3, 1)]);
    for (_, again, before) in replayed {
        assert_eq!(again, before);
    }
}

#[tokio::test(start_paused = true)]
async fn by_hand_alone_and_no_more_starts_at_a_time_than_allowed() {
    let mut config = acts();
    config.services[0].scale.policy = crate::scale::Policy::Manual;
    config.services[0].scale.max_surge = 2;
    let life = Life::begin(config);
    life.until_ring(&[0]).await;
    life.tables.request(0, 500);
    sleep(Duration::from_mins(5)).await;
    assert_eq!(life.tables.ring(0), [0]);
    life.scale(Some(7)).await.unwrap();
    life.until("seven", |life| {
        let coming = life.snapshot();
        let coming = coming.slots.iter().filter(|row| row.state == "starting");
        assert!(coming.count() <= 2);
        life.tables.ring(0).len() == 7
    })
    .await;
    assert_eq!(life.snapshot().services[0].desired, 7);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_comes_beside_others_takes_its_share_little_by_little() {
    let mut config = acts();
    config.services[0].slow_start = Duration::from_secs(10);
    let life = Life::begin(config);
    let shares = |life: &Life| life.tables.kernel().shares.get(&0).cloned();
    life.until_ring(&[0]).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(shares(&life), None, "the first has all");
    life.scale(Some(2)).await.unwrap();
    life.until_ring(&[0, 1]).await;
    assert_eq!(shares(&life), Some([(1, 1)].into()));
    life.until("half", |life| shares(life) == Some([(1, 5)].into()))
        .await;
    let rest = life
        .until("all", |life| shares(life) == Some(BTreeMap::new()))
        .await;
    let rest = rest.as_secs_f64();
    assert!((4.0..=7.0).contains(&rest), "{rest}");
    life.runtime.kill(8001, true);
    life.until("replaced", |life| shares(life) == Some([(1, 1)].into()))
        .await;
}
