//! The gateway before this one, of another version: it finishes what it has begun, goes on being
//! told the table, and its counts are part of ours.

use std::{collections::BTreeMap, net::TcpListener, path::Path, time::Duration};

use super::{
    descriptors,
    wire::{Answer, Ask, Client, Report, Socket, Table, WireError},
};

/// For one answer of it.
const LIMIT: Duration = Duration::from_secs(2);

/// Listening sockets that are handed over.
type Sockets = BTreeMap<Socket, TcpListener>;

#[derive(Debug)]
pub(super) struct Predecessor {
    /// `None` once it has ended.
    client: Option<Client>,
    /// What it counted in the end, or last.
    counts: Report,
}

impl Predecessor {
    /// Takes over from the gateway that answers behind this socket, if one does.
    pub(super) fn succeed(path: &Path) -> Result<Option<(Self, Sockets)>, WireError> {
        let Ok(client) = Client::connect(path, LIMIT) else {
            return Ok(None);
        };
        let Answer::Sockets(names) = client.ask(&Ask::Yield)? else {
            return Err(WireError::Unexpected);
        };
        let sockets = descriptors::receive(client.stream(), names)?;
        let counts = client.read()?;
        let predecessor = Self {
            client: Some(client),
            counts,
        };
        Ok(Some((predecessor, sockets)))
    }

    /// Picks so far.
    pub(super) fn cursor(&self, service: &str) -> Option<u64> {
        let mut services = self.counts.services.iter();
        let found = services.find(|one| one.name == service)?;
        Some(found.cursor)
    }

    pub(super) fn set(&mut self, table: &Table) {
        if let Some(client) = &self.client
            && let Err(error) = client.set(table)
        {
            log::debug!("the gateway before this one is gone: {error}");
            self.client = None;
        }
        // What leaves the table takes its counts along.
        for service in &mut self.counts.services {
            let known = table.services.iter().find(|one| one.name == service.name);
            service.slots.retain(|slot| {
                known.is_some_and(|known| known.slots.iter().any(|one| one.slot == slot.slot))
            });
        }
    }

    /// Adds its counts to ours.
    pub(super) fn add_to(&mut self, report: &mut Report) {
        match self.client.as_ref().map(Client::read) {
            Some(Ok(counts)) => self.counts = counts,
            Some(Err(_)) => {
                self.client = None;
                let slots = self.counts.services.iter_mut();
                for slot in slots.flat_map(|service| &mut service.slots) {
                    (slot.live, slot.refused) = (0, false);
                }
            }
            None => {}
        }
        for service in &mut report.services {
            for slot in &mut service.slots {
                let Some(before) = self.counts.slot(&service.name, slot.slot) else {
                    continue;
                };
                slot.counts += &before.counts;
                if before.generation == slot.generation {
                    slot.live += before.live;
                }
            }
        }
    }

    pub(super) fn end(self) {
        if let Some(client) = self.client {
            // One that has ended already is as good.
            let _ = client.end();
        }
    }
}
