//! Whose are the ports of the services? Another program on one of them would lose its clients to the
//! balancer without a word, so `orch run` and a reload refuse; other controllers are kept off by claims.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind},
    net::IpAddr,
    ops::RangeInclusive,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

use crate::{
    config::{Config, Listen, Mode, ServiceConfig},
    listeners::{self, Listener},
};

/// What a claim on a port meets where another controller has it.
const CONTROLLER: &str = "another controller of orch";

/// A port of a service cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PortTaken {
    /// Another program has the port where a service is to listen.
    #[error(
        "port {port}, where service {service} is to listen, is taken by {holder}: end it, or change listen"
    )]
    Listen {
        /// The port.
        port: u16,
        /// The service.
        service: String,
        /// The other program.
        holder: String,
    },
    /// Another controller has the port of a slot: it would answer there in place of the slot's backend.
    #[error(
        "port {port}, one of the slot ports {first} to {last} of service {service}, is taken by {CONTROLLER}: \
         end it, or change start_port"
    )]
    Slot {
        /// The port.
        port: u16,
        /// The service.
        service: String,
        /// Slot 0's port.
        first: u16,
        /// The last slot's.
        last: u16,
    },
    /// This host lets nobody claim it, as where no more files may be open.
    #[error("port {port} of service {service} cannot be claimed against other controllers")]
    Claim {
        /// The port.
        port: u16,
        /// The service.
        service: String,
        /// Why.
        source: io::Error,
    },
}

/// Fails if anybody listens on the address of a service, but for our own gateway.
pub(crate) fn free(config: &Config, gateway: Option<u32>) -> Result<(), PortTaken> {
    let wanted = config.services.iter().flat_map(places);
    not_taken(wanted, &listeners::all(), gateway)
}

/// Where a service listens, each place with its name.
pub(crate) fn places(service: &ServiceConfig) -> impl Iterator<Item = (&str, Listen)> {
    let tls = service.http.tls.as_ref().map(|tls| tls.listen);
    let all = std::iter::once(service.listen).chain(tls);
    all.map(|listen| (service.name.as_str(), listen))
}

/// Fails if one of these, other than this process, listens at one of those places.
fn not_taken<'a>(
    wanted: impl Iterator<Item = (&'a str, Listen)>,
    listeners: &[Listener],
    but: Option<u32>,
) -> Result<(), PortTaken> {
    for (service, listen) in wanted {
        for found in listeners.iter().filter(|found| meets(listen, found)) {
            let holder = listeners::owner(found.inode);
            if holder.as_ref().is_some_and(|(_, pid)| Some(*pid) == but) {
                continue;
            }
            let holder = holder.map(|(program, pid)| format!("{program} (pid {pid})"));
            return Err(PortTaken::Listen {
                port: listen.port,
                service: service.to_owned(),
                holder: holder.unwrap_or_else(|| "another program".to_owned()),
            });
        }
    }
    Ok(())
}

/// Where the slots of a service are, running or not.
pub(crate) fn slots(service: &ServiceConfig) -> RangeInclusive<u16> {
    let first = service.start_port;
    first..=first.saturating_add(service.scale.max.saturating_sub(1))
}

/// The ports that no other controller may have while this one has the service.
pub(crate) fn claimed(service: &ServiceConfig) -> impl Iterator<Item = u16> {
    std::iter::once(service.listen.port).chain(slots(service))
}

/// Ports that this controller balances, and those of its slots, held against others for as long as this
/// lives: a controller does not listen, so that two could have one port and take each other's packets.
/// The names are abstract sockets, which belong to a network namespace as ports do and end with their
/// process.
#[derive(Debug)]
pub struct Claims {
    scope: String,
    held: BTreeMap<u16, UnixListener>,
    /// Who listens on this host.
    listeners: fn() -> Vec<Listener>,
}

impl Claims {
    /// None yet, against all controllers of this host.
    pub fn new() -> Self {
        Self::within("orch/port", listeners::all)
    }

    /// None yet, against those of the same scope: what tests claim must not meet.
    pub(crate) fn within(scope: &str, listeners: fn() -> Vec<Listener>) -> Self {
        Self {
            scope: scope.to_owned(),
            held: BTreeMap::new(),
            listeners,
        }
    }

    /// Fails if another program listens where one of these services is to listen and none of those
    /// did. A port of our own gateway, which may have kept it from a file that was refused, is its to
    /// bind: it is told there what is in its way.
    pub fn check<'a>(
        &self,
        services: &[ServiceConfig],
        before: impl Iterator<Item = &'a ServiceConfig>,
        gateway: Option<u32>,
    ) -> Result<(), PortTaken> {
        let held = before.flat_map(|one| places(one).map(|(_, place)| (one.mode, place)));
        let held: Vec<_> = held.collect();
        let known = |listen: Listen| {
            held.iter().any(|(mode, place)| match mode {
                Mode::Tcp => *place == listen,
                Mode::Http => place.port == listen.port,
            })
        };
        let new = services.iter().flat_map(places);
        let mut new = new.filter(|(_, listen)| !known(*listen)).peekable();
        if new.peek().is_none() {
            return Ok(());
        }
        not_taken(new, &(self.listeners)(), gateway)
    }

    /// Claims the ports of these services beside those that are held: all of them, or none.
    pub fn add(&mut self, services: &[ServiceConfig]) -> Result<(), PortTaken> {
        let mut new = BTreeMap::new();
        for service in services {
            for port in claimed(service) {
                // Services with different addresses may share a port.
                if self.held.contains_key(&port) || new.contains_key(&port) {
                    continue;
                }
                let claim = self.claim(port);
                new.insert(port, claim.map_err(|error| refused(service, port, error))?);
            }
        }
        self.held.append(&mut new);
        Ok(())
    }

    fn claim(&self, port: u16) -> io::Result<UnixListener> {
        let address = SocketAddr::from_abstract_name(format!("{}/{port}", self.scope))?;
        UnixListener::bind_addr(&address)
    }

    /// Lets go of all but these.
    pub fn keep(&mut self, ports: &BTreeSet<u16>) {
        self.held.retain(|port, _| ports.contains(port));
    }
}

impl Default for Claims {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a port of this service could not be claimed.
fn refused(service: &ServiceConfig, port: u16, source: io::Error) -> PortTaken {
    let slots = slots(service);
    let (first, last) = (*slots.start(), *slots.end());
    let name = service.name.clone();
    if source.kind() != ErrorKind::AddrInUse {
        return PortTaken::Claim {
            port,
            service: name,
            source,
        };
    }
    if port == service.listen.port {
        return PortTaken::Listen {
            port,
            service: name,
            holder: CONTROLLER.to_owned(),
        };
    }
    PortTaken::Slot {
        port,
        service: name,
        first,
        last,
    }
}

/// Whether a connection could be meant for both.
pub(crate) fn meets(listen: Listen, found: &Listener) -> bool {
    if listen.port != found.port {
        return false;
    }
    let Some(wanted) = listen.address else {
        return true;
    };
    let all_v6 = |address: IpAddr| address.is_unspecified() && address.is_ipv6();
    let same_family = wanted.is_ipv4() == found.address.is_ipv4();
    // A socket on :: mostly takes IPv4, too.
    wanted == found.address
        || all_v6(found.address)
        || same_family && (wanted.is_unspecified() || found.address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_meet_as_sockets_do() {
        let check = |wanted: Option<&str>, found: &str, expect: bool| {
            let listen = Listen {
                address: wanted.map(|address| address.parse().unwrap()),
                port: 80,
            };
            let found = Listener {
                address: found.parse().unwrap(),
                port: 80,
                inode: 0,
            };
            assert_eq!(meets(listen, &found), expect, "{wanted:?} {found:?}");
        };
        check(None, "127.0.0.1", true);
        check(Some("10.0.0.1"), "0.0.0.0", true);
        check(Some("10.0.0.1"), "::", true);
        check(Some("10.0.0.1"), "127.0.0.1", false);
        check(Some("0.0.0.0"), "10.0.0.1", true);
        check(Some("::"), "10.0.0.1", false);
    }

    #[test]
    fn a_port_has_one_controller() {
        let service = |port: &u16| {
            format!(
                "[[service]]\nname = \"s{port}\"\nlisten = \"{port}\"\nstart_port = {port}0\n\
                 [service.backend]\nimage = \"a:b\"\n[service.scale]\nmax = 2\n"
            )
        };
        let of = |ports: &[u16]| {
            let text: Vec<String> = ports.iter().map(service).collect();
            crate::config::parse("orch.toml", &text.concat())
                .unwrap()
                .services
        };
        let scope = format!("orch/test/{}", std::process::id());
        let (mut one, mut other) = (
            Claims::within(&scope, Vec::new),
            Claims::within(&scope, Vec::new),
        );
        one.add(&of(&[81, 82])).unwrap();
        one.add(&of(&[81, 82, 83])).unwrap();
        let error = other.add(&of(&[84, 83])).unwrap_err().to_string();
        assert!(error.contains("port 83"), "{error}");
        assert!(error.contains("another controller of orch"), "{error}");
        one.add(&of(&[84])).expect("all or none");
        one.keep(&BTreeSet::from([81, 84]));
        other.add(&of(&[82, 83])).unwrap();
        other.add(&of(&[81])).unwrap_err();
        drop(one);
        other.add(&of(&[81, 84])).unwrap();
    }

    #[test]
    fn a_slot_has_one_controller() {
        let of = |listen: u16, first: u16, max: u16| {
            let text = format!(
                "[[service]]\nname = \"s\"\nlisten = \"{listen}\"\nstart_port = {first}\n\
                 [service.backend]\nimage = \"a:b\"\n[service.scale]\nmax = {max}\n"
            );
            crate::config::parse("orch.toml", &text).unwrap().services
        };
        let scope = format!("orch/test/slots/{}", std::process::id());
        let claims = || Claims::within(&scope, Vec::new);
        let (mut one, mut other) = (claims(), claims());
        one.add(&of(81, 8000, 4)).unwrap();
        let error = other.add(&of(82, 8003, 4)).unwrap_err().to_string();
        for words in [
            "port 8003",
            "8003 to 8006 of service s",
            CONTROLLER,
            "change start_port",
        ] {
            assert!(error.contains(words), "{error}");
        }
        let error = other.add(&of(8002, 9000, 4)).unwrap_err().to_string();
        assert!(error.contains("change listen"), "{error}");
        other
            .add(&of(82, 8004, 4))
            .expect("they are beside each other");
        one.add(&of(81, 8000, 5))
            .expect_err("it grows into the other");
        other.keep(&BTreeSet::new());
        one.add(&of(81, 8000, 5)).unwrap();
    }
}
