//! Checks of one service.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use orch_common::{
    layout::SLOTS_PER_SERVICE,
    service::{Balance, PATH_BYTES},
};

use super::{http, policy, value};
use crate::config::{
    BackendConfig, CountConfig, HealthConfig, Listen, Mode, Publish, RuntimeChoice, ScaleConfig,
    ServiceConfig, SpareKind, Volume,
    problem::{At, Sink},
    raw::{RawBackend, RawCount, RawHealth, RawScale, RawService},
};

/// Bytes of a path that a rule can hold; the kernel reads the method's end with the path.
const RULE_BYTES: usize = PATH_BYTES - 4;
/// Longest name of a service: it becomes part of container names.
const NAME_BYTES: usize = 40;
/// Greatest weight of a slot: more would leave the others hardly a turn.
const MOST_WEIGHT: i64 = 100;
/// Longest path of a probe.
const PROBE_BYTES: usize = 1024;
/// Most processors that a copy may be limited to: more is a slip of the pen.
const MOST_CPUS: f64 = 4096.0;
/// Smallest limit of processors that Docker takes.
const LEAST_CPUS: f64 = 0.01;
/// Smallest limit of memory that Docker takes: 6 MiB.
const LEAST_MEMORY: u64 = 6 << 20;
/// Most connections of a service that may wait: the controller keeps a copy of each SYN.
const MOST_HELD: i64 = 16_384;

pub(super) fn check(raw: &RawService, sink: &Sink) -> ServiceConfig {
    let publish = [
        ("none", Publish::None),
        ("localhost", Publish::Localhost),
        ("all", Publish::All),
    ];
    let modes = [("tcp", Mode::Tcp), ("http", Mode::Http)];
    let balance = [
        ("round_robin", Balance::RoundRobin),
        ("least_connections", Balance::LeastConnections),
        ("source_ip", Balance::SourceIp),
    ];
    let service = ServiceConfig {
        balance: value::choice(&raw.balance, &balance, &[], Balance::RoundRobin, sink),
        weights: weights(raw, sink),
        slow_start: value::duration(&raw.slow_start, sink).unwrap_or_default(),
        name: name(&raw.name, sink),
        listen: listen(&raw.listen, sink),
        mode: value::choice(&raw.mode, &modes, &[], Mode::Tcp, sink),
        http: http::check(&raw.http, &raw.count, sink),
        start_port: value::number(&raw.start_port, 1, 65535, sink),
        publish: value::choice(&raw.publish, &publish, &[], Publish::None, sink),
        expose_slots: raw.expose_slots.value,
        hold: value::duration(&raw.hold, sink).unwrap_or_default(),
        hold_limit: value::number(&raw.hold_limit, 1, MOST_HELD, sink),
        backend: backend(&raw.backend, sink),
        health: health(&raw.health, sink),
        count: count(&raw.count, sink),
        scale: scale(&raw.scale, sink),
    };
    if service.mode == Mode::Http && service.balance != Balance::RoundRobin {
        let text = "mode \"http\" gives each request to the next slot: leave it at \"round_robin\"";
        sink.at(&raw.balance, text);
    }
    if service.mode == Mode::Http && !service.weights.is_empty() {
        let text = "mode \"http\" gives each request to the next slot: leave it empty";
        sink.at(&raw.weights, text);
    }
    if !service.slow_start.is_zero() {
        can_start_slowly(raw, &service, sink);
    }
    if service.scale.spares > 0 {
        can_have_spares(raw, &service, sink);
    }
    can_sleep(raw, &service, sink);
    service
}

/// Weights by slot. More of them than there can be slots is a mistake.
fn weights(raw: &RawService, sink: &Sink) -> Vec<u8> {
    let given = &raw.weights.value;
    let slots = raw.scale.max.value;
    if i64::try_from(given.len()).is_ok_and(|len| len > slots) {
        let text = format!(
            "has {} weights, and the service has {slots} slots at the most (scale.max)",
            given.len()
        );
        sink.at(&raw.weights, text);
    }
    let weight = |raw| value::number(raw, 1, MOST_WEIGHT, sink);
    given.iter().map(weight).collect()
}

/// Shares that change from second to second need a choice that knows shares, and forgets them.
fn can_start_slowly(raw: &RawService, service: &ServiceConfig, sink: &Sink) {
    if service.mode == Mode::Http {
        let text = "mode \"http\" gives each request to the next slot: leave it at \"0s\"";
        sink.at(&raw.slow_start, text);
    } else if service.balance == Balance::SourceIp {
        let text = "balance \"source_ip\" would send clients from one slot to another as shares change: leave it at \"0s\"";
        sink.at(&raw.slow_start, text);
    }
}

/// A spare goes into whichever slot needs it, so it can have no port of this host before.
fn can_have_spares(raw: &RawService, service: &ServiceConfig, sink: &Sink) {
    if service.backend.is_process() {
        if service.scale.spare_kind != SpareKind::Gated {
            let text = "a process listens on its slot's port as soon as it runs, so a spare can only wait to begin: write \"gated\"";
            sink.at(&raw.scale.spare_kind, text);
        }
    } else if service.publish != Publish::None {
        let text = "spares need publish = \"none\": Docker cannot publish a slot's port for a container that has no slot yet";
        sink.at(&raw.scale.spares, text);
    }
}

fn name(raw: &At<String>, sink: &Sink) -> String {
    let name = &raw.value;
    let fits = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
    let starts_well = name.starts_with(|char: char| char.is_ascii_alphanumeric());
    if !starts_well || !name.chars().all(fits) {
        let text = format!(
            "{name:?} cannot be a name: letters, digits, '-' and '_', a letter or digit first"
        );
        sink.at(raw, text);
    } else if name.len() > NAME_BYTES {
        sink.at(raw, format!("is longer than {NAME_BYTES} characters"));
    }
    name.clone()
}

fn listen(raw: &At<String>, sink: &Sink) -> Listen {
    parse_listen(&raw.value).unwrap_or_else(|| {
        let text = format!(
            "{:?} is not a listening address: write \"80\", \"10.0.0.1:80\" or \"[::]:80\"",
            raw.value
        );
        sink.at(raw, text);
        Listen {
            address: None,
            port: 0,
        }
    })
}

pub(super) fn parse_listen(text: &str) -> Option<Listen> {
    let (address, port) = match text.rsplit_once(':') {
        None => (None, text),
        Some((address, port)) => {
            let bare = match address.strip_prefix('[') {
                Some(rest) => rest.strip_suffix(']').filter(|rest| rest.contains(':'))?,
                None if address.contains(':') => return None,
                None => address,
            };
            let address = bare.parse().ok().filter(|address| !is_of_many(*address))?;
            (Some(address), port)
        }
    };
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    Some(Listen { address, port })
}

/// Whether an address is one of many hosts at once: no connection can go to it (RFC 9293, 3.9.2.3).
fn is_of_many(address: IpAddr) -> bool {
    address.is_multicast() || address == Ipv4Addr::BROADCAST
}

fn backend(raw: &RawBackend, sink: &Sink) -> BackendConfig {
    let runtimes = [
        ("auto", RuntimeChoice::Auto),
        ("docker", RuntimeChoice::Docker),
        ("process", RuntimeChoice::Process),
    ];
    let auto = RuntimeChoice::Auto;
    let runtime = value::choice(&raw.runtime, &runtimes, &["vm"], auto, sink);
    what_runs(raw, runtime, sink);
    let memory = limits(raw, runtime, sink);
    for (key, text) in &raw.env.value {
        if key.is_empty() || key.contains(['=', '\0']) {
            sink.at(&raw.env, format!("{key:?} cannot be a variable's name"));
        }
        if text.contains('\0') {
            sink.at(
                &raw.env,
                format!("{key:?} cannot have a zero byte in its text"),
            );
        }
    }
    for word in &raw.command.value {
        if word.value.contains('\0') {
            sink.at(word, "no argument can have a zero byte");
        }
    }
    BackendConfig {
        runtime,
        image: Some(raw.image.value.clone()).filter(|image| !image.is_empty()),
        command: raw
            .command
            .value
            .iter()
            .map(|arg| arg.value.clone())
            .collect(),
        port: value::number(&raw.port, 1, 65535, sink),
        env: raw.env.value.clone(),
        volumes: volumes(&raw.volumes.value, sink),
        memory,
        cpus: raw.cpus.value,
        drain_limit: value::duration(&raw.drain_limit, sink).unwrap_or_default(),
        stop_grace: value::duration(&raw.stop_grace, sink).unwrap_or_default(),
    }
}

/// The limit of memory in bytes, 0 for none; and whether that of processors can be kept.
fn limits(raw: &RawBackend, runtime: RuntimeChoice, sink: &Sink) -> u64 {
    let containers = !matches!(runtime, RuntimeChoice::Process) && !raw.image.value.is_empty();
    let cpus = raw.cpus.value;
    if !(0.0..=MOST_CPUS).contains(&cpus) {
        let text = format!("must be from 0.0 (no limit) to {MOST_CPUS:.1}");
        sink.at(&raw.cpus, text);
    } else if containers && cpus > 0.0 && cpus < LEAST_CPUS {
        let text =
            format!("is less than Docker takes: write {LEAST_CPUS} or more, or 0.0 for no limit");
        sink.at(&raw.cpus, text);
    }
    let memory = value::size(&raw.memory, sink);
    if containers && (1..LEAST_MEMORY).contains(&memory) {
        sink.at(
            &raw.memory,
            "is less than Docker takes: write \"6MiB\" or more, or \"\" for no limit",
        );
    }
    memory
}

/// An image for containers, a program for processes.
fn what_runs(raw: &RawBackend, runtime: RuntimeChoice, sink: &Sink) {
    let (image, command) = (&raw.image, &raw.command);
    match runtime {
        RuntimeChoice::Auto if image.value.is_empty() && command.value.is_empty() => {
            let text = "nothing to run: set image (docker) or command (process)";
            sink.at(&raw.place, text);
        }
        RuntimeChoice::Docker if image.value.is_empty() => {
            sink.at(image, "runtime = \"docker\" needs an image");
        }
        RuntimeChoice::Process if command.value.is_empty() => {
            sink.at(command, "runtime = \"process\" needs a command");
        }
        _ => {}
    }
    if image.value.contains(char::is_whitespace) {
        let text = format!("{:?} cannot be an image's name", image.value);
        sink.at(image, text);
    }
    if let Some(first) = command.value.first().filter(|first| first.value.is_empty()) {
        sink.at(first, "the program's name is empty");
    }
}

fn volumes(raw: &[At<String>], sink: &Sink) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = Vec::new();
    for volume in raw {
        let parts = volume.value.split_once(':');
        let parts = parts.filter(|(source, target)| !source.is_empty() && target.starts_with('/'));
        let Some((source, target)) = parts.filter(|(_, target)| !target.contains(':')) else {
            let text = format!("{:?} is not a volume: write \"name:/path\"", volume.value);
            sink.at(volume, text);
            continue;
        };
        if source.contains('/') && !source.starts_with('/') {
            let text = format!("{source:?} must be a name without '/', or an absolute path");
            sink.at(volume, text);
        }
        if volumes.iter().any(|other| other.target == target) {
            sink.at(volume, format!("{target} has a volume already"));
        }
        volumes.push(Volume {
            source: source.to_owned(),
            target: target.to_owned(),
        });
    }
    volumes
}

fn health(raw: &RawHealth, sink: &Sink) -> HealthConfig {
    let interval = value::positive_duration(&raw.interval, sink);
    let timeout = value::positive_duration(&raw.timeout, sink);
    if let (Some(interval), Some(timeout)) = (interval, timeout)
        && timeout >= interval
    {
        let text = format!(
            "{} must be shorter than the interval, which is {}",
            raw.timeout.value, raw.interval.value
        );
        sink.at(blame(&raw.timeout, &raw.interval), text);
    }
    HealthConfig {
        path: value::url_path(&raw.path, PROBE_BYTES, sink),
        interval: interval.unwrap_or_default(),
        timeout: timeout.unwrap_or_default(),
        unhealthy_after: value::number(&raw.unhealthy_after, 1, 1000, sink),
        start_limit: value::positive_duration(&raw.start_limit, sink).unwrap_or_default(),
    }
}

/// Of two values that contradict each other, the one that somebody wrote.
fn blame<'a, T>(first: &'a At<T>, second: &'a At<T>) -> &'a At<T> {
    if first.line.is_some() { first } else { second }
}

fn count(raw: &RawCount, sink: &Sink) -> CountConfig {
    let exclude = raw.exclude.value.iter();
    CountConfig {
        prefix: value::url_path(&raw.prefix, RULE_BYTES, sink),
        exclude: exclude
            .map(|path| value::url_path(path, RULE_BYTES, sink))
            .collect(),
    }
}

fn scale(raw: &RawScale, sink: &Sink) -> ScaleConfig {
    let kinds = [
        ("running", SpareKind::Running),
        ("frozen", SpareKind::Frozen),
        ("gated", SpareKind::Gated),
    ];
    let spare_kind = value::choice(&raw.spare_kind, &kinds, &[], SpareKind::Gated, sink);
    let idle = idle(raw, sink);
    let most = SLOTS_PER_SERVICE as i64;
    let (min, max) = (raw.min.value, raw.max.value);
    if min >= 1 && (1..=most).contains(&max) && min > max {
        let place = blame(&raw.min, &raw.max);
        sink.at(place, format!("min = {min} is above max = {max}"));
    }
    ScaleConfig {
        policy: policy::check(raw, sink),
        max_surge: value::number(&raw.max_surge, 0, most, sink),
        interval: value::positive_duration(&raw.interval, sink).unwrap_or_default(),
        requests_per_replica: value::number(&raw.requests_per_replica, 1, i64::MAX, sink),
        min: value::number(&raw.min, 0, most, sink),
        max: value::number(&raw.max, 1, most, sink),
        spares: value::number(&raw.spares, 0, most, sink),
        spare_kind,
        idle,
    }
}

/// How long a service without a request keeps its copies.
fn idle(raw: &RawScale, sink: &Sink) -> Duration {
    let idle = value::duration(&raw.idle, sink).unwrap_or_default();
    if !idle.is_zero() && raw.min.value > 0 {
        let text = "is for services that may have no copy: write min = 0 as well, or idle = \"0s\"";
        sink.at(&raw.idle, text);
    }
    idle
}

/// Whoever scales to zero needs connections to wait: nothing else starts a copy.
fn can_sleep(raw: &RawService, service: &ServiceConfig, sink: &Sink) {
    if service.scale.min == 0 && service.hold.is_zero() {
        let text = "with min = 0 a copy starts when somebody connects and waits: give hold a time, as \"30s\"";
        sink.at(&raw.hold, text);
    }
}
