//! What the engine is asked to create for an order.

use std::{
    collections::HashMap,
    fs,
    hash::{BuildHasher, RandomState},
    path::Path,
};

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, PortBinding, PortMap, RestartPolicy,
    RestartPolicyNameEnum,
};

use super::labels::Labels;
use crate::runtime::{Order, PublishOn, gate};

/// Logs of a container are bounded: so many files of such a size.
const LOG_FILES: &str = "2";
const LOG_SIZE: &str = "8m";

/// A name for a container, another one each time: the old backend of a slot may still have its.
pub(super) fn name(order: &Order) -> String {
    let suffix = RandomState::new().hash_one(0) as u32;
    let place = match order.slot {
        Some(_) => order.slot_port.to_string(),
        None => "spare".to_owned(),
    };
    format!("orch-{}-{place}-{suffix:08x}", order.service)
}

/// The container of an order.
pub(super) fn of(order: &Order, instance: &str, ipv6: bool) -> ContainerCreateBody {
    let backend = &order.backend;
    let mut env = vec![format!("ORCH_SERVICE={}", order.service)];
    // A spare learns no slot: what is in its environment cannot change.
    env.extend(order.slot.map(|slot| format!("ORCH_SLOT={slot}")));
    env.extend(
        backend
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    );
    ContainerCreateBody {
        image: backend.image.clone(),
        cmd: (!backend.command.is_empty()).then(|| backend.command.clone()),
        env: Some(env),
        exposed_ports: Some(vec![inner_port(order)]),
        labels: Some(Labels::of_order(order).to_map(instance)),
        host_config: Some(host_config(order, ipv6)),
        ..ContainerCreateBody::default()
    }
}

/// The same container behind the gate, a file of this host: that runs first, and is told the words
/// of the program that the container would have run.
pub(super) fn behind(
    gate: &Path,
    words: Vec<String>,
    mut body: ContainerCreateBody,
) -> ContainerCreateBody {
    body.entrypoint = Some(vec![gate::INSIDE.to_owned()]);
    body.cmd = Some([vec!["--".to_owned()], words].concat());
    let host = body.host_config.get_or_insert_default();
    // `z`: where SELinux labels files, containers may read this one.
    let bind = format!("{}:{}:ro,z", gate.display(), gate::INSIDE);
    host.binds.get_or_insert_default().push(bind);
    body
}

fn host_config(order: &Order, ipv6: bool) -> HostConfig {
    let backend = &order.backend;
    let binds = backend
        .volumes
        .iter()
        .map(|volume| format!("{}:{}", volume.source, volume.target));
    let memory = i64::try_from(backend.memory)
        .ok()
        .filter(|memory| *memory > 0);
    HostConfig {
        binds: Some(binds.collect()),
        memory,
        // Swap would soften the limit: none beyond it.
        memory_swap: memory,
        nano_cpus: (backend.cpus > 0.0).then(|| (backend.cpus * 1e9).round() as i64),
        port_bindings: port_bindings(order, ipv6),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_SIZE.to_owned()),
                ("max-file".to_owned(), LOG_FILES.to_owned()),
            ])),
        }),
        ..HostConfig::default()
    }
}

fn inner_port(order: &Order) -> String {
    format!("{}/tcp", order.backend.port)
}

/// An empty address is every address of both families.
fn port_bindings(order: &Order, ipv6: bool) -> Option<PortMap> {
    let addresses: &[&str] = match (order.publish, ipv6) {
        (PublishOn::Nowhere, _) => return None,
        (PublishOn::All, _) => &[""],
        (PublishOn::Localhost, true) => &["127.0.0.1", "::1"],
        (PublishOn::Localhost, false) => &["127.0.0.1"],
    };
    let binding = |address: &&str| PortBinding {
        host_ip: Some((*address).to_owned()),
        host_port: Some(order.slot_port.to_string()),
    };
    let bindings = addresses.iter().map(binding).collect();
    Some([(inner_port(order), Some(bindings))].into())
}

/// Whether the host has the address `::1`.
pub(super) fn host_has_ipv6() -> bool {
    fs::read_to_string("/proc/net/if_inet6").is_ok_and(|addresses| {
        addresses
            .lines()
            .any(|line| line.starts_with("00000000000000000000000000000001"))
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc, time::Duration};

    use super::*;
    use crate::config::{BackendConfig, RuntimeChoice, Volume};

    fn order(publish: PublishOn) -> Order {
        let backend = BackendConfig {
            runtime: RuntimeChoice::Docker,
            image: Some("acts:demo".to_owned()),
            command: vec!["/acts".to_owned(), "-v".to_owned()],
            port: 8080,
            env: BTreeMap::from([("KEY".to_owned(), "a=b".to_owned())]),
            volumes: vec![Volume {
                source: "data".to_owned(),
                target: "/data".to_owned(),
            }],
            memory: 128 << 20,
            cpus: 0.5,
            drain_limit: Duration::ZERO,
            stop_grace: Duration::ZERO,
        };
        Order {
            service: "acts".to_owned(),
            slot: Some(1),
            slot_port: 8001,
            gated: false,
            backend: Arc::new(backend),
            direct: publish == PublishOn::Nowhere,
            publish,
            spec: "abc".to_owned(),
        }
    }

    fn host_addresses(publish: PublishOn, ipv6: bool) -> Vec<String> {
        let host = host_config(&order(publish), ipv6);
        let mut ports = host.port_bindings.unwrap();
        let bindings = ports.remove("8080/tcp").unwrap().unwrap();
        assert!(
            bindings
                .iter()
                .all(|b| b.host_port.as_deref() == Some("8001"))
        );
        bindings.into_iter().filter_map(|b| b.host_ip).collect()
    }

    #[test]
    fn an_order_as_a_container() {
        let body = of(&order(PublishOn::All), "/pins", true);
        assert_eq!(body.image.as_deref(), Some("acts:demo"));
        assert_eq!(body.cmd.unwrap(), ["/acts", "-v"]);
        assert_eq!(
            body.env.unwrap(),
            ["ORCH_SERVICE=acts", "ORCH_SLOT=1", "KEY=a=b"]
        );
        assert_eq!(body.exposed_ports.unwrap(), ["8080/tcp"]);
        assert_eq!(body.labels.unwrap()["orch.instance"], "/pins");
        let host = body.host_config.unwrap();
        assert_eq!(host.binds.unwrap(), ["data:/data"]);
        assert_eq!(
            (host.memory, host.nano_cpus),
            (Some(128 << 20), Some(500_000_000))
        );
        let policy = host.restart_policy.unwrap();
        assert_eq!(policy.name, Some(RestartPolicyNameEnum::NO));
    }

    #[test]
    fn where_the_port_is_published() {
        assert_eq!(host_addresses(PublishOn::All, true), [""]);
        assert_eq!(
            host_addresses(PublishOn::Localhost, true),
            ["127.0.0.1", "::1"]
        );
        assert_eq!(host_addresses(PublishOn::Localhost, false), ["127.0.0.1"]);
        let nowhere = host_config(&order(PublishOn::Nowhere), true);
        assert_eq!(nowhere.port_bindings, None);
    }

    #[test]
    fn names_differ() {
        let order = order(PublishOn::All);
        let name = name(&order);
        assert!(name.starts_with("orch-acts-8001-"));
        assert_ne!(name, super::name(&order));
        let spare = Order {
            slot: None,
            ..order
        };
        assert!(super::name(&spare).starts_with("orch-acts-spare-"));
    }

    #[test]
    fn a_gate_is_told_the_program_and_changes_nothing_else() {
        let plain = of(&order(PublishOn::Nowhere), "/pins", true);
        let words = vec!["/entry".to_owned(), "/acts".to_owned()];
        let gated = behind(Path::new("/state/gate"), words.clone(), plain.clone());
        assert_eq!(gated.entrypoint, Some(vec!["/.orch-gate".to_owned()]));
        assert_eq!(gated.cmd.as_deref().unwrap()[1..], words);
        let mut host = gated.host_config.clone().unwrap();
        let binds = host.binds.as_mut().unwrap();
        assert_eq!(binds.pop().unwrap(), "/state/gate:/.orch-gate:ro,z");
        let back = ContainerCreateBody {
            entrypoint: None,
            cmd: plain.cmd.clone(),
            host_config: Some(host),
            ..gated
        };
        assert_eq!(back, plain);
    }

    #[test]
    fn no_limits_and_the_image_s_command() {
        let mut order = order(PublishOn::All);
        let mut backend = (*order.backend).clone();
        (backend.memory, backend.cpus) = (0, 0.0);
        backend.command.clear();
        order.backend = Arc::new(backend);
        let body = of(&order, "/pins", true);
        assert_eq!(body.cmd, None);
        let host = body.host_config.unwrap();
        assert_eq!(
            (host.memory, host.memory_swap, host.nano_cpus),
            (None, None, None)
        );
    }
}
