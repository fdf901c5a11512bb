//! Spares over a kernel and an engine in memory.

mod gated;

use std::io::ErrorKind;

use super::{engine::Lack, *};
use crate::{
    runtime::{Backend, BackendId},
    state::FIRST_SPARE,
};

fn with(spares: u16, kind: SpareKind) -> Config {
    let mut config = containers();
    config.services[0].scale.spares = spares;
    config.services[0].scale.spare_kind = kind;
    config
}

impl Life {
    fn spares(&self) -> Vec<SlotRow> {
        let snapshot = self.snapshot();
        let spares = snapshot.slots.iter().filter(|row| row.state == "spare");
        spares.cloned().collect()
    }

    async fn until_spares(&self, count: usize) -> Duration {
        self.until("spares", |life| life.spares().len() == count)
            .await
    }

    fn in_slot(&self, slot: u16) -> Backend {
        self.runtime.behind(&self.tables, slot).unwrap()
    }

    fn is_frozen(&self, id: &BackendId) -> bool {
        let engine = self.runtime.engine();
        let mut backends = engine.backends.iter();
        backends.find(|b| b.backend.id == *id).unwrap().frozen
    }
}

#[tokio::test(start_paused = true)]
async fn a_spare_is_known_in_its_slot_where_the_kernel_s_table_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = with(1, SpareKind::Running);
    file.state_dir = dir.path().to_owned();
    let life = Life::with_containers(file.clone());
    life.until_ring(&[0]).await;
    life.until_spares(1).await;
    let spare = life.spares()[0].backend.clone();
    life.runtime.kill_id(&life.in_slot(0).id);
    life.until("another", |life| {
        let behind = life.runtime.behind(&life.tables, 0);
        behind.is_some_and(|new| new.id.0 == spare)
    })
    .await;
    life.until_spares(1).await;
    let (tables, runtime) = (life.tables.clone(), life.runtime.clone());
    life.end(true).await;
    *tables.kernel() = super::kernel::Kernel::default();

    let life = Life::over(file, tables, runtime);
    life.until_ring(&[0]).await;
    assert_eq!(life.in_slot(0).id.0, spare);
    assert_ne!(life.spares()[0].backend, spare);
}

#[tokio::test(start_paused = true)]
async fn a_killed_container_s_slot_is_in_the_ring_again_at_once() {
    let life = Life::with_containers(with(1, SpareKind::Running));
    life.until_ring(&[0]).await;
    life.until_spares(1).await;
    let spare = life.spares()[0].clone();
    assert_eq!((spare.slot, spare.port), (FIRST_SPARE, 0));
    assert!(
        spare.healthy && spare.address.ends_with(":8080"),
        "{spare:?}"
    );
    life.runtime.engine().stop_takes = Duration::from_mins(1);
    life.tables.kernel().ring_log.clear();
    let killed = Instant::now();
    let old = life.in_slot(0).id;
    life.runtime.kill_id(&old);
    life.until("another", |life| {
        life.runtime
            .behind(&life.tables, 0)
            .is_some_and(|new| new.id.0 == spare.backend)
    })
    .await;
    assert!(
        killed.elapsed() < Duration::from_millis(20),
        "{:?}",
        killed.elapsed()
    );
    assert_eq!(life.tables.ring(0), [0]);
    assert_eq!(life.tables.kernel().ring_log, [(0, vec![]), (0, vec![0])]);
    let key = SlotKey {
        service: 0,
        slot: 0,
    };
    assert_eq!(life.tables.generation(key), 2);
    life.until_spares(1).await;
    assert_ne!(life.spares()[0].backend, spare.backend, "another one");
    let row = life.row(0).unwrap();
    assert_eq!((row.state.as_str(), row.note.as_str()), ("ready", ""));
    assert!(life.snapshot().recovery.sum_s < 0.02);
    life.until("removed", |life| life.runtime.engine().backends.len() == 2)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_spare_takes_over_from_one_that_answers_500() {
    let life = Life::with_containers(with(1, SpareKind::Running));
    life.until_spares(1).await;
    let old = life.in_slot(0);
    life.runtime.set_answer_of(&old.id, Answer::Status(500));
    life.until("replaced", |life| life.in_slot(0).id != old.id)
        .await;
    assert_eq!(life.tables.ring(0), [0]);
    let replaced = life.snapshot().replacements.clone();
    assert_eq!(replaced, [("acts".into(), "unhealthy".into(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn replacements_in_a_row_leave_nothing() {
    let life = Life::with_containers(with(1, SpareKind::Running));
    let key = SlotKey {
        service: 0,
        slot: 0,
    };
    for generation in 1..=100 {
        life.until_spares(1).await;
        assert_eq!(life.tables.generation(key), generation);
        let old = life.in_slot(0).id;
        life.runtime.kill_id(&old);
        life.until("replaced", |life| {
            life.runtime
                .behind(&life.tables, 0)
                .is_some_and(|new| new.id != old)
        })
        .await;
    }
    life.until_spares(1).await;
    life.until("two", |life| life.runtime.engine().backends.len() == 2)
        .await;
    let runtime = life.runtime.clone();
    life.end(false).await;
    assert_eq!(runtime.engine().backends.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_spare_is_well_first_and_is_thawed_when_it_is_put_in() {
    let life = Life::with_containers(with(1, SpareKind::Frozen));
    life.until_spares(1).await;
    let spare = BackendId(life.spares()[0].backend.clone());
    life.until("frozen", |life| life.is_frozen(&spare)).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(life.spares()[0].backend, spare.0, "its silence is no fault");
    let old = life.in_slot(0).id;
    life.runtime.kill_id(&old);
    life.until("put in", |life| {
        life.runtime
            .behind(&life.tables, 0)
            .is_some_and(|new| new.id == spare)
    })
    .await;
    assert!(!life.is_frozen(&spare));
    assert_eq!(life.tables.ring(0), [0]);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(life.in_slot(0).id, spare, "and it is probed as any other");
    assert!(life.row(0).unwrap().healthy);
}

#[tokio::test(start_paused = true)]
async fn a_spare_that_cannot_be_frozen_is_said_and_holds_up_nothing() {
    let runtime = FakeRuntime::default();
    runtime.engine().docker = true;
    runtime.engine().lacks = Some(Lack::Freezer);
    let life = Life::over(with(1, SpareKind::Frozen), FakeTables::default(), runtime);
    life.until_ring(&[0]).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(life.tables.ring(0), [0]);
    let row = life.row(FIRST_SPARE).unwrap();
    assert!(row.note.contains("cannot freeze"), "{row:?}");
    let tries = life.runtime.engine().creations;
    assert!((4..=9).contains(&tries), "it backs off: {tries}");
}

#[tokio::test(start_paused = true)]
async fn more_copies_take_spares_first() {
    let life = Life::with_containers(with(2, SpareKind::Running));
    life.until_spares(2).await;
    let begun = Instant::now();
    life.scale(Some(3)).await.unwrap();
    life.until_ring(&[0, 1, 2]).await;
    assert!(begun.elapsed() < Duration::from_millis(20));
    life.until_spares(2).await;
    life.scale(Some(1)).await.unwrap();
    life.until("fewer", |life| life.runtime.running() == 3)
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_next_controller_finds_spares_in_their_slots_and_in_their_places() {
    let life = Life::with_containers(with(1, SpareKind::Frozen));
    life.until_spares(1).await;
    let old = life.in_slot(0).id;
    life.runtime.engine().stop_takes = Duration::from_mins(10);
    life.runtime.kill_id(&old);
    life.until("replaced", |life| {
        life.runtime
            .behind(&life.tables, 0)
            .is_some_and(|new| new.id != old)
    })
    .await;
    life.until_spares(1).await;
    life.scale(Some(2)).await.unwrap();
    life.until_ring(&[0, 1]).await;
    life.until_spares(1).await;
    let spare = BackendId(life.spares()[0].backend.clone());
    life.until("frozen", |life| life.is_frozen(&spare)).await;
    let slots: Vec<_> = [0, 1].map(|slot| life.in_slot(slot).id).into();
    let (tables, runtime) = (life.tables.clone(), life.runtime.clone());
    life.end(true).await;
    runtime.engine().stop_takes = Duration::ZERO;
    tables.kernel().ring_log.clear();
    let creations = runtime.engine().creations;

    let life = Life::over(with(1, SpareKind::Frozen), tables, runtime);
    life.until_spares(1).await;
    let after: Vec<_> = [0, 1].map(|slot| life.in_slot(slot).id).into();
    assert_eq!(after, slots, "by what the kernel has, not by their labels");
    assert_eq!(life.spares()[0].backend, spare.0);
    life.until("frozen again", |life| life.is_frozen(&spare))
        .await;
    sleep(Duration::from_secs(6)).await;
    assert_eq!(life.tables.kernel().ring_log, [(0, vec![0, 1])]);
    assert_eq!(life.runtime.engine().creations, creations);
    assert_eq!(
        life.runtime.engine().backends.len(),
        3,
        "the dead one is gone"
    );
}

#[tokio::test(start_paused = true)]
async fn a_reload_discards_spares_of_the_old_kind_and_changes_their_number() {
    let life = Life::with_containers(with(2, SpareKind::Running));
    life.until_spares(2).await;
    let before = life.spares();
    let mut new = with(1, SpareKind::Running);
    new.services[0].backend.command.push("--verbose".into());
    reload(&life, new).await;
    life.until("all new", |life| {
        let spares = life.spares();
        spares.len() == 1 && before.iter().all(|old| old.backend != spares[0].backend)
    })
    .await;
    life.until("rolled", |life| life.runtime.engine().backends.len() == 2)
        .await;
    assert_eq!(life.tables.ring(0), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_falls_back_to_port_has_no_spares() {
    let life = Life::with_containers(with(1, SpareKind::Running));
    life.until_spares(1).await;
    life.tables.kernel().refuses_direct = Some(ErrorKind::PermissionDenied);
    life.runtime.kill_id(&life.in_slot(0).id);
    life.until("by port", |life| {
        let kernel = life.tables.kernel();
        kernel.rings[&0] == [0]
            && kernel
                .slots
                .values()
                .all(|slot| slot.0.reach == Reach::Port)
    })
    .await;
    life.until("one", |life| life.runtime.engine().backends.len() == 1)
        .await;
    assert_eq!(life.spares(), []);
    let events = life.control.journal.events_since(0);
    let told = events
        .iter()
        .find(|event| event.kind == "delivery")
        .unwrap();
    assert!(told.text.contains("without spares"), "{told:?}");
}

/// Whatever dies, in whatever order: once it is calm, all copies serve and all spares are at hand.
#[tokio::test(start_paused = true)]
async fn random_lives_with_spares_recover() {
    let mut seed = 0x1234_5678_9abc_def1_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for round in 0..6 {
        let kinds = [SpareKind::Running, SpareKind::Frozen, SpareKind::Gated];
        let kind = kinds[round % 3];
        let life = Life::with_containers(with(2, kind));
        for _ in 0..150 {
            let ids: Vec<_> = {
                let engine = life.runtime.engine();
                let running = engine.backends.iter().filter(|b| b.backend.running);
                running.map(|b| b.backend.id.clone()).collect()
            };
            let one = ids.get(random(ids.len().max(1) as u64) as usize);
            match (random(6), one) {
                (0, _) => drop(life.scale(Some(1 + random(5) as u16)).await),
                (1 | 2, Some(id)) => life.runtime.kill_id(id),
                (3, Some(id)) => life.runtime.set_answer_of(id, Answer::Status(500)),
                (4, _) => {
                    let mut new = with(random(3) as u16, kind);
                    new.services[0].backend.command.push(random(2).to_string());
                    let new = Signal::Reload(Box::new(new));
                    life.signals.send(new).await.unwrap();
                }
                _ => {}
            }
            sleep(Duration::from_millis(random(900))).await;
        }
        reload(&life, with(2, kind)).await;
        life.scale(Some(3)).await.unwrap();
        life.until("all ready, two spares, and nothing else", |life| {
            let ready = (0..3).all(|slot| life.row(slot).is_some_and(|row| row.state == "ready"));
            ready && life.spares().len() == 2 && life.runtime.engine().backends.len() == 5
        })
        .await;
        let runtime = life.runtime.clone();
        life.end(false).await;
        assert_eq!(runtime.engine().backends.len(), 0, "nothing is left");
    }
}
