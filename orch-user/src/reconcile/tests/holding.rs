//! Connections that wait: they start a copy, are sent on to it, and are not kept waiting in vain.

use orch_common::{
    address::from_v4,
    flow::FlowKey,
    hold::{FRAME_BYTES, HeldSyn, Release},
};

use super::*;

const IDLE: Duration = Duration::from_mins(1);

/// A SYN over IPv4, its checksum right.
const SYN: [u8; 54] = [
    2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0x26, 0xba, 10,
    9, 0, 2, 10, 9, 0, 1, 0x9c, 0x40, 0, 80, 0, 0, 3, 0xe8, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0xdb,
    0x55, 0, 0,
];

/// A service that needs no copy.
fn sleeper() -> Config {
    let mut config = acts();
    let scale = &mut config.services[0].scale;
    (scale.min, scale.idle) = (0, IDLE);
    config
}

/// The kernel holds SYNs of this many clients.
fn clients_come(life: &Life, count: u8) {
    let mut frame = [0; FRAME_BYTES];
    frame[..SYN.len()].copy_from_slice(&SYN);
    let syn = |client: u8| HeldSyn {
        key: FlowKey {
            client: from_v4([10, 9, 0, client]),
            local: from_v4([10, 9, 0, 1]),
            client_port: 40_000,
            local_port: 80,
        },
        seq: 7,
        ifindex: 3,
        service: 0,
        len: SYN.len() as u16,
        frame,
    };
    life.tables.kernel().held.extend((0..count).map(syn));
}

fn injected(life: &Life) -> Vec<(u32, Release)> {
    life.tables.kernel().injected.clone()
}

fn waiting(life: &Life) -> u64 {
    life.snapshot()
        .services
        .first()
        .map_or(0, |row| row.waiting)
}

fn holds(life: &Life) -> bool {
    let terms = life.tables.kernel().holding.get(&0).copied();
    terms.flatten().is_some()
}

#[tokio::test(start_paused = true)]
async fn a_service_without_copies_gets_one_for_the_first_who_waits() {
    let life = Life::begin(sleeper());
    sleep(Duration::from_mins(5)).await;
    assert_eq!((life.runtime.running(), holds(&life)), (0, true));
    let row = life.snapshot().services[0].clone();
    assert_eq!((row.desired, row.ready), (0, 0));
    clients_come(&life, 100);
    life.until("they wait", |life| waiting(life) == 100).await;
    assert_eq!(injected(&life), []);
    life.until_ring(&[0]).await;
    life.until("all are sent on", |life| injected(life).len() == 100)
        .await;
    assert!(
        injected(&life)
            .iter()
            .all(|one| *one == (3, Release::Arrive))
    );
    life.until("nobody waits", |life| waiting(life) == 0).await;
    let decisions = life.control.journal.decisions(Some("acts"));
    assert_eq!((decisions[0].from, decisions[0].to), (0, 1));
    assert_eq!(decisions[0].reason, "a connection waits");
    life.end(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_starts_for_those_who_wait_outlives_the_controller() {
    let life = Life::begin(sleeper());
    life.runtime.engine().answer = Some(Answer::Status(503));
    clients_come(&life, 1);
    life.until("it starts", |life| life.runtime.running() == 1)
        .await;
    let (tables, runtime) = (life.tables.clone(), life.runtime.clone());
    life.end(true).await;
    runtime.set_answer(8000, Answer::Status(200));
    let life = Life::over(sleeper(), tables, runtime);
    life.until_ring(&[0]).await;
    assert_eq!(life.runtime.engine().creations, 1);
    life.until("nothing runs", |life| life.runtime.running() == 0)
        .await;
    life.end(false).await;
}

#[tokio::test(start_paused = true)]
async fn it_rests_when_it_has_had_nothing_to_do_and_never_while_connections_live() {
    let life = Life::begin(sleeper());
    clients_come(&life, 1);
    life.until_ring(&[0]).await;
    life.tables.set_live(
        SlotKey {
            service: 0,
            slot: 0,
        },
        1,
    );
    sleep(10 * IDLE).await;
    assert_eq!(life.tables.ring(0), [0]);
    life.tables.set_live(
        SlotKey {
            service: 0,
            slot: 0,
        },
        0,
    );
    sleep(IDLE / 2).await;
    life.tables.request(0, 1);
    sleep(IDLE * 3 / 4).await;
    assert_eq!(life.tables.ring(0), [0], "there was a request");
    let took = life
        .until("nothing runs", |life| life.runtime.running() == 0)
        .await;
    assert!(took < IDLE, "{took:?}");
    let row = life.snapshot().services[0].clone();
    assert_eq!((row.desired, row.ready, row.requests_total), (0, 0, 1));
    clients_come(&life, 1);
    life.until_ring(&[0]).await;
    life.end(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_cannot_start_lets_them_go() {
    let life = Life::begin(sleeper());
    life.runtime.engine().crashes = Some(1);
    clients_come(&life, 3);
    life.until("they are let go", |life| injected(life).len() == 3)
        .await;
    assert!(
        injected(&life)
            .iter()
            .all(|one| *one == (3, Release::LetGo))
    );
    life.until("nobody waits in vain", |life| !holds(life))
        .await;
    life.runtime.engine().crashes = None;
    life.until_ring(&[0]).await;
    life.until("they wait again", holds).await;
    life.end(false).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_longer_than_the_file_says() {
    let mut config = sleeper();
    config.services[0].hold = Duration::from_secs(5);
    let life = Life::begin(config);
    life.runtime.engine().answer = Some(Answer::Status(503));
    let begun = Instant::now();
    clients_come(&life, 1);
    life.until("it is let go", |life| {
        injected(life) == [(3, Release::LetGo)]
    })
    .await;
    let waited = begun.elapsed();
    assert!(
        waited >= Duration::from_secs(5) && waited < Duration::from_secs(6),
        "{waited:?}"
    );
    life.end(false).await;
}

#[tokio::test(start_paused = true)]
async fn the_only_copy_is_waited_for() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.runtime.kill(8000, true);
    life.until("it is out", |life| life.tables.ring(0).is_empty())
        .await;
    clients_come(&life, 2);
    life.until_ring(&[0]).await;
    life.until("they are sent on", |life| {
        injected(life) == [(3, Release::Arrive); 2]
    })
    .await;
    life.end(false).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_person_or_the_file_turns_off_is_not_waited_for() {
    let life = Life::begin(sleeper());
    life.until("it holds", holds).await;
    life.scale(Some(0)).await.unwrap();
    life.until("none by hand", |life| !holds(life)).await;
    life.scale(None).await.unwrap();
    life.until("it holds", holds).await;
    let mut config = acts();
    config.services[0].hold = Duration::ZERO;
    reload(&life, config).await;
    life.until("off", |life| !holds(life)).await;
    life.end(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_leaves_hands_back_what_waits() {
    let life = Life::begin(sleeper());
    life.runtime.engine().answer = Some(Answer::Status(503));
    clients_come(&life, 2);
    life.until("they wait", |life| waiting(life) == 2).await;
    let tables = life.tables.clone();
    life.end(true).await;
    assert_eq!(tables.kernel().injected, [(3, Release::Arrive); 2]);
    let terms = tables.kernel().holding[&0].unwrap();
    assert_eq!(terms.listener, None, "nobody accepts any more");
}

#[tokio::test(start_paused = true)]
async fn after_a_death_the_syns_without_an_answer_are_looked_for() {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    assert_eq!(life.tables.kernel().replays, 0);
    life.runtime.kill(8000, true);
    life.until("looked for twice", |life| life.tables.kernel().replays == 2)
        .await;
    life.end(false).await;
}

/// Whatever zeroes the policy: somebody waits.
#[tokio::test(start_paused = true)]
async fn those_who_wait_are_not_forgotten_by_hand() {
    for by_scale in [false, true] {
        let life = Life::begin(sleeper());
        life.until("it holds", holds).await;
        life.runtime.engine().answer = Some(Answer::Status(503));
        clients_come(&life, 4);
        life.until("a copy starts", |life| life.runtime.running() == 1)
            .await;
        if by_scale {
            life.scale(None).await.unwrap();
        } else {
            life.reset("acts").await.unwrap();
        }
        sleep(Duration::from_secs(2)).await;
        life.runtime.set_answer(8000, Answer::Status(200));
        life.until_ring(&[0]).await;
        assert_eq!(life.runtime.engine().creations, 1, "it goes on starting");
        life.until("all are sent on", |life| injected(life).len() == 4)
            .await;
        assert!(injected(&life).iter().all(|one| one.1 == Release::Arrive));
        life.end(false).await;
    }
}
