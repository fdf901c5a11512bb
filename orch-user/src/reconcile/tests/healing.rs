//! What breaks is replaced.

use orch_common::event::EventKind;

use super::*;
use crate::runtime::RuntimeEvent;

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
    life.until("shown", |life| life.snapshot().recovery.count == 1)
        .await;
    let snapshot = life.snapshot();
    assert_eq!(
        snapshot.replacements,
        [("acts".into(), "unhealthy".into(), 1)]
    );
    assert!(snapshot.detection.sum_s <= 1.0);
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
async fn what_the_kernel_has_lost_it_is_told_again() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.scale(Some(2)).await.unwrap();
    life.until_ring(&[0, 1]).await;
    sleep(Duration::from_secs(6)).await;
    let slots = |life: &Life| {
        life.tables
            .kernel()
            .slots
            .keys()
            .copied()
            .collect::<Vec<_>>()
    };
    let (before, creations) = (slots(&life), life.runtime.engine().creations);
    let losses: [fn(&mut kernel::Kernel); 3] = [
        |kernel| kernel.rings.clear(),
        |kernel| kernel.slots.clear(),
        |kernel| {
            kernel.slots.clear();
            kernel.rings.clear();
        },
    ];
    for lose in losses {
        lose(&mut life.tables.kernel());
        sleep(Duration::from_secs(6)).await;
        assert_eq!(slots(&life), before);
        life.until_ring(&[0, 1]).await;
    }
    assert_eq!(life.runtime.engine().creations, creations);
    let told = life.kinds().iter().filter(|kind| *kind == "error").count();
    assert_eq!(told, 3);
}

#[tokio::test(start_paused = true)]
async fn refused_connections_bring_the_next_probes_forward() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.scale(Some(2)).await.unwrap();
    life.until_ring(&[0, 1]).await;
    sleep(Duration::from_secs(3)).await;
    life.runtime.set_answer(8001, Answer::Refused);
    let refusing = Instant::now();
    life.until("out of the ring", |life| {
        let generation = life.tables.generation(SlotKey {
            service: 0,
            slot: 1,
        });
        life.tables.refuse(
            SlotKey {
                service: 0,
                slot: 1,
            },
            generation,
        );
        life.tables.ring(0) == [0]
    })
    .await;
    let took = refusing.elapsed();
    assert!(took < Duration::from_millis(600), "two ticks: {took:?}");
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
async fn a_data_plane_that_refuses_is_told_once_and_tried_again() {
    let life = Life::begin(acts());
    life.tables.kernel().refuses = true;
    sleep(Duration::from_secs(10)).await;
    let errors = life.kinds().iter().filter(|kind| *kind == "error").count();
    assert_eq!(errors, 1, "{:?}", life.kinds());
    life.tables.kernel().refuses = false;
    life.until_ring(&[0]).await;
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

/// Two copies that have been well for a while, and the key of the second.
async fn two_copies() -> (Life, SlotKey) {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.scale(Some(2)).await.unwrap();
    life.until_ring(&[0, 1]).await;
    sleep(Duration::from_secs(3)).await;
    let key = SlotKey {
        service: 0,
        slot: 1,
    };
    (life, key)
}

fn passed_by(life: &Life) -> bool {
    !life.tables.kernel().passed_by.is_empty()
}

#[tokio::test(start_paused = true)]
async fn a_copy_suspected_wrongly_is_back_with_its_next_probe() {
    for kind in [EventKind::Silent, EventKind::Failing] {
        let (life, key) = two_copies().await;
        life.tables.alarm(key, life.tables.generation(key), kind);
        let suspected = Instant::now();
        life.until("back", |life| !passed_by(life)).await;
        let took = suspected.elapsed();
        assert!(took < Duration::from_millis(600), "two ticks: {took:?}");
        // A probe that comes before the silence has lasted a tick ends it untold.
        let kinds = life.kinds();
        let told = kinds.ends_with(&["suspect".into(), "cleared".into()]);
        assert!(told || kind == EventKind::Silent, "{kinds:?}");
        assert_eq!(life.tables.ring(0), [0, 1]);
        assert_eq!(life.snapshot().replacements, []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_whose_requests_fail_again_and_again_is_replaced_though_its_probe_is_good() {
    let (life, key) = two_copies().await;
    let generation = life.tables.generation(key);
    for _ in 0..2 {
        life.tables.alarm(key, generation, EventKind::Failing);
        life.until("back", |life| !passed_by(life)).await;
    }
    assert_eq!(life.tables.ring(0), [0, 1]);
    life.tables.alarm(key, generation, EventKind::Failing);
    life.until_ring(&[0]).await;
    life.until_ring(&[0, 1]).await;
    assert_ne!(life.tables.generation(key), generation);
    life.until("told", |life| {
        life.snapshot().replacements == [("acts".into(), "failing".into(), 1)]
    })
    .await;
    assert!(!life.kinds().ends_with(&["cleared".into()]));
}

/// Whatever its requests say.
#[tokio::test(start_paused = true)]
async fn the_last_copy_is_not_replaced_while_its_probe_is_good() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    let key = SlotKey {
        service: 0,
        slot: 0,
    };
    let generation = life.tables.generation(key);
    for _ in 0..5 {
        life.tables.alarm(key, generation, EventKind::Failing);
        life.until("back", |life| !passed_by(life)).await;
    }
    assert_eq!(life.tables.generation(key), generation);
    assert_eq!(life.snapshot().replacements, []);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_silent_for_a_moment_is_not_told() {
    let (life, key) = two_copies().await;
    let before = life.kinds();
    life.tables
        .alarm(key, life.tables.generation(key), EventKind::Silent);
    sleep(Duration::from_millis(260)).await;
    // Its next answer.
    life.tables.kernel().passed_by.clear();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(life.kinds(), before);
    assert!(life.row(1).unwrap().suspect.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_copy_suspected_rightly_is_replaced_by_its_probe() {
    let (life, key) = two_copies().await;
    life.runtime.set_answer(8001, Answer::Status(500));
    let generation = life.tables.generation(key);
    life.tables.alarm(key, generation, EventKind::Failing);
    let took = life.until_ring(&[0]).await;
    assert!(took < Duration::from_millis(300), "a tick: {took:?}");
    life.until_ring(&[0, 1]).await;
    assert_ne!(life.tables.generation(key), generation);
}

#[tokio::test(start_paused = true)]
async fn a_copy_told_to_end_is_back_only_when_it_has_outlived_its_grace() {
    let (life, key) = two_copies().await;
    life.tables
        .alarm(key, life.tables.generation(key), EventKind::Signalled);
    let told = Instant::now();
    life.until("shown", |life| {
        life.row(1).is_some_and(|row| row.suspect == "signalled")
    })
    .await;
    let note = life.row(1).unwrap().note;
    assert_eq!(note, "passed by, since it was told to end");
    life.until("back", |life| !passed_by(life)).await;
    let took = told.elapsed();
    let grace = Duration::from_secs(10);
    assert!(
        took >= grace && took < grace + Duration::from_millis(1300),
        "{took:?}"
    );
    life.until("no longer shown", |life| {
        life.row(1)
            .is_some_and(|row| row.suspect.is_empty() && row.note.is_empty())
    })
    .await;
    assert_eq!(life.tables.ring(0), [0, 1]);
}

/// The kernel has seen its process end, and a probe that was answered before is read after.
#[tokio::test(start_paused = true)]
async fn a_copy_that_has_ended_is_not_back_with_an_answer_from_before() {
    let (life, key) = two_copies().await;
    life.tables
        .alarm(key, life.tables.generation(key), EventKind::Exited);
    // Several probes, all of them good.
    sleep(Duration::from_secs(5)).await;
    assert!(passed_by(&life));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_we_stop_is_no_suspect() {
    let (life, key) = two_copies().await;
    let generation = life.tables.generation(key);
    life.scale(Some(1)).await.unwrap();
    life.until_ring(&[0]).await;
    life.tables.alarm(key, generation, EventKind::Signalled);
    sleep(Duration::from_secs(2)).await;
    assert!(
        !life.kinds().contains(&"suspect".to_owned()),
        "{:?}",
        life.kinds()
    );
}

#[tokio::test(start_paused = true)]
async fn another_copy_is_not_suspected_for_the_one_before() {
    let (life, key) = two_copies().await;
    life.tables
        .alarm(key, life.tables.generation(key), EventKind::Signalled);
    life.runtime.kill(8001, true);
    life.until_ring(&[0]).await;
    life.until_ring(&[0, 1]).await;
    life.until("well", |life| {
        life.row(1)
            .is_some_and(|row| row.suspect.is_empty() && row.healthy)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_stopped_by_hand_is_replaced_and_the_cause_is_told() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    let old = life.runtime.at(8000);
    let (answer, result) = oneshot::channel();
    let command = Command::Stop {
        service: "acts".to_owned(),
        slot: 0,
        answer,
    };
    life.control.commands.send(command).await.unwrap();
    result.await.unwrap().unwrap();
    life.until("another", |life| {
        life.tables.ring(0) == [0] && life.runtime.at(8000) != old
    })
    .await;
    life.until("told", |life| {
        life.snapshot().replacements == [("acts".into(), "stopped".into(), 1)]
    })
    .await;
    let events = life.control.journal.events_since(0);
    let told = |text: &str| events.iter().any(|event| event.text.contains(text));
    assert!(told("it was stopped by hand") && !told("configuration"));
}
