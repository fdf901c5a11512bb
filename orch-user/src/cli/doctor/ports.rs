//! Ports that others use, or could come to use.

use std::{collections::BTreeMap, fs, net::SocketAddr};

use super::Finding;
use crate::{
    api::client::Client,
    config::{Config, Listen, ServiceConfig},
    http,
    listeners::{self, Listener},
    ports::{meets, places},
    view::{ServiceRow, SlotRow},
};

/// What a controller's process is called.
const CONTROLLER: &str = "orch";

/// What a controller of this configuration that runs has taken; nothing where none answers.
#[derive(Default)]
struct Running {
    gateway: Option<u32>,
    services: Vec<ServiceRow>,
    slots: Vec<SlotRow>,
}

impl Running {
    async fn ask(config: &Config) -> Self {
        let client = Client::new(&config.control);
        Self {
            gateway: http::pid(&config.control),
            services: client.get("/v1/services").await.unwrap_or_default(),
            slots: client.get("/v1/slots").await.unwrap_or_default(),
        }
    }

    /// Whether it serves this service there.
    fn serves(&self, name: &str, listen: Listen) -> bool {
        let mut rows = self.services.iter();
        rows.any(|row| row.service == name && row.listen == listen.to_string())
    }

    /// Whether one of its backends listens at this port of the host.
    fn has_backend_at(&self, port: u16) -> bool {
        let address = format!(":{port}");
        let mut rows = self.slots.iter();
        rows.any(|row| row.port == port && row.address.ends_with(&address))
    }
}

pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    let running = Running::ask(config).await;
    let listeners = listeners::all();
    let read = |name: &str| {
        let path = format!("/proc/sys/net/ipv4/{name}");
        fs::read_to_string(path).unwrap_or_default()
    };
    let (local, reserved) = (read("ip_local_port_range"), read("ip_local_reserved_ports"));
    let mut findings = Vec::new();
    findings.extend(config.status.map(|at| status_address(at, &listeners)));
    for service in &config.services {
        findings.extend(places(service).map(|place| service_port(place, &listeners, &running)));
        findings.push(slot_ports(service, &listeners, &running));
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
    running: &Running,
) -> Finding {
    let port = listen.port;
    let mut ours = None;
    for found in listeners.iter().filter(|found| meets(listen, found)) {
        match listeners::owner(found.inode) {
            Some((_, pid)) if Some(pid) == running.gateway => ours = Some(pid),
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
    let whose = match ours {
        Some(pid) => format!("is orch's own: its gateway (pid {pid}) listens there"),
        None if running.serves(name, listen) => {
            "is balanced by the controller that runs".to_owned()
        }
        None => "is free".to_owned(),
    };
    Finding::ok("port", format!("{port} of service {name} {whose}"))
}

/// A warning, not a failure: what listens there may well be backends of orch.
fn slot_ports(service: &ServiceConfig, listeners: &[Listener], running: &Running) -> Finding {
    let (first, last) = range(service);
    // One per port: mostly the same program has it for IPv4 and for IPv6.
    let taken: BTreeMap<_, _> = listeners
        .iter()
        .filter(|found| (first..=last).contains(&u32::from(found.port)))
        .filter(|found| !running.has_backend_at(found.port))
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
            format!("ports {first} to {last} of service {name} are free, or orch's own"),
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
        let level = |gateway| {
            let running = Running {
                gateway,
                ..Running::default()
            };
            service_port(("a", listen), &listeners::all(), &running).level
        };
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
        let told = |running: &Running| {
            let finding = slot_ports(&service, &[on("0.0.0.0"), on("::")], running);
            finding.meaning.matches("8001 by").count()
        };
        let mut running = Running::default();
        assert_eq!(told(&running), 1);
        running.slots.push(SlotRow {
            port: 8001,
            address: "172.17.0.2:8080".to_owned(),
            ..SlotRow::default()
        });
        assert_eq!(told(&running), 1, "nothing of a container listens there");
        running.slots[0].address = "127.0.0.1:8001".to_owned();
        assert_eq!(told(&running), 0, "its own");
    }

    #[test]
    fn a_port_that_is_served_is_not_called_free() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let listen = Listen {
            address: None,
            port,
        };
        let mut running = Running::default();
        let meaning = |running: &Running| service_port(("a", listen), &[], running).meaning;
        assert!(meaning(&running).ends_with("is free"));
        running.services.push(ServiceRow {
            service: "a".to_owned(),
            listen: port.to_string(),
            ..ServiceRow::default()
        });
        assert!(meaning(&running).ends_with("is balanced by the controller that runs"));
    }
}
