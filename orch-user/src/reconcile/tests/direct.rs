//! Containers that are reached at their own addresses.

use std::io::ErrorKind;

use orch_common::event::EventKind;

use super::{engine::Lack, *};

const SLOT: SlotKey = SlotKey {
    service: 0,
    slot: 0,
};

fn entry(life: &Life) -> SlotEntry {
    life.tables.kernel().slots[&SLOT].0.clone()
}

/// How the kernel reaches the slots, in their order.
fn reaches(life: &Life) -> Vec<&'static str> {
    let kernel = life.tables.kernel();
    let slots = kernel.slots.values();
    let way = |reach: &Reach| {
        if *reach == Reach::Port {
            "port"
        } else {
            "direct"
        }
    };
    slots.map(|slot| way(&slot.0.reach)).collect()
}

/// How often a fall back was told.
fn fallen(life: &Life) -> usize {
    let kinds = life.kinds();
    kinds.iter().filter(|kind| *kind == "delivery").count()
}

#[tokio::test(start_paused = true)]
async fn the_kernel_is_told_address_namespace_and_first_process() {
    let life = Life::with_containers(containers());
    life.until_ring(&[0]).await;
    let entry = entry(&life);
    assert_eq!(entry.address.to_string(), "10.0.0.1:8080");
    let netns = "netns/born1".into();
    assert_eq!(entry.reach, Reach::Direct { netns });
    assert_eq!((entry.pid, entry.port), (Some(1001), 8000));
    let shown = |life: &Life| life.row(0).is_some_and(|row| row.state == "ready");
    life.until("shown", shown).await;
    let row = life.row(0).unwrap();
    assert_eq!(
        (row.delivery.as_str(), row.delivery_reason.as_str()),
        ("direct", "")
    );
}

#[tokio::test(start_paused = true)]
async fn the_way_by_port_has_its_reason() {
    let mut config = containers();
    config.dataplane.delivery = Delivery::Port;
    let life = Life::with_containers(config);
    life.until_ring(&[0]).await;
    assert_eq!(entry(&life).reach, Reach::Port);
    let shown = |life: &Life| life.row(0).is_some_and(|row| row.delivery == "port");
    life.until("shown", shown).await;
    assert!(
        life.row(0)
            .unwrap()
            .delivery_reason
            .contains("delivery = \"port\"")
    );
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.until("shown", shown).await;
    assert!(life.row(0).unwrap().delivery_reason.contains("processes"));
}

#[tokio::test(start_paused = true)]
async fn the_replacement_does_not_wait_for_the_end_of_the_old_container() {
    let life = Life::with_containers(containers());
    life.until_ring(&[0]).await;
    let old = life.runtime.behind(&life.tables, 0).unwrap();
    life.runtime.engine().stop_takes = Duration::from_mins(1);
    life.runtime.kill_id(&old.id);
    life.until_ring(&[]).await;
    let took = life.until_ring(&[0]).await;
    assert!(took < Duration::from_millis(700), "{took:?}");
    let new = life.runtime.behind(&life.tables, 0).unwrap();
    assert_ne!(new.id, old.id);
    assert_eq!(entry(&life).generation, 2);
    let there = life.runtime.engine().backends.len();
    assert_eq!(there, 2, "the old one is still being removed");
    life.until("removed", |life| life.runtime.engine().backends.len() == 1)
        .await;
    assert_eq!(life.kinds().last().unwrap(), "stopped");
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_waits_and_says_why_although_the_dead_one_is_ended_beside() {
    let life = Life::with_containers(containers());
    life.until_ring(&[0]).await;
    life.runtime.engine().crashes = Some(3);
    let old = life.runtime.behind(&life.tables, 0).unwrap();
    life.runtime.kill_id(&old.id);
    sleep(Duration::from_secs(20)).await;
    let row = life.row(0).unwrap();
    assert_eq!(row.state, "backoff", "{row:?}");
    assert!(row.note.contains("cannot open database"), "{}", row.note);
    let tries = life.runtime.engine().creations;
    assert!((5..=8).contains(&tries), "{tries}");
    life.runtime.engine().crashes = None;
    life.until_ring(&[0]).await;
    life.until("one is left", |life| {
        life.runtime.engine().backends.len() == 1
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_containers_are_all_refused_is_reached_by_port() {
    let (tables, runtime) = (FakeTables::default(), FakeRuntime::default());
    runtime.engine().docker = true;
    tables.kernel().refuses_direct = Some(ErrorKind::PermissionDenied);
    let life = Life::over(containers(), tables, runtime);
    life.until_ring(&[0]).await;
    life.scale(Some(3)).await.unwrap();
    life.until_ring(&[0, 1, 2]).await;
    assert_eq!(reaches(&life), ["port", "port", "port"]);
    let row = life.row(0).unwrap();
    assert_eq!(row.delivery, "port");
    assert!(row.delivery_reason.contains("/sys/fs/bpf/orch"), "{row:?}");
    assert_eq!(fallen(&life), 1);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_cannot_be_reached_directly_is_replaced_before_anything_falls_back() {
    let life = Life::with_containers(containers());
    life.tables.kernel().refuses_direct = Some(ErrorKind::PermissionDenied);
    life.until("the first is given up", |life| {
        life.kinds().contains(&"unhealthy".to_owned())
    })
    .await;
    life.tables.kernel().refuses_direct = None;
    life.until_ring(&[0]).await;
    assert_eq!((reaches(&life), fallen(&life)), (vec!["direct"], 0));
    assert_eq!(life.runtime.engine().creations, 2);

    // One that is odd later has another tried first as well.
    life.tables.kernel().refuses_direct = Some(ErrorKind::PermissionDenied);
    let second = life.runtime.behind(&life.tables, 0).unwrap();
    life.runtime.kill_id(&second.id);
    life.until_ring(&[]).await;
    sleep(Duration::from_secs(2)).await;
    life.tables.kernel().refuses_direct = None;
    life.until_ring(&[0]).await;
    assert_eq!((reaches(&life), fallen(&life)), (vec!["direct"], 0));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_refused_beside_others_is_reached_by_port_alone() {
    let life = Life::with_containers(containers());
    life.until_ring(&[0]).await;
    let first = life.runtime.behind(&life.tables, 0).unwrap();
    life.tables.kernel().refuses_direct = Some(ErrorKind::PermissionDenied);
    life.scale(Some(2)).await.unwrap();
    life.until_ring(&[0, 1]).await;
    life.tables.kernel().refuses_direct = None;
    life.scale(Some(3)).await.unwrap();
    life.until_ring(&[0, 1, 2]).await;
    assert_eq!(reaches(&life), ["direct", "port", "direct"]);
    assert_eq!(life.runtime.behind(&life.tables, 0).unwrap().id, first.id);
    life.until("shown", |life| {
        let row = life.row(1);
        row.is_some_and(|row| row.delivery_reason.contains("/sys/fs/bpf/orch"))
    })
    .await;
    assert_eq!(life.row(2).unwrap().delivery_reason, "");

    // What comes after is reached as the one before.
    for slot in [0, 1] {
        let old = life.runtime.behind(&life.tables, slot).unwrap();
        life.runtime.kill_id(&old.id);
        life.until("out", |life| {
            !life.tables.kernel().rings[&0].contains(&slot)
        })
        .await;
        life.until_ring(&[0, 1, 2]).await;
    }
    assert_eq!(reaches(&life), ["direct", "port", "direct"]);
    assert_eq!(fallen(&life), 1);
}

#[tokio::test(start_paused = true)]
async fn where_no_container_is_reached_directly_any_more_none_is_tried() {
    let life = Life::with_containers(containers());
    life.until_ring(&[0]).await;
    life.tables.kernel().refuses_direct = Some(ErrorKind::PermissionDenied);
    life.scale(Some(2)).await.unwrap();
    life.until_ring(&[0, 1]).await;
    let first = life.runtime.behind(&life.tables, 0).unwrap();
    life.runtime.kill_id(&first.id);
    life.until("both by port", |life| {
        life.tables.kernel().rings[&0] == [0, 1] && reaches(life) == ["port", "port"]
    })
    .await;
    let (told, made) = (fallen(&life), life.runtime.engine().creations);
    life.scale(Some(3)).await.unwrap();
    life.until_ring(&[0, 1, 2]).await;
    assert_eq!(reaches(&life), ["port", "port", "port"]);
    assert_eq!((told, fallen(&life)), (2, 2));
    assert_eq!(life.runtime.engine().creations, made + 1);
}

/// It has no address when it is looked at, which says nothing of the engine.
#[tokio::test(start_paused = true)]
async fn a_container_that_ends_at_once_is_no_reason_to_fall_back() {
    let life = Life::with_containers(containers());
    life.until_ring(&[0]).await;
    life.runtime.engine().crashes = Some(1);
    life.scale(Some(2)).await.unwrap();
    life.until("it fails", |life| life.kinds().contains(&"backoff".into()))
        .await;
    life.runtime.engine().crashes = None;
    life.until_ring(&[0, 1]).await;
    assert_eq!(
        (reaches(&life), fallen(&life)),
        (vec!["direct", "direct"], 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_container_that_dies_unnoticed_is_no_reason_to_fall_back() {
    let life = Life::with_containers(containers());
    life.until_ring(&[0]).await;
    life.scale(Some(2)).await.unwrap();
    life.until("another starts", |life| life.runtime.running() == 2)
        .await;
    // Dead, its namespace gone, and no event: only the list shows it.
    life.tables.kernel().refuses_direct = Some(ErrorKind::NotFound);
    sleep(Duration::from_secs(6)).await;
    life.tables.kernel().refuses_direct = None;
    life.until_ring(&[0, 1]).await;
    life.runtime.engine().gone = true;
    life.tables.kernel().refuses_direct = Some(ErrorKind::PermissionDenied);
    life.scale(Some(1)).await.unwrap();
    sleep(Duration::from_secs(20)).await;
    assert!(
        !life.kinds().contains(&"delivery".to_owned()),
        "{:?}",
        life.kinds()
    );
}

#[tokio::test(start_paused = true)]
async fn containers_without_addresses_of_their_own_are_reached_by_port() {
    let runtime = FakeRuntime::default();
    runtime.engine().docker = true;
    runtime.engine().lacks = Some(Lack::Addresses);
    let life = Life::over(containers(), FakeTables::default(), runtime);
    life.until_ring(&[0]).await;
    assert_eq!(entry(&life).reach, Reach::Port);
    life.until("shown", |life| {
        let row = life.row(0);
        row.is_some_and(|row| row.delivery_reason.contains("no address of their own"))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_delivery_replaces_backends() {
    let mut config = containers();
    config.dataplane.delivery = Delivery::Port;
    let life = Life::with_containers(config);
    life.until_ring(&[0]).await;
    let (tables, runtime) = (life.tables.clone(), life.runtime.clone());
    life.end(true).await;
    let old = runtime.behind(&tables, 0).unwrap();
    let life = Life::over(containers(), tables, runtime);
    life.until("another", |life| {
        life.runtime
            .behind(&life.tables, 0)
            .is_some_and(|new| new.id != old.id && new.netns.is_some())
    })
    .await;
    life.until_ring(&[0]).await;
}

#[tokio::test(start_paused = true)]
async fn an_adopted_container_is_told_to_the_data_plane_again() {
    let life = Life::with_containers(containers());
    life.until_ring(&[0]).await;
    let (tables, runtime) = (life.tables.clone(), life.runtime.clone());
    life.end(true).await;
    let before = tables.kernel().slots[&SLOT].0.clone();
    tables.kernel().sets = 0;
    tables.kernel().ring_log.clear();
    let life = Life::over(containers(), tables, runtime);
    life.until("told", |life| life.tables.kernel().sets == 1)
        .await;
    sleep(Duration::from_secs(7)).await;
    assert_eq!(entry(&life), before, "same generation: its flows live on");
    assert_eq!(life.tables.kernel().sets, 1);
    assert_eq!(life.tables.kernel().ring_log, [(0, vec![0])]);
}

#[test]
fn a_demand_for_direct_delivery_is_met_or_refused_at_the_start() {
    let mut config = containers();
    let able = Host { cgroup2: true };
    let bare = Host { cgroup2: false };
    assert!(can_deliver(&config, bare).is_ok(), "auto falls back");
    config.services[0].scale.spares = 1;
    assert!(can_deliver(&config, able).is_ok());
    let error = can_deliver(&config, bare).unwrap_err().to_string();
    assert!(error.contains("cannot have spares here"), "{error}");
    config.dataplane.delivery = Delivery::Direct;
    assert!(can_deliver(&config, able).is_ok());
    let error = can_deliver(&config, bare).unwrap_err().to_string();
    assert!(
        error.contains("acts") && error.contains("no cgroup2"),
        "{error}"
    );
}

/// An engine has cut it off its network: it lives on, and nobody tells.
#[tokio::test(start_paused = true)]
async fn a_container_that_has_lost_its_interface_is_replaced() {
    let life = Life::with_containers(containers());
    life.until_ring(&[0]).await;
    let old = life.runtime.behind(&life.tables, 0).unwrap();
    life.tables.kernel().cut_off.push(SLOT);
    let another = |life: &Life| {
        let now = life.runtime.behind(&life.tables, 0);
        now.is_some() && now != Some(old.clone())
    };
    life.until("passed by", |life| {
        life.tables.kernel().rings[&0].is_empty()
    })
    .await;
    life.tables.kernel().cut_off.clear();
    life.until("another copy", another).await;
    life.until_ring(&[0]).await;
    let told = life.control.journal.events_since(0);
    let told = told.iter().find(|event| event.kind == "unhealthy");
    assert!(told.unwrap().text.contains("its network interface is gone"));
    assert_eq!(fallen(&life), 0);
}

/// That of one which ends goes, too: then its end is what counts.
#[tokio::test(start_paused = true)]
async fn the_interface_of_a_container_that_ends_says_nothing_of_it() {
    let life = Life::with_containers(containers());
    life.until_ring(&[0]).await;
    let generation = life.tables.generation(SLOT);
    life.tables.alarm(SLOT, generation, EventKind::Signalled);
    life.tables.kernel().cut_off.push(SLOT);
    let told = |life: &Life| life.kinds().contains(&"suspect".to_owned());
    life.until("it is passed by", told).await;
    sleep(Duration::from_secs(2)).await;
    assert!(!life.kinds().contains(&"unhealthy".to_owned()));
}
