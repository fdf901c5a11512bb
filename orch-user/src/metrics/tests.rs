//! Does the exposition parse back, and does it say what the snapshot does?

use std::collections::{HashMap, HashSet};

use super::*;
use crate::view::{ServiceRow, SlotRow};

/// Series to value; fails on what is not of the format.
fn parse(text: &str) -> HashMap<String, String> {
    let (mut series, mut typed) = (HashMap::new(), HashSet::new());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<_> = comment.splitn(3, ' ').collect();
            assert!(["HELP", "TYPE"].contains(&words[0]), "{line}");
            if words[0] == "TYPE" {
                assert!(typed.insert(words[1].to_owned()), "{line} came before");
            }
            continue;
        }
        let (key, value) = line.rsplit_once(' ').expect(line);
        let name = key.split('{').next().unwrap();
        let suffixes = ["_bucket", "_sum", "_count"];
        let base = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
        assert!(
            typed.contains(name) || typed.contains(base.unwrap_or("")),
            "{line}"
        );
        value.parse::<f64>().expect(line);
        assert!(
            series.insert(key.to_owned(), value.to_owned()).is_none(),
            "{line} twice"
        );
    }
    series
}

fn snapshot() -> Snapshot {
    let mut buckets = vec![0; BUCKETS];
    buckets[orch_common::latency::bucket(1_000_000)] = 3;
    buckets[BUCKETS - 1] = 1;
    Snapshot {
        slots: vec![SlotRow {
            service: "a\"b\\\n".to_owned(),
            slot: 2,
            state: "ready".to_owned(),
            requests: 5,
            in_flight: 3,
            bytes_in: 700,
            bytes_out: 80_000,
            ..SlotRow::default()
        }],
        services: vec![ServiceRow {
            service: "acts".to_owned(),
            waiting: 7,
            ..ServiceRow::default()
        }],
        signals: vec![SlotSignals {
            service: "acts".to_owned(),
            slot: 2,
            responses: [0, 0, 4, 0, 0, 1],
            failures: [9, 0, 8, 0, 0, 0],
            sum_s: 0.5,
            buckets,
            ..SlotSignals::default()
        }],
        reasons: Reason::ALL
            .iter()
            .map(|reason| (reason.name().to_owned(), *reason as u64))
            .collect(),
        detection: [0.02, 3.0, 100.0].into_iter().collect(),
        ..Snapshot::default()
    }
}

#[test]
fn it_parses_back() {
    let series = parse(&render(&snapshot()));
    let get = |key: &str| {
        let value = series.get(key);
        value.unwrap_or_else(|| panic!("no {key}")).as_str()
    };
    let odd = r#"service="a\"b\\\n",slot="2""#;
    assert_eq!(get(&format!("orch_requests_total{{{odd}}}")), "5");
    assert_eq!(
        get(&format!("orch_slot_state{{{odd},state=\"ready\"}}")),
        "1"
    );
    assert_eq!(
        get(&format!("orch_slot_state{{{odd},state=\"failed\"}}")),
        "0"
    );
    let acts = r#"service="acts",slot="2""#;
    assert_eq!(
        get(&format!("orch_responses_total{{{acts},class=\"2xx\"}}")),
        "4"
    );
    assert_eq!(get(&format!("orch_in_flight{{{odd}}}")), "3");
    assert_eq!(get("orch_waiting{service=\"acts\"}"), "7");
    let bytes = |way| format!("orch_bytes_total{{{odd},direction=\"{way}\"}}");
    assert_eq!((get(&bytes("in")), get(&bytes("out"))), ("700", "80000"));
    let errors = |kind| format!("orch_connection_errors_total{{{acts},kind=\"{kind}\"}}");
    assert_eq!(get(&errors("refused")), "9");
    assert_eq!(get(&errors("reset")), "8");
    assert_eq!(get(&errors("gone")), "0");
    assert_eq!(get("orch_drops_total{reason=\"slot_guard\"}"), "11");
    assert_eq!(get("orch_packets_total{reason=\"hit\"}"), "1");
    assert!(!series.contains_key("orch_drops_total{reason=\"hit\"}"));
    assert_eq!(get("orch_detection_seconds_bucket{le=\"0.025\"}"), "1");
    assert_eq!(get("orch_detection_seconds_bucket{le=\"5\"}"), "2");
    assert_eq!(get("orch_detection_seconds_bucket{le=\"+Inf\"}"), "3");
    assert_eq!(get("orch_detection_seconds_sum"), "103.02");
    assert_eq!(get("orch_recovery_seconds_count"), "0");
    assert_eq!(get("orch_recovery_seconds_sum"), "0");
}

#[test]
fn durations_are_cumulative_and_end_in_infinity() {
    let text = render(&snapshot());
    let name = "orch_request_duration_seconds";
    let counts: Vec<u64> = text
        .lines()
        .filter(|line| line.starts_with(&format!("{name}_bucket")))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert!(counts.is_sorted());
    assert_eq!(counts.last(), Some(&4));
    assert_eq!(counts[counts.len() - 2], 3, "the last bucket is unbounded");
    let series = parse(&text);
    let labels = r#"service="acts",slot="2""#;
    assert_eq!(series[&format!("{name}_count{{{labels}}}")], "4");
    assert_eq!(series[&format!("{name}_sum{{{labels}}}")], "0.5");
    // 1 ms lies between the octaves of 0.52 ms and 1.05 ms.
    assert_eq!(
        series[&format!("{name}_bucket{{{labels},le=\"0.000524288\"}}")],
        "0"
    );
    assert_eq!(
        series[&format!("{name}_bucket{{{labels},le=\"0.001048576\"}}")],
        "3"
    );
}
