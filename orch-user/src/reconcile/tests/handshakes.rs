//! Copies that do not answer clients from elsewhere.

use orch_common::counter::Failure;

use super::*;

/// Two copies; every second twenty connections come to each, of which those of slot 1 are lost, and so
/// many of slot 0.
async fn lossy(lost_at_0: u64, seconds: u64) -> Life {
    let life = Life::begin(acts());
    life.until_ring(&[0]).await;
    life.scale(Some(2)).await.unwrap();
    life.until_ring(&[0, 1]).await;
    for _ in 0..seconds {
        sleep(Duration::from_secs(1)).await;
        let mut kernel = life.tables.kernel();
        for (slot, lost) in [(0, lost_at_0), (1, 20)] {
            let key = SlotKey { service: 0, slot };
            *kernel.connections.entry(key).or_default() += 20;
            if let Some((_, counters, _)) = kernel.slots.get_mut(&key) {
                counters.failures[Failure::Timeout as usize] += lost;
            }
        }
    }
    life
}

#[tokio::test(start_paused = true)]
async fn one_that_is_deaf_is_replaced_though_its_probe_is_good() {
    let life = lossy(0, 5).await;
    assert_eq!(life.snapshot().replacements, [], "that may be chance");
    let life = lossy(0, 9).await;
    life.until("told", |life| {
        life.snapshot().replacements == [("acts".into(), "unreachable".into(), 1)]
    })
    .await;
    life.until_ring(&[0, 1]).await;
}

#[tokio::test(start_paused = true)]
async fn where_all_are_deaf_nobody_is_replaced() {
    let life = lossy(20, 90).await;
    assert_eq!(life.snapshot().replacements, []);
}
