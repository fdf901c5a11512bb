//! Raw to checked: every value in range, nothing that contradicts something else. All problems go
//! to the sink; the result counts only if the sink stays empty.

mod files;
mod http;
mod overlap;
mod policy;
mod service;
mod value;

use std::{net::SocketAddr, path::PathBuf};

use orch_common::layout::{MAX_SERVICES, MIN_FLOWS};

use super::{
    Config, DataplaneConfig, Delivery, Interfaces, Local, Mode, ServiceConfig,
    problem::{At, Sink},
    raw::{RawConfig, RawDataplane, RawService},
};
pub(crate) use files::check as files;

/// Longest name of a network interface (`IFNAMSIZ` less its end).
const INTERFACE_BYTES: usize = 15;
/// Most flows: at some 200 bytes each, beyond this it is gigabytes of kernel memory.
const MAX_FLOWS: i64 = 1 << 24;

/// Checks a configuration.
pub(crate) fn check(raw: &RawConfig, sink: &Sink) -> Config {
    let status = status(&raw.status, sink);
    let services: Vec<_> = raw
        .services
        .iter()
        .map(|service| service::check(service, sink))
        .collect();
    if raw.services.is_empty() && sink.is_empty() {
        sink.add(
            None,
            "service",
            "there is none: write at least one [[service]]",
        );
    }
    if let Some(extra) = raw.services.get(MAX_SERVICES) {
        let count = raw.services.len();
        let text = format!("{count} services are too many: {MAX_SERVICES} fit in one data plane");
        sink.at(&extra.name, text);
    }
    overlap::check(&raw.services, &services, status, sink);
    let dataplane = dataplane(&raw.dataplane, sink);
    match dataplane.delivery {
        Delivery::Direct => all_direct(&raw.dataplane, &services, sink),
        Delivery::Port => no_spares(&raw.services, &services, sink),
        Delivery::Auto => {}
    }
    Config {
        state_dir: value::path(&raw.state_dir, sink),
        control: control(&raw.control, &services, sink),
        status,
        token_file: token_file(&raw.token_file, status, sink),
        dataplane,
        services,
    }
}

fn control(raw: &At<String>, services: &[ServiceConfig], sink: &Sink) -> PathBuf {
    let http = services.iter().any(|service| service.mode == Mode::Http);
    // `sockaddr_un` holds 108 bytes, the last of them zero; the gateway's socket is named after it.
    let most = if http { 104 } else { 107 };
    if raw.value.len() > most {
        let text = format!("is too long for a unix socket: {most} bytes at the most");
        sink.at(raw, text);
    }
    value::path(raw, sink)
}

fn status(raw: &At<String>, sink: &Sink) -> Option<SocketAddr> {
    if raw.value.is_empty() {
        return None;
    }
    let parsed = raw.value.parse::<SocketAddr>().ok();
    if parsed.is_none_or(|address| address.port() == 0) {
        sink.at(
            raw,
            format!(
                "{:?} is not an address with a port: write \"127.0.0.1:9180\", or \"\" to turn it off",
                raw.value
            ),
        );
    }
    parsed
}

fn token_file(raw: &At<String>, status: Option<SocketAddr>, sink: &Sink) -> Option<PathBuf> {
    if raw.value.is_empty() {
        return None;
    }
    if status.is_none() && sink.is_empty() {
        sink.at(
            raw,
            "is of no use with status = \"\": there is nowhere to show the token",
        );
    }
    Some(value::path(raw, sink))
}

fn dataplane(raw: &RawDataplane, sink: &Sink) -> DataplaneConfig {
    let flows = raw.flows.value;
    if flows < MIN_FLOWS as i64 || flows > MAX_FLOWS {
        let text = format!("must be from {MIN_FLOWS} to {MAX_FLOWS}, not {flows}");
        sink.at(&raw.flows, text);
    }
    let local = [
        ("auto", Local::Auto),
        ("connect", Local::Connect),
        ("off", Local::Off),
    ];
    let delivery = [
        ("auto", Delivery::Auto),
        ("direct", Delivery::Direct),
        ("port", Delivery::Port),
    ];
    let relay = [("auto", true), ("off", false)];
    DataplaneConfig {
        interfaces: interfaces(&raw.interfaces, sink),
        local: value::choice(&raw.local, &local, &["packet"], Local::Auto, sink),
        delivery: value::choice(&raw.delivery, &delivery, &[], Delivery::Auto, sink),
        relay: value::choice(&raw.relay, &relay, &[], true, sink),
        flows: u32::try_from(flows).unwrap_or_default(),
        pin_dir: value::path(&raw.pin_dir, sink),
    }
}

/// `direct` is a demand that nothing on this host can meet for a process.
fn all_direct(raw: &RawDataplane, services: &[ServiceConfig], sink: &Sink) {
    let process = |service: &&ServiceConfig| service.backend.is_process();
    if let Some(service) = services.iter().find(process) {
        let name = &service.name;
        let text = format!(
            "\"direct\" is for containers, and service {name} runs processes: write \"auto\""
        );
        sink.at(&raw.delivery, text);
    }
}

/// A container that is reached by port cannot change its slot.
fn no_spares(raw: &[RawService], services: &[ServiceConfig], sink: &Sink) {
    for (raw, service) in raw.iter().zip(services) {
        let spares = &raw.scale.spares;
        if spares.value > 0 && !service.backend.is_process() {
            let text = "spares need direct delivery, and the file says delivery = \"port\"";
            sink.at(spares, text);
        }
    }
}

fn interfaces(raw: &At<Vec<At<String>>>, sink: &Sink) -> Interfaces {
    let names: Vec<_> = raw.value.iter().map(|name| name.value.clone()).collect();
    if names == ["auto"] {
        return Interfaces::Auto;
    }
    for (at, name) in raw.value.iter().enumerate() {
        let text = &name.value;
        let bad = |char: char| char == '/' || char == ':' || char.is_whitespace();
        if text == "auto" {
            sink.at(name, "\"auto\" stands alone, without other names");
        } else if text.is_empty() || text.len() > INTERFACE_BYTES || text.contains(bad) {
            sink.at(name, format!("{text:?} cannot be an interface's name"));
        } else if names[..at].contains(text) {
            sink.at(name, format!("{text} is named twice"));
        }
    }
    Interfaces::Named(names)
}
