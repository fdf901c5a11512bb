//! Ports that others use, or could come to use.

use std::{collections::BTreeMap, fs, net::SocketAddr};

use super::Finding;
use crate::{
    config::{Config, Listen, ServiceConfig},
    http,
    listeners::{self, Listener},
    ports::{meets, places},
};

/// What a controller's process is called.
const CONTROLLER: &str = "orch";

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let listeners = listeners::all();
    let read = |name: &str| {
        let path = format!("/proc/sys/net/ipv4/{name}");
        fs::read_to_string(path).unwrap_or_default()
    };
    let (local, reserved) = (read("ip_local_port_range"), read("ip_local_reserved_ports"));
    let gateway = http::pid(&config.control);
    let mut findings = Vec::new();
    findings.extend(config.status.map(|at| status_address(at, &listeners)));
    for service in &config.services {
        findings.extend(places(service).map(|place| service_port(place, &listeners, gateway)));
        findings.push(slot_ports(service, &listeners));
        findings.extend(ephemeral(service, &local, &reserved));
    }
    findings
}

/// Where a running controller answers is no stranger's.
fn status_address(at: SocketAddr, listeners: &[Listener]) -> Finding {
    let listen = Listen {
        address: Some(at.ip()),
        port: at.port(),
    };
    let mut ours = false;
    for found in listeners.iter().filter(|found| meets(listen, found)) {
        match listeners::owner(found.inode) {
            Some((program, _)) if program == CONTROLLER => ours = true,
            _ => {
                let taken = format!(
                    "the status address {at} is taken by {}",
                    listeners::holder(found)
                );
                return Finding::fail("port", taken, "end it, or change status");
            }
        }
    }
    let whose = if ours { "orch's own" } else { "free" };
    Finding::ok("port", format!("the status address {at} is {whose}"))
}

/// What a running controller's gateway listens on is ours already.
fn service_port(
    (name, listen): (&str, Listen),
    listeners: &[Listener],
    gateway: Option<u32>,
) -> Finding {
    let port = listen.port;
    let mut ours = None;
    for found in listeners.iter().filter(|found| meets(listen, found)) {
        match listeners::owner(found.inode) {
            Some((_, pid)) if Some(pid) == gateway => ours = gateway,
            _ => {
                return Finding::fail(
                    "port",
                    format!(
                        "{port} of service {name} is taken by {}",
                        listeners::holder(found)
                    ),
                    "end it, or change listen",
                );
            }
        }
    }
    let whose = ours.map_or_else(
        || "is free".to_owned(),
        |pid| format!("is orch's own: its gateway (pid {pid}) listens there"),
    );
    Finding::ok("port", format!("{port} of service {name} {whose}"))
}

/// A warning, not a failure: what listens there may well be backends of orch.
fn slot_ports(service: &ServiceConfig, listeners: &[Listener]) -> Finding {
    let (first, last) = range(service);
    // One per port: mostly the same program has it for IPv4 and for IPv6.
    let taken: BTreeMap<_, _> = listeners
        .iter()
        .filter(|found| (first..=last).contains(&u32::from(found.port)))
        .map(|found| (found.port, found))
        .collect();
    let taken: Vec<_> = taken
        .into_values()
        .map(|found| format!("{} by {}", found.port, listeners::holder(found)))
        .collect();
    let name = &service.name;
    if taken.is_empty() {
        return Finding::ok(
            "slots",
            format!("ports {first} to {last} of service {name} are free"),
        );
    }
    let meaning = format!("of service {name}, taken: {}", taken.join(", "));
    Finding::warn(
        "slots",
        meaning,
        "if these are not orch's own, end them or change start_port",
    )
}

/// An outgoing connection can take a slot's port before its backend does.
fn ephemeral(service: &ServiceConfig, local: &str, reserved: &str) -> Option<Finding> {
    let mut bounds = local.split_whitespace().map(str::parse::<u32>);
    let (low, high) = (bounds.next()?.ok()?, bounds.next()?.ok()?);
    let (first, last) = range(service);
    if last < low || high < first || (first..=last).all(|port| contains(reserved.trim(), port)) {
        return None;
    }
    let meaning = format!(
        "slot ports {first} to {last} of service {} lie in {low} to {high}, from which outgoing connections take theirs",
        service.name
    );
    let cure =
        format!("sysctl -w net.ipv4.ip_local_reserved_ports={first}-{last}, or change start_port");
    Some(Finding::warn("slots", meaning, cure))
}

/// Whether a list like `8000-8009,9000` has the port.
fn contains(ranges: &str, port: u32) -> bool {
    ranges.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let bounds = (first.trim().parse::<u32>(), last.trim().parse::<u32>());
        matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&port))
    })
}

fn range(service: &ServiceConfig) -> (u32, u32) {
    let first = u32::from(service.start_port);
    (first, first + u32::from(service.scale.max) - 1)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::{cli::doctor::Level, config::Source};

    #[test]
    fn the_gateway_of_a_running_controller_is_no_stranger() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = Listen {
            address: None,
            port: listener.local_addr().unwrap().port(),
        };
        let level = |gateway| service_port(("a", listen), &listeners::all(), gateway).level;
        assert_eq!(level(None), Level::Fail);
        assert_eq!(level(Some(1)), Level::Fail);
        assert_eq!(level(Some(std::process::id())), Level::Ok);
        drop(listener);
        assert_eq!(level(None), Level::Ok);
    }

    #[test]
    fn a_stranger_at_the_status_address_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let finding = status_address(at, &listeners::all());
        assert_eq!(finding.level, Level::Fail);
        let pid = format!("(pid {})", std::process::id());
        assert!(finding.meaning.ends_with(&pid), "{}", finding.meaning);
        drop(listener);
        assert_eq!(status_address(at, &listeners::all()).level, Level::Ok);
    }

    #[test]
    fn ephemeral_ports_overlap_unless_reserved() {
        let config = Source::Image("a".to_owned()).load().unwrap();
        let warns = |local, reserved| ephemeral(&config.services[0], local, reserved).is_some();
        assert!(!warns("32768\t60999\n", "\n"));
        assert!(warns("1024\t65535\n", "\n"));
        assert!(warns("1024\t65535\n", "8000-8008\n"));
        assert!(!warns("1024\t65535\n", "22,8000-8009\n"));
    }

    #[test]
    fn a_port_is_told_once() {
        let config = crate::config::Source::Image("acts:demo".to_owned());
        let service = config.load().unwrap().services.remove(0);
        let on = |address: &str| Listener {
            address: address.parse().unwrap(),
            port: 8001,
            inode: 0,
        };
        let finding = slot_ports(&service, &[on("0.0.0.0"), on("::")]);
        assert_eq!(finding.meaning.matches("8001 by").count(), 1);
    }
}
