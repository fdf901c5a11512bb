//! A snapshot in Prometheus' text exposition format, version 0.0.4.

mod durations;
mod page;
#[cfg(test)]
mod tests;

use orch_common::{
    counter::{Failure, Reason},
    latency::{BUCKETS, upper_bound_ns},
    slot::SlotState,
};

pub use self::durations::Durations;
use self::page::{Label, Page};
use crate::view::{SlotSignals, Snapshot};

/// The format's media type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every so many buckets of the kernel's histogram are one here: the bounds are whole octaves.
const BUCKETS_PER_OCTAVE: usize = 4;
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
    for row in snapshot.slots.iter().filter(|row| !row.spare) {
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

/// Classes of responses, by the first digit of their status; 0 for any other.
pub(crate) const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

fn responses(page: &mut Page, snapshot: &Snapshot) {
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
    let rows = || snapshot.slots.iter().filter(|row| !row.spare);
    let name = "orch_in_flight";
    let help = "Requests that have begun and wait for a response, by slot.";
    page.head(name, "gauge", help);
    for row in rows() {
        let labels: [Label; 2] = [("service", &row.service), ("slot", &row.slot)];
        page.line(name, &labels, row.in_flight);
    }
    let name = "orch_waiting";
    let help = "Connections that wait for a copy, by service.";
    page.head(name, "gauge", help);
    for row in &snapshot.services {
        page.line(name, &[("service", &row.service)], row.waiting);
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
    for row in snapshot.slots.iter().filter(|row| !row.spare) {
        let labels: [Label; 2] = [("service", &row.service), ("slot", &row.slot)];
        page.line(name, &labels, row.connections);
    }
}

fn flows(page: &mut Page, snapshot: &Snapshot) {
    let name = "orch_flows";
    page.head(
        name,
        "gauge",
        "Connections that are remembered: from outside, and local ones to backends' own addresses.",
    );
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
    let help = "From the last good probe of a backend to its noticing as unhealthy.";
    page.head(name, "histogram", help);
    page.durations(name, &snapshot.detection);
    let name = "orch_recovery_seconds";
    let help = "From noticing to a healthy backend in the ring.";
    page.head(name, "histogram", help);
    page.durations(name, &snapshot.recovery);
}
