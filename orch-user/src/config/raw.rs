//! What the user typed, with defaults where nothing was typed. The one list of keys, types and
//! defaults; whether the values make sense is decided in `check`.

use std::collections::BTreeMap;

use toml::de::DeTable;

use super::{
    http::RawHttp,
    problem::{At, Sink},
    section::{Reader, Section},
};

pub(crate) struct RawConfig {
    pub(crate) state_dir: At<String>,
    pub(crate) control: At<String>,
    pub(crate) status: At<String>,
    pub(crate) token_file: At<String>,
    pub(crate) dataplane: RawDataplane,
    pub(crate) services: Vec<RawService>,
}

pub(crate) struct RawDataplane {
    pub(crate) interfaces: At<Vec<At<String>>>,
    pub(crate) local: At<String>,
    pub(crate) delivery: At<String>,
    pub(crate) relay: At<String>,
    pub(crate) flows: At<i64>,
    pub(crate) pin_dir: At<String>,
}

pub(crate) struct RawService {
    pub(crate) name: At<String>,
    pub(crate) listen: At<String>,
    pub(crate) mode: At<String>,
    pub(crate) balance: At<String>,
    pub(crate) weights: At<Vec<At<i64>>>,
    pub(crate) slow_start: At<String>,
    pub(crate) start_port: At<i64>,
    pub(crate) publish: At<String>,
    pub(crate) expose_slots: At<bool>,
    pub(crate) hold: At<String>,
    pub(crate) hold_limit: At<i64>,
    pub(crate) backend: RawBackend,
    pub(crate) health: RawHealth,
    pub(crate) count: RawCount,
    pub(crate) http: RawHttp,
    pub(crate) scale: RawScale,
}

pub(crate) struct RawBackend {
    /// For problems of the section as a whole.
    pub(crate) place: At<()>,
    pub(crate) runtime: At<String>,
    pub(crate) image: At<String>,
    pub(crate) command: At<Vec<At<String>>>,
    pub(crate) port: At<i64>,
    pub(crate) env: At<BTreeMap<String, String>>,
    pub(crate) volumes: At<Vec<At<String>>>,
    pub(crate) memory: At<String>,
    pub(crate) cpus: At<f64>,
    pub(crate) drain_limit: At<String>,
    pub(crate) stop_grace: At<String>,
}

pub(crate) struct RawHealth {
    pub(crate) path: At<String>,
    pub(crate) interval: At<String>,
    pub(crate) timeout: At<String>,
    pub(crate) unhealthy_after: At<i64>,
    pub(crate) start_limit: At<String>,
}

pub(crate) struct RawCount {
    pub(crate) prefix: At<String>,
    pub(crate) exclude: At<Vec<At<String>>>,
}

pub(crate) struct RawScale {
    pub(crate) policy: At<String>,
    pub(crate) interval: At<String>,
    pub(crate) requests_per_replica: At<i64>,
    pub(crate) min: At<i64>,
    pub(crate) max: At<i64>,
    pub(crate) spares: At<i64>,
    pub(crate) spare_kind: At<String>,
    pub(crate) idle: At<String>,
    pub(crate) max_surge: At<i64>,
    pub(crate) target: At<f64>,
    pub(crate) tolerance: At<f64>,
    pub(crate) sync: At<String>,
    pub(crate) stabilisation: At<String>,
    pub(crate) concurrency: At<f64>,
    pub(crate) window: At<String>,
    pub(crate) program: At<Vec<At<String>>>,
    pub(crate) program_interval: At<String>,
    pub(crate) program_timeout: At<String>,
    pub(crate) schedule: At<Vec<At<String>>>,
}

impl RawConfig {
    /// Reads a file. Whatever is wrong with it goes to the sink; reading goes on.
    pub(crate) fn parse(text: &str, sink: &Sink) -> Self {
        Self::parse_with_keys(text, sink).0
    }

    /// The same, and the paths of all keys there are.
    pub(crate) fn parse_with_keys(text: &str, sink: &Sink) -> (Self, Vec<String>) {
        let reader = Reader::new(text, sink);
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let line = error.span().map(|span| reader.line(span.start));
            sink.add(line, "", error.message().to_owned());
        }
        let config = Self::read(Section::root(&reader, table.get_ref()));
        (config, reader.finish())
    }

    /// All defaults, with one service.
    pub(crate) fn with_one_service(sink: &Sink) -> Self {
        let reader = Reader::new("", sink);
        let mut config = Self::read(Section::absent(&reader, ""));
        let service = RawService::read(Section::absent(&reader, "service[0]."));
        config.services.push(service);
        config
    }

    fn read(mut table: Section<'_>) -> Self {
        let config = Self {
            state_dir: table.string("state_dir", super::DEFAULT_STATE_DIR),
            control: table.string("control", super::DEFAULT_CONTROL),
            status: table.string("status", "127.0.0.1:9180"),
            token_file: table.string("token_file", ""),
            dataplane: RawDataplane::read(table.section("dataplane")),
            services: table
                .sections("service")
                .into_iter()
                .map(RawService::read)
                .collect(),
        };
        table.finish();
        config
    }
}

impl RawDataplane {
    fn read(mut table: Section<'_>) -> Self {
        let dataplane = Self {
            interfaces: table.strings("interfaces", &["auto"]),
            local: table.string("local", "auto"),
            delivery: table.string("delivery", "auto"),
            relay: table.string("relay", "auto"),
            flows: table.integer("flows", orch_common::layout::DEFAULT_FLOWS as i64),
            pin_dir: table.string("pin_dir", super::DEFAULT_PIN_DIR),
        };
        table.finish();
        dataplane
    }
}

impl RawService {
    fn read(mut table: Section<'_>) -> Self {
        let service = Self {
            name: table.string("name", "acts"),
            listen: table.string("listen", "80"),
            mode: table.string("mode", "tcp"),
            balance: table.string("balance", "round_robin"),
            weights: table.integers("weights"),
            slow_start: table.string("slow_start", "0s"),
            start_port: table.integer("start_port", 8000),
            publish: table.string("publish", "none"),
            expose_slots: table.boolean("expose_slots", false),
            hold: table.string("hold", "30s"),
            hold_limit: table.integer("hold_limit", 1024),
            backend: RawBackend::read(table.section("backend")),
            health: RawHealth::read(table.section("health")),
            count: RawCount::read(table.section("count")),
            http: RawHttp::read(table.section("http")),
            scale: RawScale::read(table.section("scale")),
        };
        table.finish();
        service
    }
}

impl RawBackend {
    fn read(mut table: Section<'_>) -> Self {
        let backend = Self {
            place: table.place(),
            runtime: table.string("runtime", "auto"),
            image: table.string("image", ""),
            command: table.strings("command", &[]),
            port: table.integer("port", 8080),
            env: table.pairs("env"),
            volumes: table.strings("volumes", &[]),
            memory: table.string("memory", ""),
            cpus: table.float("cpus", 0.0),
            drain_limit: table.string("drain_limit", "30s"),
            stop_grace: table.string("stop_grace", "10s"),
        };
        table.finish();
        backend
    }
}

impl RawHealth {
    fn read(mut table: Section<'_>) -> Self {
        let health = Self {
            path: table.string("path", "/"),
            interval: table.string("interval", "1s"),
            timeout: table.string("timeout", "900ms"),
            unhealthy_after: table.integer("unhealthy_after", 2),
            start_limit: table.string("start_limit", "30s"),
        };
        table.finish();
        health
    }
}

impl RawCount {
    fn read(mut table: Section<'_>) -> Self {
        let count = Self {
            prefix: table.string("prefix", "/"),
            exclude: table.strings("exclude", &[]),
        };
        table.finish();
        count
    }
}

impl RawScale {
    fn read(mut table: Section<'_>) -> Self {
        let scale = Self {
            policy: table.string("policy", "step"),
            interval: table.string("interval", "2m"),
            requests_per_replica: table.integer("requests_per_replica", 20),
            min: table.integer("min", 1),
            max: table.integer("max", 10),
            spares: table.integer("spares", 0),
            spare_kind: table.string("spare_kind", "gated"),
            idle: table.string("idle", "0s"),
            max_surge: table.integer("max_surge", 0),
            target: table.float("target", 0.7),
            tolerance: table.float("tolerance", 0.1),
            sync: table.string("sync", "15s"),
            stabilisation: table.string("stabilisation", "5m"),
            concurrency: table.float("concurrency", 1.0),
            window: table.string("window", "1m"),
            program: table.strings("program", &[]),
            program_interval: table.string("program_interval", "1s"),
            program_timeout: table.string("program_timeout", "900ms"),
            schedule: table.strings("schedule", &[]),
        };
        table.finish();
        scale
    }
}
