//! A gateway in a process of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use orch::{
    config::{HttpConfig, parse},
    http::{Client, ServiceTable, SlotTable, Table},
};
use tempfile::TempDir;

use super::{Answer, Copy, PATIENCE, Talk, free_port, until};

/// A gateway in a process of its own.
pub(crate) struct Gate {
    pub(crate) dir: TempDir,
    pub(crate) child: Child,
    pub(crate) client: Client,
    pub(crate) table: Table,
    pub(crate) address: SocketAddr,
}

/// The defaults of the file, with these lines for `[service.http]`.
pub(crate) fn http(lines: &str) -> HttpConfig {
    let text = format!(
        "[[service]]\nmode = \"http\"\nbackend.image = \"a:b\"\ncount.prefix = \"/api/\"\n[service.http]\n{lines}"
    );
    parse("test", &text).unwrap().services[0].http.clone()
}

impl Gate {
    pub(crate) fn open(lines: &str, copies: &[&Copy]) -> Self {
        let http = http(lines);
        let dir = tempfile::tempdir().unwrap();
        let socket = orch::http::socket_path(&dir.path().join("control"));
        let child = spawn(&socket);
        let client = until("the gateway answers", || {
            Client::connect(&socket, PATIENCE).ok()
        });
        let port = free_port();
        let mut gate = Self {
            child,
            client,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            table: Table {
                control: dir.path().join("control"),
                // Without a data plane they are connections as all others, kept apart from those.
                relay: true,
                services: vec![ServiceTable {
                    name: "acts".to_owned(),
                    listen: orch::config::Listen {
                        address: Some(Ipv4Addr::LOCALHOST.into()),
                        port,
                    },
                    closed: false,
                    http,
                    count: orch::config::CountConfig {
                        prefix: "/api/".to_owned(),
                        exclude: vec!["/api/_health".to_owned()],
                    },
                    ring: Vec::new(),
                    slots: Vec::new(),
                }],
            },
            dir,
        };
        gate.ring(copies);
        gate
    }

    pub(crate) fn socket(&self) -> PathBuf {
        orch::http::socket_path(&self.table.control)
    }

    pub(crate) fn service(&mut self) -> &mut ServiceTable {
        &mut self.table.services[0]
    }

    /// These are the slots 0, 1, 2 and all ready.
    pub(crate) fn ring(&mut self, copies: &[&Copy]) {
        let numbers: Vec<u16> = (0..copies.len() as u16).collect();
        self.service().slots = (0..)
            .zip(copies)
            .map(|(slot, copy)| SlotTable {
                slot,
                address: copy.address,
                generation: copy.generation,
                direct: true,
                pardons: 0,
            })
            .collect();
        self.only(&numbers);
    }

    /// Only these slots are ready.
    pub(crate) fn only(&mut self, ring: &[u16]) {
        self.service().ring = ring.to_vec();
        self.client.set(&self.table).unwrap();
    }

    pub(crate) fn connect(&self) -> Talk {
        Talk::to(self.address)
    }

    /// One request on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Answer {
        let mut talk = self.connect();
        talk.say(&format!(
            "GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        ));
        talk.answer("GET")
    }

    /// Requests, and excluded ones, of all slots.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let report = self.client.read().unwrap();
        let slots = report.services.iter().flat_map(|one| &one.slots);
        slots.fold((0, 0), |(requests, excluded), slot| {
            (
                requests + slot.counts.requests,
                excluded + slot.counts.excluded,
            )
        })
    }

    pub(crate) fn live(&self) -> u64 {
        let report = self.client.read().unwrap();
        let slots = report.services.iter().flat_map(|one| &one.slots);
        slots.map(|slot| slot.live).sum()
    }
}

pub(crate) fn spawn(socket: &std::path::Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_orch"))
        .args(["gateway", "--socket"])
        .arg(socket)
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Gate {
    fn drop(&mut self) {
        // One of a later version may answer there by now.
        if let Ok(client) = Client::connect(&self.socket(), PATIENCE) {
            let _ = client.end();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
