//! Spares that wait at their gates.

use super::{
    super::engine::{BOOT, WORK},
    *,
};

impl Life {
    fn in_slot_or_none(&self, slot: u16) -> Option<BackendId> {
        let backend = self.runtime.behind(&self.tables, slot);
        backend.map(|backend| backend.id)
    }

    fn is_gated(&self, id: &BackendId) -> bool {
        let engine = self.runtime.engine();
        let mut backends = engine.backends.iter();
        backends
            .find(|b| b.backend.id == *id)
            .unwrap()
            .backend
            .gated
    }
}

#[tokio::test(start_paused = true)]
async fn a_gated_spare_is_not_asked_and_begins_in_the_slot() {
    let life = Life::with_containers(with(1, SpareKind::Gated));
    life.until_spares(1).await;
    let spare = BackendId(life.spares()[0].backend.clone());
    assert!(!life.spares()[0].healthy, "it has not been asked");
    // Longer than a start may take.
    sleep(Duration::from_mins(2)).await;
    assert_eq!(life.spares()[0].backend, spare.0);
    assert!(life.is_gated(&spare));
    let killed = Instant::now();
    life.runtime.kill_id(&life.in_slot(0).id);
    life.until("another", |life| {
        life.tables.ring(0) == [0] && life.in_slot_or_none(0) == Some(spare.clone())
    })
    .await;
    // The start of its program, and no creation.
    let took = killed.elapsed();
    assert!(BOOT <= took && took < BOOT + WORK, "{took:?}");
    assert!(!life.is_gated(&spare));
    let row = life.row(0).unwrap();
    assert!(row.age_s > 120.0, "the container's: {}", row.age_s);
    life.until_spares(1).await;
    assert_ne!(life.spares()[0].backend, spare.0);
    let runtime = life.runtime.clone();
    life.end(false).await;
    assert_eq!(runtime.engine().backends.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn more_copies_are_prepared_where_gated_spares_wait() {
    let life = Life::with_containers(with(2, SpareKind::Gated));
    life.until_spares(2).await;
    let begun = Instant::now();
    let creations = life.runtime.engine().creations;
    life.scale(Some(3)).await.unwrap();
    life.until_ring(&[0, 1, 2]).await;
    assert!(begun.elapsed() < BOOT + WORK, "{:?}", begun.elapsed());
    assert_eq!(life.runtime.engine().creations, creations);
    life.until_spares(2).await;
}

#[tokio::test(start_paused = true)]
async fn the_next_controller_leaves_gated_spares_at_their_gates() {
    let life = Life::with_containers(with(2, SpareKind::Gated));
    life.until_spares(2).await;
    let mut before: Vec<_> = life.spares().into_iter().map(|row| row.backend).collect();
    let (tables, runtime) = (life.tables.clone(), life.runtime.clone());
    life.end(true).await;
    let creations = runtime.engine().creations;

    let life = Life::over(with(2, SpareKind::Gated), tables, runtime);
    life.until_spares(2).await;
    sleep(Duration::from_mins(1)).await;
    let mut after: Vec<_> = life.spares().into_iter().map(|row| row.backend).collect();
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!(after, before);
    assert!(after.iter().all(|id| life.is_gated(&BackendId(id.clone()))));
    assert_eq!(life.runtime.engine().creations, creations);
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_does_not_open_is_said_and_another_copy_is_made() {
    let life = Life::with_containers(with(1, SpareKind::Gated));
    life.until_spares(1).await;
    life.runtime.engine().lacks = Some(Lack::Gate);
    let old = life.in_slot(0).id;
    life.runtime.kill_id(&old);
    life.until("another", |life| {
        life.tables.ring(0) == [0] && life.in_slot_or_none(0).is_some_and(|id| id != old)
    })
    .await;
    let events = life.control.journal.events_since(0);
    let told = events
        .iter()
        .any(|event| event.text.contains("cannot open the gate"));
    assert!(told, "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_fails_at_its_start_does_not_use_up_gated_spares() {
    let life = Life::with_containers(with(3, SpareKind::Gated));
    life.until_spares(3).await;
    life.runtime.engine().crashes = Some(1);
    life.runtime.kill_id(&life.in_slot(0).id);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(life.spares().len(), 2, "one was free, the next waits");
    life.runtime.engine().crashes = None;
    life.until_ring(&[0]).await;
    life.until_spares(3).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_waits_at_its_gate_begins_on_the_slot_s_port() {
    let mut config = acts();
    config.services[0].scale.spares = 1;
    config.services[0].scale.spare_kind = SpareKind::Gated;
    let life = Life::begin(config);
    life.until_ring(&[0]).await;
    life.until_spares(1).await;
    let spare = life.spares()[0].backend.clone();
    life.scale(Some(2)).await.unwrap();
    life.until_ring(&[0, 1]).await;
    assert_eq!(life.runtime.at(8001), Some(spare));
    life.until_spares(1).await;
    let spare = life.spares()[0].backend.clone();
    life.runtime.kill(8000, true);
    life.until_ring(&[1]).await;
    life.until_ring(&[0, 1]).await;
    assert_eq!(life.runtime.at(8000), Some(spare));
    assert_ring_answers(&life);
    let key = SlotKey {
        service: 0,
        slot: 0,
    };
    assert_eq!(life.tables.generation(key), 2, "told before it began");
    life.until_spares(1).await;
    let runtime = life.runtime.clone();
    life.end(false).await;
    assert_eq!(runtime.engine().backends.len(), 0);
}
