//! How does the gateway become what its table says?

use std::net::SocketAddr;

use super::{
    super::{
        listen,
        wire::{ServiceTable, Socket, Table},
        worker::Order,
    },
    Gateway,
    state::State,
};
use crate::config::TlsConfig;

impl Gateway {
    /// Becomes what the table says, as far as it can. The error says what it could not.
    pub(super) fn set(&self, state: &mut State, table: Table) -> Result<(), String> {
        self.shared.set_control(table.control.clone());
        self.shared.set_relays(table.relay);
        let mut trouble = None;
        let mut wanted = Vec::new();
        for service in &table.services {
            let held = state.service(service, self.workers.len());
            held.set(service);
            if service.closed || self.shared.is_closing() {
                continue;
            }
            wanted.extend(plain_sockets(service, self.workers.len()));
            if let Some(tls) = &service.http.tls {
                match state.certificate(&service.name, tls) {
                    Ok(()) => wanted.extend(tls_sockets(service, tls, self.workers.len())),
                    Err(error) => trouble = Some(error),
                }
            }
        }
        let named = |name: &String| table.services.iter().any(|one| one.name == *name);
        state.services.retain(|name, service| {
            if !named(name) {
                service.set(&ServiceTable::empty(name, &service.settings().http));
            }
            named(name)
        });
        if !self.shared.is_closing() {
            self.listen(state, &wanted, &mut trouble);
        }
        if let Some(predecessor) = &mut state.predecessor {
            predecessor.set(&table);
        }
        state.table = table;
        trouble.map_or(Ok(()), Err)
    }

    /// Listens where it should, and nowhere else.
    fn listen(&self, state: &mut State, wanted: &[Socket], trouble: &mut Option<String>) {
        let gone = state
            .sockets
            .keys()
            .filter(|socket| !wanted.contains(socket));
        for socket in gone.cloned().collect::<Vec<_>>() {
            state.sockets.remove(&socket);
            self.tell(socket.thread, Order::Close(socket));
        }
        for socket in wanted {
            if state.sockets.contains_key(socket) {
                continue;
            }
            let Some(service) = state.services.get(&socket.service).cloned() else {
                continue;
            };
            let patience = service.settings().http.body_timeout;
            let inherited = state.inherited.remove(socket);
            let bound =
                inherited.map_or_else(|| listen::bind(socket.address, socket.both, patience), Ok);
            match bound.and_then(|bound| Ok((bound.try_clone()?, bound))) {
                Ok((own, kept)) => {
                    let certificate = socket
                        .tls
                        .then(|| state.certificates.get(&socket.service).cloned())
                        .flatten();
                    let order = Order::Listen(socket.clone(), own, service, certificate);
                    self.tell(socket.thread, order);
                    state.sockets.insert(socket.clone(), kept);
                }
                Err(error) => {
                    let Socket {
                        service, address, ..
                    } = socket;
                    *trouble = Some(format!(
                        "service {service} cannot listen on {address}: {error}"
                    ));
                }
            }
        }
        // What is not wanted any more is closed.
        state.inherited.clear();
    }
}

fn plain_sockets(service: &ServiceTable, threads: usize) -> impl Iterator<Item = Socket> {
    let address = listen::address(service.listen);
    sockets(
        &service.name,
        address,
        service.listen.address.is_none(),
        false,
        threads,
    )
}

fn tls_sockets(
    service: &ServiceTable,
    tls: &TlsConfig,
    threads: usize,
) -> impl Iterator<Item = Socket> {
    let address = listen::address(tls.listen);
    sockets(
        &service.name,
        address,
        tls.listen.address.is_none(),
        true,
        threads,
    )
}

fn sockets(
    service: &str,
    address: SocketAddr,
    both: bool,
    tls: bool,
    threads: usize,
) -> impl Iterator<Item = Socket> {
    (0..threads).map(move |thread| Socket {
        service: service.to_owned(),
        address,
        both,
        tls,
        thread,
    })
}
