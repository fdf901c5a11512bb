//! Configurations for tests.

use std::{path::PathBuf, time::Duration};

use orch::config::{
    BackendConfig, Balance, CountConfig, DataplaneConfig, Delivery, HealthConfig, Interfaces,
    Listen, Local, Publish, RuntimeChoice, ScaleConfig, ServiceConfig, SpareKind,
};

/// A service on port 80 with slots from 8000 on, of which nothing is started.
pub fn service() -> ServiceConfig {
    ServiceConfig {
        name: "web".to_owned(),
        listen: Listen {
            address: None,
            port: 80,
        },
        mode: orch::config::Mode::Tcp,
        http: http(),
        start_port: 8000,
        publish: Publish::None,
        balance: Balance::RoundRobin,
        weights: Vec::new(),
        expose_slots: false,
        hold: Duration::from_secs(30),
        hold_limit: 1024,
        slow_start: std::time::Duration::ZERO,
        backend: BackendConfig {
            runtime: RuntimeChoice::Process,
            image: None,
            command: vec!["true".to_owned()],
            port: 8080,
            env: std::collections::BTreeMap::new(),
            volumes: Vec::new(),
            memory: 0,
            cpus: 0.0,
            drain_limit: Duration::from_secs(30),
            stop_grace: Duration::from_secs(10),
        },
        health: HealthConfig {
            path: "/".to_owned(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(900),
            unhealthy_after: 2,
            start_limit: Duration::from_secs(30),
        },
        count: CountConfig {
            prefix: "/api/".to_owned(),
            exclude: vec!["/api/_health".to_owned()],
        },
        scale: ScaleConfig {
            policy: orch::scale::Policy::Step,
            max_surge: 0,
            interval: Duration::from_mins(2),
            requests_per_replica: 20,
            min: 1,
            max: 10,
            spares: 0,
            spare_kind: SpareKind::Gated,
            idle: Duration::ZERO,
        },
    }
}

/// A data plane with pins of its own.
pub fn dataplane(name: &str, local: Local) -> DataplaneConfig {
    crate::leftovers::once();
    DataplaneConfig {
        interfaces: Interfaces::Auto,
        local,
        delivery: Delivery::Auto,
        relay: true,
        flows: 65_536,
        pin_dir: PathBuf::from(format!("/sys/fs/bpf/orch-{name}-{}", std::process::id())),
    }
}

/// Mode http with its defaults.
pub fn http() -> orch::config::HttpConfig {
    let least = "[[service]]\nbackend.image = \"acts:demo\"\n";
    let config = orch::config::parse("least", least).unwrap();
    config.services[0].http.clone()
}
