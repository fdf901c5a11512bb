//! A check that is new to copies that are well.

use super::*;

/// Three copies, and then another check, which these ports answer with 404.
async fn rechecked(fail: &[u16]) -> Life {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.scale(Some(3)).await.unwrap();
    life.until_ring(&[0, 1, 2]).await;
    for port in fail {
        life.runtime.set_answer(*port, Answer::Status(404));
    }
    let mut new = acts();
    new.services[0].health.path = "/nowhere".into();
    reload(&life, new).await;
    life
}

#[tokio::test(start_paused = true)]
async fn a_check_that_no_copy_passes_takes_none_away() {
    let life = rechecked(&[8000, 8001, 8002]).await;
    let before = life.runtime.engine().creations;
    life.until("each is told", |life| {
        let told = life.kinds();
        told.iter().filter(|kind| *kind == "unhealthy").count() == 3
    })
    .await;
    sleep(Duration::from_mins(1)).await;
    assert_eq!(life.tables.ring(0), [0, 1, 2]);
    assert_eq!(life.runtime.engine().creations, before);
    let row = life.row(1).unwrap();
    assert!(row.note.contains("answered 404"), "{}", row.note);
    // One that does not answer at all is another matter.
    life.runtime.set_answer(8001, Answer::Refused);
    life.until_ring(&[0, 2]).await;
    life.until_ring(&[0, 1, 2]).await;
    assert_eq!(life.runtime.engine().creations, before + 1);
    // The new one has passed it: so may the others.
    life.until("they are replaced", |life| {
        life.runtime.engine().creations == before + 3 && life.tables.ring(0).len() == 3
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_fails_a_check_which_others_pass_is_replaced() {
    let life = rechecked(&[8002]).await;
    let old = life.runtime.at(8002).unwrap();
    life.until_ring(&[0, 1]).await;
    life.until_ring(&[0, 1, 2]).await;
    assert_ne!(life.runtime.at(8002).unwrap(), old);
    // What has passed it is judged by it.
    life.runtime.set_answer(8000, Answer::Status(404));
    life.until_ring(&[1, 2]).await;
    life.until_ring(&[0, 1, 2]).await;
}
