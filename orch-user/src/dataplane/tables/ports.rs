//! What is each TCP port?

use std::collections::BTreeMap;

use orch_common::{
    layout::{PORT_WORDS, PORTS, map},
    service::{Port, PortClass},
};

use super::{Tables, in_kernel};
use crate::{config::ServiceConfig, dataplane::DataplaneError};

impl Tables {
    /// What an earlier controller has left.
    pub(super) fn read_ports(&mut self) -> Result<(), DataplaneError> {
        for number in 0..PORTS as u32 {
            let port = self
                .ports
                .get(&number, 0)
                .map_err(DataplaneError::map(map::PORTS))?;
            if port != Port::default() {
                self.known_ports.insert(number as u16, port);
            }
            if port.backend == 1 {
                self.backend_ports.insert(number as u16);
            }
        }
        Ok(())
    }

    pub(super) fn set_ports(&mut self, services: &[ServiceConfig]) -> Result<(), DataplaneError> {
        let mut wanted = port_table(services);
        for number in &self.backend_ports {
            wanted.entry(*number).or_default().backend = 1;
        }
        let known = std::mem::take(&mut self.known_ports);
        let cleared = known.keys().filter(|number| !wanted.contains_key(number));
        let changed = wanted
            .iter()
            .filter(|(number, port)| known.get(number) != Some(port));
        let nothing = Port::default();
        for (number, port) in cleared.map(|number| (number, &nothing)).chain(changed) {
            self.ports
                .set(u32::from(*number), port, 0)
                .map_err(DataplaneError::map(map::PORTS))?;
        }
        self.known_ports = wanted;
        self.set_socket_ports()
    }

    /// Writes the words of the slots' ports: their connections are seen at the sockets of this host.
    fn set_socket_ports(&mut self) -> Result<(), DataplaneError> {
        let mut words = [0_u64; PORT_WORDS];
        let of_sockets = |port: &Port| port.class == PortClass::Slot;
        for (number, _) in self.known_ports.iter().filter(|(_, port)| of_sockets(port)) {
            words[usize::from(number >> 6)] |= 1 << (number & 63);
        }
        for (index, word) in (0..).zip(words) {
            if self.socket_ports.get(&index, 0).ok() != Some(word) {
                self.socket_ports
                    .set(index, word, 0)
                    .map_err(DataplaneError::map(map::SOCKET_PORTS))?;
            }
        }
        Ok(())
    }

    /// Notes a port on which a backend listens at an address of its own.
    pub(in super::super) fn set_backend_port(&mut self, number: u16) -> Result<(), DataplaneError> {
        if !self.backend_ports.insert(number) {
            return Ok(());
        }
        let port = self.known_ports.entry(number).or_default();
        port.backend = 1;
        self.ports
            .set(u32::from(number), *port, 0)
            .map_err(DataplaneError::map(map::PORTS))
    }
}

/// Where the first slot of a service listens.
pub(super) fn first_slot_port(ports: &BTreeMap<u16, Port>, service: u16) -> Option<u16> {
    let is_first =
        |port: &Port| port.class == PortClass::Slot && port.service == service && port.slot == 0;
    let mut ports = ports.iter();
    ports
        .find(|(_, port)| is_first(port))
        .map(|(number, _)| *number)
}

/// What each port is. Every slot that a service may ever have is guarded, running or not.
pub(super) fn port_table(services: &[ServiceConfig]) -> BTreeMap<u16, Port> {
    let mut ports = BTreeMap::new();
    for (index, service) in services.iter().enumerate() {
        for slot in 0..service.scale.max {
            let port = Port {
                class: PortClass::Slot,
                slot: slot as u8,
                service: index as u16,
                listen_port: service.listen.port,
                exposed: u8::from(service.expose_slots),
                backend: 0,
            };
            ports.insert(service.start_port + slot, port);
        }
    }
    for (_, service) in services.iter().enumerate().filter(in_kernel) {
        let port = Port {
            class: PortClass::Service,
            ..Port::default()
        };
        ports.insert(service.listen.port, port);
    }
    ports
}
