//! What does the gateway hold?

use std::{collections::BTreeMap, net::TcpListener, sync::Arc};

use super::super::{
    predecessor::Predecessor,
    service::Service,
    tls::Certificate,
    wire::{Report, ServiceReport, ServiceTable, Socket, Table},
};
use crate::config::TlsConfig;

#[derive(Default)]
pub(super) struct State {
    pub(super) table: Table,
    pub(super) services: BTreeMap<String, Arc<Service>>,
    pub(super) sockets: BTreeMap<Socket, TcpListener>,
    pub(super) certificates: BTreeMap<String, Arc<Certificate>>,
    /// Sockets of the gateway before this one that have no service yet.
    pub(super) inherited: BTreeMap<Socket, TcpListener>,
    pub(super) predecessor: Option<Predecessor>,
    /// Counts to begin with.
    pub(super) seed: Report,
}

impl State {
    pub(super) fn service(&mut self, table: &ServiceTable, threads: usize) -> Arc<Service> {
        let (predecessor, seed) = (&self.predecessor, &self.seed);
        let new = || {
            let service = Service::new(table, threads);
            let before = seed.services.iter().find(|one| one.name == table.name);
            if let Some(before) = before {
                service.seed(before.cursor, &before.slots);
            } else if let Some(cursor) =
                predecessor.as_ref().and_then(|one| one.cursor(&table.name))
            {
                service.seed(cursor, &[]);
            }
            Arc::new(service)
        };
        let service = self.services.entry(table.name.clone()).or_insert_with(new);
        Arc::clone(service)
    }

    pub(super) fn certificate(&mut self, service: &str, tls: &TlsConfig) -> Result<(), String> {
        let held = self.certificates.get(service);
        if held.is_some_and(|held| held.is(tls)) {
            return Ok(());
        }
        match Certificate::load(tls) {
            Ok(certificate) => {
                let certificate = Arc::new(certificate);
                self.certificates.insert(service.to_owned(), certificate);
                Ok(())
            }
            Err(error) => Err(format!("service {service} has no TLS: {error}")),
        }
    }

    pub(super) fn report(&mut self) -> Report {
        let services = self.services.iter().map(|(name, service)| ServiceReport {
            name: name.clone(),
            cursor: service.cursor(),
            waiting: service.waiting(),
            slots: service.report(),
        });
        let mut report = Report {
            services: services.collect(),
        };
        if let Some(predecessor) = &mut self.predecessor {
            predecessor.add_to(&mut report);
        }
        report
    }
}
