//! Clients on the host and in a container: their requests count as everybody's.

use std::{net::SocketAddr, thread};

use crate::{
    client::Client,
    netns::Entry,
    orch::{Kind, Orch, Settings, docker},
};

const COPIES: u16 = 2;
const CONNECTIONS: u64 = 4;
const REQUESTS: u64 = 5;

/// A container that has nothing to do with orch. It goes when this is dropped.
struct Bystander(String);

impl Bystander {
    fn start(image: &str) -> Self {
        Self(
            docker(&["run", "--detach", "--rm", image])
                .trim()
                .to_owned(),
        )
    }

    fn asks(&self, of: &str) -> String {
        let format = format!("{{{{{of}}}}}");
        let told = docker(&["inspect", "--format", &format, &self.0]);
        told.trim().to_owned()
    }

    /// Runs `body` in its network namespace.
    fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let entry = Entry::of(self.asks(".State.Pid").parse().unwrap());
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                entry.enter();
                body()
            });
            inside.join().unwrap()
        })
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        docker(&["kill", &self.0]);
    }
}

/// Several requests on each of several connections: from the host, from a container. Each slot counts
/// those that it has answered, and no connection is left.
pub fn of_host_and_container_are_counted() {
    let orch = Orch::start(Settings::new(Kind::Docker).copies(COPIES));
    let bystander = Bystander::start(&orch.settings.image);
    let gateway = bystander.asks(".NetworkSettings.Gateway");
    let from_there = SocketAddr::new(gateway.parse().unwrap(), orch.address().port());
    for round in 1..=2 {
        talk(orch.address());
        counted(&orch, (2 * round - 1) * CONNECTIONS);
        bystander.within(|| talk(from_there));
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
