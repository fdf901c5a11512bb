//! A new configuration while everything runs.

use std::slice::from_ref;

use super::*;
use crate::delivery::Choice;

#[tokio::test(start_paused = true)]
async fn a_reload_applies_limits_at_once_and_replaces_backends_one_by_one() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    let mut new = acts();
    new.services[0].scale.min = 3;
    reload(&life, new.clone()).await;
    life.until_ring(&[0, 1, 2]).await;
    let before: Vec<_> = (8000..8003).map(|port| life.runtime.at(port)).collect();
    life.tables.kernel().ring_log.clear();
    new.services[0].backend.command.push("--verbose".into());
    reload(&life, new).await;
    life.until("all new", |life| {
        (8000..8003).zip(&before).all(|(port, old)| {
            life.runtime
                .at(port)
                .is_some_and(|id| Some(&id) != old.as_ref())
        })
    })
    .await;
    life.until_ring(&[0, 1, 2]).await;
    let log = life.tables.kernel().ring_log.clone();
    assert!(log.iter().all(|(_, ring)| ring.len() >= 2), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reload_adds_and_removes_services_and_moves_none() {
    let (a, b, c) = (
        service("a", 80, 8000),
        service("b", 81, 8100),
        service("c", 82, 8200),
    );
    let life = Life::begin(config(vec![a.clone(), b.clone()]));
    life.until("both", |life| {
        life.tables.ring(0) == [0] && life.tables.ring(1) == [0]
    })
    .await;
    // `a` goes, `c` comes, and `b` keeps its index although it is first in the file now.
    reload(&life, config(vec![b.clone(), c])).await;
    assert_eq!(life.tables.kernel().services, ["a", "b", "c"]);
    life.until("c serves", |life| life.tables.ring(2) == [0])
        .await;
    life.until("a is gone", |life| life.runtime.at(8000).is_none())
        .await;
    life.until("a is not shown", |life| life.snapshot().services.len() == 2)
        .await;
    // What `a` held is free, and its place too.
    let d = service("d", 80, 8000);
    reload(&life, config(vec![b, d, service("c", 82, 8200)])).await;
    assert_eq!(life.tables.kernel().services, ["d", "b", "c"]);
    life.until("d serves", |life| life.tables.ring(0) == [0])
        .await;
    let key = SlotKey {
        service: 0,
        slot: 0,
    };
    assert_eq!(
        life.tables.kernel().slots[&key].0.generation,
        2,
        "flows of `a` stay dead"
    );
}

/// Two services, the first with two copies, and what each listens at.
fn two(a: u16, b: u16) -> Config {
    let mut config = config(vec![service("a", a, 8000), service("b", b, 8100)]);
    config.services[0].scale.min = 2;
    config
}

/// The first of the two.
fn a_alone() -> Config {
    let mut config = two(80, 81);
    config.services.pop();
    config
}

fn told(life: &Life) -> (u32, usize) {
    let kernel = life.tables.kernel();
    (kernel.sets, kernel.ring_log.len())
}

#[tokio::test(start_paused = true)]
async fn a_service_keeps_its_copies_wherever_it_listens() {
    let life = Life::begin(two(80, 81));
    life.until_ring(&[0, 1]).await;
    life.until("b serves", |life| life.tables.ring(1) == [0])
        .await;
    let before = told(&life);
    let places = [(8080, 81), (81, 8080), (80, 81), (81, 80)];
    for (a, b) in places {
        reload(&life, two(a, b)).await;
        assert_eq!(life.tables.kernel().slots.len(), 3, "{a} {b}");
        assert_eq!(
            (life.tables.ring(0).len(), life.tables.ring(1).len()),
            (2, 1)
        );
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(told(&life), before, "nothing had to be told again");
    // The same over two runs.
    let (tables, runtime) = (life.tables.clone(), life.runtime.clone());
    life.end(true).await;
    let creations = runtime.engine().creations;
    let life = Life::over(two(80, 81), tables, runtime);
    life.until("adopted", |life| life.kinds().len() >= 3).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(life.tables.kernel().slots.len(), 3);
    assert_eq!(
        (life.tables.ring(0).len(), life.tables.ring(1).len()),
        (2, 1)
    );
    assert_eq!(life.runtime.engine().creations, creations);
}

#[tokio::test(start_paused = true)]
async fn a_refused_reload_changes_nothing() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    reload(&life, config(vec![service("other", 80, 9000)])).await;
    let last = life.control.journal.events_since(0).pop().unwrap();
    assert!(last.text.contains("other needs ports of acts"), "{last:?}");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(life.tables.kernel().services, ["acts"]);
    assert_eq!(life.tables.ring(0), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_fails_half_way_is_taken_back() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    let other = service(kernel::BROKEN, 81, 9000);
    reload(&life, config(vec![service("acts", 80, 8000), other])).await;
    let last = life.control.journal.events_since(0).pop().unwrap();
    assert!(last.text.contains("broken.pem"), "{last:?}");
    assert_eq!(life.tables.kernel().services, ["acts"]);
    assert_eq!(life.tables.ring(0), [0]);
}

#[tokio::test(start_paused = true)]
async fn whoever_renames_a_service_is_told_a_way_that_works() {
    let life = Life::begin(two(80, 81));
    life.until("b serves", |life| life.tables.ring(1) == [0])
        .await;
    let last = |life: &Life| life.control.journal.events_since(0).pop().unwrap().text;
    let mut renamed = two(80, 81);
    renamed.services[1].name = "c".into();
    reload(&life, renamed.clone()).await;
    let why = last(&life);
    for words in ["c needs ports of b", "without c first", "restart orch"] {
        assert!(why.contains(words), "{why}");
    }
    let key = SlotKey {
        service: 1,
        slot: 0,
    };
    life.tables.set_live(key, 1);
    reload(&life, a_alone()).await;
    reload(&life, renamed.clone()).await;
    let why = last(&life);
    assert!(why.contains("not drained yet: reload again later"), "{why}");
    life.until("b is gone", |life| life.snapshot().services.len() == 1)
        .await;
    reload(&life, renamed).await;
    life.until("c serves", |life| life.tables.ring(1) == [0])
        .await;
    assert_eq!(life.tables.kernel().services, ["a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_port_is_claimed_before_it_is_balanced_and_until_it_has_drained() {
    let (a, b) = (service("a", 80, 8000), service("b", 81, 8100));
    let life = Life::begin(config(vec![a.clone()]));
    life.until_ring(&[0]).await;
    let mut other = Claims::within(&life.scope, Vec::new);
    other.add(from_ref(&b)).unwrap();
    let both = config(vec![a.clone(), b.clone()]);
    reload(&life, both.clone()).await;
    let last = life.control.journal.events_since(0).pop().unwrap();
    for words in ["the old one stays", "port 81", "another controller"] {
        assert!(last.text.contains(words), "{last:?}");
    }
    assert_eq!(life.tables.kernel().services, ["a"]);
    other.keep(&BTreeSet::new());
    reload(&life, both).await;
    assert_eq!(life.tables.kernel().services, ["a", "b"]);
    other.add(from_ref(&b)).expect_err("claimed by the reload");
    // A service that has gone gives its port back, but not before its connections have ended.
    life.until("b serves", |life| life.tables.ring(1) == [0])
        .await;
    let key = SlotKey {
        service: 1,
        slot: 0,
    };
    life.tables.kernel().slots.get_mut(&key).unwrap().2 = 1;
    reload(&life, config(vec![a])).await;
    sleep(Duration::from_secs(3)).await;
    other.add(from_ref(&b)).expect_err("still drains");
    life.until("b is gone", |life| life.runtime.at(8100).is_none())
        .await;
    life.until("b is not shown", |life| life.snapshot().services.len() == 1)
        .await;
    other.add(from_ref(&b)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn slot_ports_are_claimed_as_far_as_a_service_can_grow_and_until_they_are_empty() {
    let sized = |max| {
        let mut a = service("a", 80, 8000);
        (a.scale.min, a.scale.max) = (max, max);
        a
    };
    let life = Life::begin(config(vec![sized(2)]));
    life.until_ring(&[0, 1]).await;
    let mut other = Claims::within(&life.scope, Vec::new);
    let mut b = service("b", 81, 8002);
    b.scale.max = 2;
    other.add(from_ref(&b)).unwrap();
    reload(&life, config(vec![sized(3)])).await;
    let last = life.control.journal.events_since(0).pop().unwrap();
    for words in [
        "the old one stays",
        "8000 to 8002 of service a",
        "port 8002",
    ] {
        assert!(last.text.contains(words), "{last:?}");
    }
    // What is taken away is free once its connections have ended.
    let key = SlotKey {
        service: 0,
        slot: 1,
    };
    life.tables.set_live(key, 1);
    reload(&life, config(vec![sized(1)])).await;
    b.start_port = 8001;
    sleep(Duration::from_secs(3)).await;
    other.add(from_ref(&b)).expect_err("still drains");
    life.until("the slot is empty", |life| life.row(1).is_none())
        .await;
    sleep(Duration::from_secs(1)).await;
    other.add(from_ref(&b)).unwrap();
}

/// A life in which the copy of `b` has failed for a minute: its next try may be half a minute away.
async fn hopeless() -> Life {
    let life = Life::begin(two(80, 81));
    life.until_ring(&[0, 1]).await;
    life.runtime.engine().crashes = Some(3);
    life.runtime.kill(8100, true);
    sleep(Duration::from_secs(70)).await;
    life.runtime.engine().crashes = None;
    let b = |life: &Life| {
        let snapshot = life.snapshot();
        let mut slots = snapshot.slots.iter();
        slots.any(|row| row.port == 8100 && row.state == "backoff")
    };
    life.until("backoff", b).await;
    life
}

#[tokio::test(start_paused = true)]
async fn a_mended_file_does_not_wait_for_what_failed_before() {
    let changes: [fn(&mut ServiceConfig); 2] = [
        |b| b.backend.command.push("mended".into()),
        |b| b.health.path = "/mended".into(),
    ];
    for change in changes {
        let life = hopeless().await;
        let mut new = two(80, 81);
        change(&mut new.services[1]);
        reload(&life, new).await;
        let b_serves = |life: &Life| life.tables.ring(1) == [0];
        let took = life.until("b serves", b_serves).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_comes_again_does_not_wait_for_what_failed_before() {
    for start_port in [8100, 8200] {
        let life = hopeless().await;
        reload(&life, a_alone()).await;
        life.until("b is gone", |life| life.snapshot().services.len() == 1)
            .await;
        let mut new = two(80, 81);
        new.services[1].start_port = start_port;
        // At other ports it is another service.
        if start_port != 8100 {
            new.services[1].name = "c".into();
        }
        reload(&life, new).await;
        let b_serves = |life: &Life| life.tables.ring(1) == [0];
        let took = life.until("it serves", b_serves).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_that_another_program_has_is_not_taken_from_it() {
    let a = service("a", 80, 8000);
    let life = Life::begin(config(vec![a.clone()]));
    life.until_ring(&[0]).await;
    let moved = service("a", TAKEN, 8000);
    let added = service("b", TAKEN, 8100);
    for services in [vec![moved], vec![a.clone(), added]] {
        reload(&life, config(services)).await;
        let last = life.control.journal.events_since(0).pop().unwrap();
        for words in ["the old one stays", "port 9,", "another program"] {
            assert!(last.text.contains(words), "{last:?}");
        }
        assert_eq!(life.tables.kernel().services, ["a"]);
    }
    // Who comes to a port that is balanced already hinders no reload.
    let life = Life::begin(config(vec![service("a", TAKEN, 8000)]));
    life.until_ring(&[0]).await;
    reload(&life, config(vec![service("a", TAKEN, 8000)])).await;
    let last = life.control.journal.events_since(0).pop().unwrap();
    assert_eq!(last.kind, "reloaded", "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_reload_cannot_change_is_said() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    let mut new = acts();
    new.dataplane.flows *= 2;
    reload(&life, new).await;
    let last = life.control.journal.events_since(0).pop().unwrap();
    assert_eq!(
        last.text,
        "the new configuration holds, but for [dataplane]: those need a restart"
    );
}

#[test]
fn the_digest_changes_with_what_a_backend_is_made_from_and_nothing_else() {
    let digest = |change: fn(&mut ServiceConfig)| {
        let mut service = service("acts", 80, 8000);
        change(&mut service);
        Hosted::new(service, Choice::port(""), Moment::ZERO).spec
    };
    let same = digest(|_| {});
    assert_eq!(digest(|new| new.backend.drain_limit *= 2), same);
    assert_eq!(digest(|new| new.health.path = "/other".into()), same);
    assert_eq!(digest(|new| new.scale.max = 3), same);
    assert_eq!(
        same, "807c410a49d3915a",
        "a change of this makes every upgrade replace all backends"
    );
    let changes: [fn(&mut ServiceConfig); 5] = [
        |new| new.backend.image = Some("acts:demo".into()),
        |new| new.backend.command.push("x".into()),
        |new| new.backend.env.extend([("A".into(), "b".into())]),
        |new| new.backend.memory = 1,
        |new| new.publish = Publish::Localhost,
    ];
    for change in changes {
        assert_ne!(digest(change), same);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_set_by_hand_stays_within_the_files_limits() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.scale(Some(5)).await.unwrap();
    life.until_ring(&[0, 1, 2, 3, 4]).await;
    let mut config = acts();
    config.services[0].scale.max = 2;
    reload(&life, config).await;
    life.until_ring(&[0, 1]).await;
    let decision = life.control.journal.decisions(Some("acts")).pop().unwrap();
    assert_eq!(
        decision.reason,
        "set to 5 by hand, and the file allows 1 to 2"
    );
    let mut config = acts();
    config.services[0].scale.min = 3;
    reload(&life, config).await;
    life.until_ring(&[0, 1, 2]).await;
    let row = life.snapshot().services[0].clone();
    assert!(row.held && row.desired == 3, "{row:?}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_comes_again_wants_what_a_new_one_does() {
    let mut new = two(80, 81);
    (new.services[1].scale.min, new.services[1].scale.idle) = (0, Duration::from_hours(1));
    let mut before = new.clone();
    before.services[1].scale.min = 1;
    let life = Life::begin(before);
    life.until("b serves", |life| life.tables.ring(1) == [0])
        .await;
    reload(&life, a_alone()).await;
    life.until("b is gone", |life| life.snapshot().services.len() == 1)
        .await;
    reload(&life, new).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(life.tables.ring(1), [] as [u16; 0], "nobody has come");
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_changes_nothing_any_more() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.runtime.engine().stop_takes = Duration::from_mins(1);
    life.signals
        .send(Signal::Shutdown { keep: false })
        .await
        .unwrap();
    life.until("it ends", |life| {
        life.kinds().contains(&"draining".to_owned())
    })
    .await;
    let ending = "the controller is ending: start it again first";
    assert_eq!(life.scale(Some(3)).await.unwrap_err().to_string(), ending);
    assert_eq!(life.reset("acts").await.unwrap_err().to_string(), ending);
    reload(&life, acts()).await;
    let last = life.control.journal.events_since(0).pop().unwrap();
    assert!(last.text.contains(ending), "{last:?}");
}
