//! Checks between services: names, listening addresses and slot ports must not meet.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use crate::config::{Listen, Mode, ServiceConfig, problem::Sink, raw::RawService};

pub(super) fn check(
    raw: &[RawService],
    services: &[ServiceConfig],
    status: Option<SocketAddr>,
    sink: &Sink,
) {
    for (at, (raw_service, service)) in raw.iter().zip(services).enumerate() {
        let earlier = || services[..at].iter();
        if earlier().any(|other| other.name == service.name) {
            let text = format!("{:?} is the name of an earlier service", service.name);
            sink.at(&raw_service.name, text);
        }
        if let Some(other) = earlier().find(|other| meet(other.listen, service.listen)) {
            let text = format!(
                "{} is where service {} listens already",
                raw_service.listen.value, other.name
            );
            sink.at(&raw_service.listen, text);
        }
        if status.is_some_and(|status| status.port() == service.listen.port) {
            let text = format!("port {} is the status address's", service.listen.port);
            sink.at(&raw_service.listen, text);
        }
        slots(raw_service, service, at, services, status, sink);
        tls(raw_service, service, at, services, status, sink);
    }
}

fn slots(
    raw: &RawService,
    service: &ServiceConfig,
    at: usize,
    services: &[ServiceConfig],
    status: Option<SocketAddr>,
    sink: &Sink,
) {
    let Some(ports) = slot_ports(service) else {
        return;
    };
    let (first, last) = (ports.start(), ports.end());
    if *last > u32::from(u16::MAX) {
        let text = format!("slot ports {first} to {last} go past 65535");
        sink.at(&raw.start_port, text);
    }
    for other in services {
        if ports.contains(&u32::from(other.listen.port)) {
            let text = format!(
                "slot ports {first} to {last} contain {}, where service {} listens",
                other.listen.port, other.name
            );
            sink.at(&raw.start_port, text);
        }
    }
    for other in &services[..at] {
        let Some(theirs) = slot_ports(other) else {
            continue;
        };
        if ports.start() <= theirs.end() && theirs.start() <= ports.end() {
            let text = format!(
                "slot ports {first} to {last} overlap those of service {}, {} to {}",
                other.name,
                theirs.start(),
                theirs.end()
            );
            sink.at(&raw.start_port, text);
        }
    }
    if status.is_some_and(|status| ports.contains(&u32::from(status.port()))) {
        let text = format!("slot ports {first} to {last} contain the status address's port");
        sink.at(&raw.start_port, text);
    }
}

/// The port of TLS is one of its own.
fn tls(
    raw: &RawService,
    service: &ServiceConfig,
    at: usize,
    services: &[ServiceConfig],
    status: Option<SocketAddr>,
    sink: &Sink,
) {
    let Some(listen) = service.http.tls.as_ref().map(|tls| tls.listen) else {
        return;
    };
    let raw = &raw.http.tls.listen;
    let port = listen.port;
    if service.mode == Mode::Tcp {
        sink.at(
            raw,
            "TLS is for mode = \"http\": what mode tcp carries is left as it is",
        );
    }
    for (index, other) in services.iter().enumerate() {
        let theirs = other.http.tls.as_ref().filter(|_| index < at);
        let taken =
            meet(listen, other.listen) || theirs.is_some_and(|tls| meet(listen, tls.listen));
        let in_slots = slot_ports(other).is_some_and(|ports| ports.contains(&u32::from(port)));
        if taken || in_slots {
            let name = &other.name;
            let text =
                format!("port {port} is taken by service {name}: it listens or has a slot there");
            sink.at(raw, text);
        }
    }
    if status.is_some_and(|status| status.port() == port) {
        sink.at(raw, format!("port {port} is the status address's"));
    }
}

/// `None` where a problem was reported before.
fn slot_ports(service: &ServiceConfig) -> Option<RangeInclusive<u32>> {
    if service.start_port == 0 || service.scale.max == 0 {
        return None;
    }
    let first = u32::from(service.start_port);
    Some(first..=first + u32::from(service.scale.max) - 1)
}

/// Whether one connection could be for both.
fn meet(one: Listen, other: Listen) -> bool {
    if one.port != other.port || one.port == 0 {
        return false;
    }
    let (Some(one), Some(other)) = (one.address, other.address) else {
        return true;
    };
    let same_family = matches!(one, IpAddr::V4(_)) == matches!(other, IpAddr::V4(_));
    one == other || same_family && (one.is_unspecified() || other.is_unspecified())
}
