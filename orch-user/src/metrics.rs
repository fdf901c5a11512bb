//! A snapshot in Prometheus' text exposition format, version 0.0.4.

use std::fmt::{self, Display, Write};

use orch_common::{
    counter::{Failure, Reason},
    latency::{BUCKETS, upper_bound_ns},
    slot::SlotState,
};

use crate::view::{SlotSignals, Snapshot};

/// The format's media type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every so many buckets of the kernel's histogram are one here: the bounds are whole octaves.
const BUCKETS_PER_OCTAVE: usize = 4;
/// Bounds of replacement times, in seconds.
const REPLACEMENT_BOUNDS: [f64; 11] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// The exposition of a snapshot.
pub fn render(snapshot: &Snapshot) -> String {
    let mut page = Page::default();
    build_info(&mut page);
    services(&mut page, snapshot);
    requests(&mut page, snapshot);
    responses(&mut page, snapshot);
    durations(&mut page, snapshot);
    traffic(&mut page, snapshot);
    slots(&mut page, snapshot);
    flows(&mut page, snapshot);
    control(&mut page, snapshot);
    page.text
}

fn build_info(page: &mut Page) {
    let name = "orch_build_info";
    page.head(name, "gauge", "The version that runs; always 1.");
    let version = env!("CARGO_PKG_VERSION");
    page.line(name, &[("version", &version)], 1);
}

fn services(page: &mut Page, snapshot: &Snapshot) {
    let name = "orch_replicas_desired";
    page.head(name, "gauge", "Copies wanted.");
    for row in &snapshot.services {
        page.line(name, &[("service", &row.service)], row.desired);
    }
    let name = "orch_replicas_ready";
    page.head(name, "gauge", "Copies that get connections.");
    for row in &snapshot.services {
        page.line(name, &[("service", &row.service)], row.ready);
    }
    let name = "orch_window_requests";
    page.head(name, "gauge", "Requests counted in the current window.");
    for row in &snapshot.services {
        page.line(name, &[("service", &row.service)], row.window_count);
    }
}

fn requests(page: &mut Page, snapshot: &Snapshot) {
    let name = "orch_requests_total";
    page.head(name, "counter", "Requests that count, by slot.");
    for row in snapshot.slots.iter().filter(|row| !row.is_spare()) {
        let labels: [Label; 2] = [("service", &row.service), ("slot", &row.slot)];
        page.line(name, &labels, row.requests);
    }
    let name = "orch_requests_excluded_total";
    page.head(name, "counter", "Requests outside the prefix, or excluded.");
    for row in &snapshot.signals {
        let labels: [Label; 2] = [("service", &row.service), ("slot", &row.slot)];
        page.line(name, &labels, row.excluded);
    }
}

fn responses(page: &mut Page, snapshot: &Snapshot) {
    const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];
    let name = "orch_responses_total";
    page.head(name, "counter", "Responses by slot and class of status.");
    for row in &snapshot.signals {
        for (class, count) in CLASSES.iter().zip(row.responses) {
            let labels: [Label; 3] = [
                ("service", &row.service),
                ("slot", &row.slot),
                ("class", class),
            ];
            page.line(name, &labels, count);
        }
    }
}

fn durations(page: &mut Page, snapshot: &Snapshot) {
    let name = "orch_request_duration_seconds";
    let help = "From the begin of a request to the begin of its response, seen by the kernel.";
    page.head(name, "histogram", help);
    for row in &snapshot.signals {
        let labels: [Label; 2] = [("service", &row.service), ("slot", &row.slot)];
        page.histogram(
            name,
            &labels,
            &octaves(row),
            row.buckets.iter().sum(),
            row.sum_s,
        );
    }
}

/// Upper bounds in seconds and counts up to them, an octave apart. The last bucket has no bound of
/// its own, since it also takes everything longer.
fn octaves(row: &SlotSignals) -> Vec<(f64, u64)> {
    let mut sum = 0;
    let mut bounds = Vec::new();
    for (at, count) in row.buckets.iter().enumerate().take(BUCKETS - 1) {
        sum += count;
        if at % BUCKETS_PER_OCTAVE == BUCKETS_PER_OCTAVE - 1 {
            bounds.push((upper_bound_ns(at) as f64 / 1e9, sum));
        }
    }
    bounds
}

fn traffic(page: &mut Page, snapshot: &Snapshot) {
    let rows = || snapshot.slots.iter().filter(|row| !row.is_spare());
    let name = "orch_in_flight";
    let help = "Requests that have begun and wait for a response, by slot.";
    page.head(name, "gauge", help);
    for row in rows() {
        let labels: [Label; 2] = [("service", &row.service), ("slot", &row.slot)];
        page.line(name, &labels, row.in_flight);
    }
    let name = "orch_bytes_total";
    let help = "Bytes of payload, each once, from clients (in) and to them (out), by slot.";
    page.head(name, "counter", help);
    for row in rows() {
        for (direction, bytes) in [("in", row.bytes_in), ("out", row.bytes_out)] {
            let labels: [Label; 3] = [
                ("service", &row.service),
                ("slot", &row.slot),
                ("direction", &direction),
            ];
            page.line(name, &labels, bytes);
        }
    }
    let name = "orch_connection_errors_total";
    let help = "Connections that failed, or ended while their request waited, by slot and kind.";
    page.head(name, "counter", help);
    for row in &snapshot.signals {
        for (kind, count) in Failure::ALL.iter().zip(row.failures) {
            let kind = kind.name();
            let labels: [Label; 3] = [
                ("service", &row.service),
                ("slot", &row.slot),
                ("kind", &kind),
            ];
            page.line(name, &labels, count);
        }
    }
}

fn slots(page: &mut Page, snapshot: &Snapshot) {
    let name = "orch_slot_state";
    page.head(name, "gauge", "1 for the state that a slot is in, else 0.");
    for row in &snapshot.slots {
        for state in SlotState::ALL.map(SlotState::name) {
            let labels: [Label; 3] = [
                ("service", &row.service),
                ("slot", &row.slot),
                ("state", &state),
            ];
            page.line(name, &labels, u8::from(row.state == state));
        }
    }
    let name = "orch_connections";
    page.head(name, "gauge", "Connections that are open now, by slot.");
    for row in snapshot.slots.iter().filter(|row| !row.is_spare()) {
        let labels: [Label; 2] = [("service", &row.service), ("slot", &row.slot)];
        page.line(name, &labels, row.connections);
    }
}

fn flows(page: &mut Page, snapshot: &Snapshot) {
    let name = "orch_flows";
    page.head(name, "gauge", "Flows from outside that are remembered.");
    page.line(name, &[], snapshot.flows);
    let is_drop = |name: &str| {
        let reason = Reason::ALL.iter().find(|reason| reason.name() == name);
        reason.is_some_and(|reason| reason.is_drop())
    };
    let (drops, passes): (Vec<_>, Vec<_>) = snapshot
        .reasons
        .iter()
        .partition(|(reason, _)| is_drop(reason));
    let name = "orch_drops_total";
    page.head(
        name,
        "counter",
        "Packets and connections that came to nothing.",
    );
    for (reason, count) in drops {
        page.line(name, &[("reason", reason)], count);
    }
    let name = "orch_packets_total";
    page.head(name, "counter", "Packets and connections that were served.");
    for (reason, count) in passes {
        page.line(name, &[("reason", reason)], count);
    }
}

fn control(page: &mut Page, snapshot: &Snapshot) {
    let name = "orch_replacements_total";
    page.head(name, "counter", "Backends that were replaced.");
    for (service, cause, count) in &snapshot.replacements {
        page.line(name, &[("service", service), ("cause", cause)], count);
    }
    let name = "orch_scale_decisions_total";
    page.head(name, "counter", "Decisions of the scaling policy.");
    for (service, direction, count) in &snapshot.decisions {
        let labels: [Label; 2] = [("service", service), ("direction", direction)];
        page.line(name, &labels, count);
    }
    let name = "orch_detection_seconds";
    let help = "From a backend's death to its noticing, of the last hundred.";
    page.head(name, "histogram", help);
    page.observations(name, &snapshot.detection_s);
    let name = "orch_recovery_seconds";
    let help = "From noticing to a healthy backend in the ring, of the last hundred.";
    page.head(name, "histogram", help);
    page.observations(name, &snapshot.recovery_s);
}

type Label<'a> = (&'a str, &'a dyn Display);

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn line(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        self.put(format_args!("{name}"));
        for (at, (label, value)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let value = escaped(&value.to_string());
            self.put(format_args!("{before}{label}=\"{value}\""));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        self.put(format_args!("{after} {value}\n"));
    }

    /// `bounds` are cumulative.
    fn histogram(
        &mut self,
        name: &str,
        labels: &[Label<'_>],
        bounds: &[(f64, u64)],
        count: u64,
        sum: f64,
    ) {
        let bucket = format!("{name}_bucket");
        for (bound, upto) in bounds {
            let mut labels = labels.to_vec();
            labels.push(("le", bound));
            self.line(&bucket, &labels, upto);
        }
        let mut all = labels.to_vec();
        all.push(("le", &"+Inf"));
        self.line(&bucket, &all, count);
        self.line(&format!("{name}_sum"), labels, sum);
        self.line(&format!("{name}_count"), labels, count);
    }

    fn observations(&mut self, name: &str, seconds: &[f64]) {
        let upto = |bound: f64| seconds.iter().filter(|one| **one <= bound).count() as u64;
        let bounds = REPLACEMENT_BOUNDS.map(|bound| (bound, upto(bound)));
        let sum = seconds.iter().sum();
        self.histogram(name, &[], &bounds, seconds.len() as u64, sum);
    }

    fn put(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.text.write_fmt(text);
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::view::SlotRow;

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
            detection_s: vec![0.02, 3.0, 100.0],
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
        assert_eq!(get("orch_recovery_seconds_count"), "0");
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
}
