//! Clients on the host and in a container: their requests count as everybody's.

use std::net::SocketAddr;

use super::bystander::Bystander;
use crate::{
    client::Client,
    orch::{Kind, Orch, Settings},
};

const COPIES: u16 = 2;
const CONNECTIONS: u64 = 4;
const REQUESTS: u64 = 5;

/// Several requests on each of several connections: from the host, from a container. Each slot counts
/// those that it has answered, and no connection is left.
pub fn of_host_and_container_are_counted() {
    let orch = Orch::start(Settings::new(Kind::Docker).copies(COPIES));
    let bystander = Bystander::start(&orch.settings.image);
    let from_there = bystander.to(orch.address().port());
    for round in 1..=2 {
        talk(orch.address());
        counted(&orch, (2 * round - 1) * CONNECTIONS);
        bystander.entry().within(|| talk(from_there));
        counted(&orch, 2 * round * CONNECTIONS);
    }
}

fn talk(address: SocketAddr) {
    for _ in 0..CONNECTIONS {
        let mut client = Client::connect(address).unwrap();
        for _ in 0..REQUESTS {
            let answer = client.ask("GET", "/api/v1/acts/count", "").unwrap();
            assert_eq!(answer.status, 200);
        }
    }
}

fn counted(orch: &Orch, connections: u64) {
    let each = connections * REQUESTS / u64::from(COPIES);
    orch.until("every request is counted", || {
        let rows = orch.slots();
        let right = rows.iter().all(|row| {
            row.delivery == "direct"
                && (row.requests, row.responses) == (each, each)
                && (row.connections, row.in_flight, row.errors) == (0, 0, 0)
        });
        right.then_some(())
    });
}
