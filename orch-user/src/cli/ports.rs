//! Another program on a service's port would lose its clients to the balancer without a word, so
//! `orch run` refuses.

use std::net::IpAddr;

use crate::{
    config::{Config, Listen},
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
}
