//! Another program on a service's port would lose its clients to the balancer without a word, so
//! `orch run` refuses.

use std::{
    net::IpAddr,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

use crate::{
    config::{Config, Listen, ServiceConfig},
    listeners::{self, Listener},
};

/// Another program listens where a service is to listen.
#[derive(Debug, thiserror::Error)]
#[error(
    "port {port}, where service {service} is to listen, is taken by {holder}: end it, or change listen"
)]
pub struct PortTaken {
    /// The port.
    pub port: u16,
    /// The service.
    pub service: String,
    /// The other program.
    pub holder: String,
}

/// Fails if anybody listens on the address of a service.
pub(super) fn free(config: &Config) -> Result<(), PortTaken> {
    let listeners = listeners::all();
    for service in &config.services {
        let Some(found) = listeners.iter().find(|found| meets(service.listen, found)) else {
            continue;
        };
        let holder = listeners::owner(found.inode);
        return Err(PortTaken {
            port: service.listen.port,
            service: service.name.clone(),
            holder: holder.unwrap_or_else(|| "another program".to_owned()),
        });
    }
    Ok(())
}

/// Ports that this controller balances, held against others for as long as this lives: a controller
/// does not listen, so that two could have one port and take each other's packets. The names are
/// abstract sockets, which belong to a network namespace as ports do and end with their process.
#[derive(Debug)]
pub struct Claims {
    _held: Vec<UnixListener>,
}

impl Claims {
    pub(super) fn take(config: &Config) -> Result<Self, PortTaken> {
        let claim = |service: &ServiceConfig| {
            let name = format!("orch/port/{}", service.listen.port);
            let address = SocketAddr::from_abstract_name(name);
            let held = address.and_then(|address| UnixListener::bind_addr(&address));
            held.map_err(|_| PortTaken {
                port: service.listen.port,
                service: service.name.clone(),
                holder: "another controller of orch".to_owned(),
            })
        };
        // Services with different addresses may share a port.
        let mut services: Vec<&ServiceConfig> = config.services.iter().collect();
        services.sort_by_key(|service| service.listen.port);
        services.dedup_by_key(|service| service.listen.port);
        let held: Result<_, _> = services.into_iter().map(claim).collect();
        Ok(Self { _held: held? })
    }
}

/// Whether a connection could be meant for both.
pub(super) fn meets(listen: Listen, found: &Listener) -> bool {
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
        let text = "[[service]]\nname = \"a\"\nlisten = \"61994\"\nstart_port = 61995\n\
                    [service.backend]\nimage = \"a:b\"\n[service.scale]\nmax = 2\n";
        let config = crate::config::parse("orch.toml", text).unwrap();
        let claims = Claims::take(&config).unwrap();
        let error = Claims::take(&config).unwrap_err().to_string();
        assert!(error.contains("another controller of orch"), "{error}");
        drop(claims);
        Claims::take(&config).unwrap();
    }
}
