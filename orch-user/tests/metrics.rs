//! What `/metrics` exports is what Prometheus reads, by its own rules for names, and what the
//! dashboard asks for.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers, too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use openmetrics_parser::prometheus::parse_prometheus;
use orch::{
    metrics,
    view::{ServiceRow, SlotRow, SlotSignals, Snapshot},
};
use orch_common::{counter::Reason, latency::BUCKETS};
use serde_json::Value;

/// Something of everything.
fn exposition() -> String {
    let row = SlotRow {
        service: "acts".to_owned(),
        state: "ready".to_owned(),
        ..SlotRow::default()
    };
    let signals = SlotSignals {
        service: "acts".to_owned(),
        buckets: vec![1; BUCKETS],
        sum_s: 1.5,
        ..SlotSignals::default()
    };
    let service = ServiceRow {
        service: "acts".to_owned(),
        ..ServiceRow::default()
    };
    let reasons = Reason::ALL.iter().map(|reason| reason.name().to_owned());
    metrics::render(&Snapshot {
        services: vec![service],
        slots: vec![row],
        signals: vec![signals],
        reasons: reasons.map(|name| (name, 1)).collect(),
        replacements: vec![("acts".to_owned(), "exited".to_owned(), 1)],
        decisions: vec![("acts".to_owned(), "up".to_owned(), 1)],
        detection: [0.1, 2.0].into_iter().collect(),
        recovery: [0.3].into_iter().collect(),
        ..Snapshot::default()
    })
}

/// Labels by series, `_bucket` and its like included.
fn series(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, rest) = line.split_once(['{', ' ']).unwrap();
            let labels = rest.split("=\"").filter_map(|part| {
                let word = part.rsplit([',', '"', '{']).next()?.trim();
                (!word.is_empty() && !word.contains(' ')).then(|| word.to_owned())
            });
            let labels = if line.contains('{') {
                labels.collect()
            } else {
                BTreeSet::new()
            };
            (name.to_owned(), labels)
        })
        .collect()
}

#[test]
fn a_parser_of_the_format_reads_all_of_it() {
    let text = exposition();
    let parsed = parse_prometheus(&text).unwrap();
    let declared = text.matches("# TYPE ").count();
    assert_eq!(parsed.families.len(), declared);
}

/// What `promtool check metrics` complains of.
#[test]
fn names_are_as_prometheus_wants_them() {
    let text = exposition();
    let mut seen = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(name.starts_with("orch_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        let fits = |char: char| char.is_ascii_lowercase() || char == '_';
        assert!(name.chars().all(fits), "{name}");
        for word in ["_ms", "_milliseconds", "_percent", "_kb", kind] {
            assert!(
                !name.ends_with(word) && !name.ends_with(&format!("_{word}")),
                "{name}"
            );
        }
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        seen += 1;
    }
    assert!(seen > 15);
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/grafana/orch.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let there = series(&exposition());
    let mut asked = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let words = query.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
            let names: Vec<_> = words.filter(|word| word.starts_with("orch_")).collect();
            assert!(!names.is_empty(), "{query}");
            for name in names {
                let labels = there
                    .get(name)
                    .unwrap_or_else(|| panic!("no {name}: {query}"));
                for label in labels_of(query, target["legendFormat"].as_str().unwrap()) {
                    assert!(labels.contains(&label), "{name} has no {label}: {query}");
                }
                asked.insert(name.trim_end_matches("_bucket").to_owned());
            }
        }
    }
    // The counters of what went well, and the version, are for others.
    let left: Vec<_> = exposition()
        .lines()
        .filter_map(|line| {
            line.strip_prefix("# TYPE ")?
                .split(' ')
                .next()
                .map(str::to_owned)
        })
        .filter(|name| !asked.contains(name))
        .collect();
    let spared = [
        "orch_build_info",
        "orch_requests_excluded_total",
        "orch_packets_total",
    ];
    assert_eq!(left, spared);
}

/// Labels that a query groups by, selects by, or names its lines after.
fn labels_of(query: &str, legend: &str) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    for part in query.split("by (").skip(1) {
        let inside = part.split(')').next().unwrap();
        labels.extend(inside.split(',').map(|label| label.trim().to_owned()));
    }
    for part in query.split('{').skip(1) {
        let inside = part.split('}').next().unwrap();
        let pairs = inside
            .split(',')
            .filter_map(|pair| pair.split(['=', '!']).next());
        labels.extend(pairs.map(str::to_owned));
    }
    for part in legend.split("{{").skip(1) {
        labels.insert(part.split("}}").next().unwrap().to_owned());
    }
    labels
}
