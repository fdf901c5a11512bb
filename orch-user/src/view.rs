//! What the controller shows: the rows of `orch ps` and `orch status`, events and decisions. Their
//! fields are the JSON that scripts rely on.

use std::collections::BTreeMap;

use orch_common::counter::Failure;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{health::polls::Polls, metrics::Durations};

/// Everything there is to show at one moment. The controller publishes one after every change and
/// at least once a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Seconds since the controller started.
    pub uptime_s: f64,
    /// A row per service.
    pub services: Vec<ServiceRow>,
    /// A row per slot.
    pub slots: Vec<SlotRow>,
    /// Connections that the data plane remembers: those from outside, and local ones to backends' own
    /// addresses.
    pub flows: u64,
    /// Packets by what became of them: `Reason::name` and how many.
    pub reasons: Vec<(String, u64)>,
    /// Replacements by service and cause.
    pub replacements: Vec<(String, String, u64)>,
    /// Decisions by service and direction (`up`, `down`, `same`).
    pub decisions: Vec<(String, String, u64)>,
    /// Seconds from the last good probe of a backend to its noticing as unhealthy.
    pub detection: Durations,
    /// Seconds from noticing to a healthy backend in the ring.
    pub recovery: Durations,
    /// Response classes and times per slot.
    pub signals: Vec<SlotSignals>,
    /// What comes next, in the order of `services`.
    pub outlooks: Vec<Outlook>,
}

impl Snapshot {
    /// Services, each with what comes next.
    pub fn prospects(&self) -> impl Iterator<Item = (&ServiceRow, Outlook)> + Clone {
        let next = self.outlooks.iter().cloned();
        let next = next.chain(std::iter::repeat(Outlook::default()));
        self.services.iter().zip(next)
    }
}

/// What comes next for a service, and what its row does not have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outlook {
    /// Copies, if the open window ended now.
    pub would: u16,
    /// With so many requests in the window it would be one copy more; `None` at the most copies.
    pub next_step: Option<u64>,
    /// The policy, if it is one that decides without windows.
    pub windowless: Option<&'static str>,
    /// Length of a window, in seconds.
    pub window_s: f64,
    /// Responses of class 5xx since the data plane was set up.
    pub errors_total: u64,
}

/// A row of `orch status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceRow {
    /// Name of the service.
    pub service: String,
    /// Where clients connect, as the file says it.
    pub listen: String,
    /// `tcp` or `http`.
    pub mode: String,
    /// Copies wanted.
    pub desired: u16,
    /// The fewest that the file allows.
    #[serde(default)]
    pub min: u16,
    /// The most that the file allows.
    #[serde(default)]
    pub max: u16,
    /// A person has set the number: the policy does not change it.
    #[serde(default)]
    pub held: bool,
    /// It is in the file no longer, and its copies are about to go.
    #[serde(default)]
    pub leaving: bool,
    /// Copies in the ring.
    pub ready: u16,
    /// Requests counted in the current window.
    pub window_count: u64,
    /// Seconds to the window's end; `None` while no window is open.
    pub window_ends_in_s: Option<f64>,
    /// Requests per second, over the last ten seconds.
    pub request_rate: f64,
    /// Responses per second, over the last ten seconds.
    pub response_rate: f64,
    /// Requests counted since the data plane was set up.
    pub requests_total: u64,
    /// Responses to them.
    pub responses_total: u64,
    /// Connections that wait for a copy.
    #[serde(default)]
    pub waiting: u64,
}

/// A row of `orch ps`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SlotRow {
    /// Name of the service.
    pub service: String,
    /// Number of the slot; for a spare, a number from 64 on that means nothing.
    pub slot: u16,
    /// Whether it is a spare, which has no slot and no port yet.
    #[serde(default)]
    pub spare: bool,
    /// The slot's port on this host; 0 for a spare.
    pub port: u16,
    /// A `SlotState` in words.
    pub state: String,
    /// Container id or pid; empty while there is none.
    pub backend: String,
    /// `docker` or `process`.
    pub runtime: String,
    /// `ip:port` of the backend; empty while there is none.
    pub address: String,
    /// How connections reach its backends: `direct` or `port`.
    #[serde(default)]
    pub delivery: String,
    /// Why not directly; empty if they do.
    #[serde(default)]
    pub delivery_reason: String,
    /// Whether its last probe answered 200.
    pub healthy: bool,
    /// Live connections.
    pub connections: u64,
    /// Requests that count.
    pub requests: u64,
    /// Responses to them.
    pub responses: u64,
    /// Responses of class 5xx among them.
    pub errors: u64,
    /// Seconds since the backend was created.
    pub age_s: f64,
    /// What is wrong: last probe answer, tail of the log, time to the next try. Empty if nothing.
    pub note: String,
    /// Why new connections pass it by: `refused`, `exited`, `signalled`, `silent`, `failing`. Empty
    /// if they do not.
    #[serde(default)]
    pub suspect: String,
    /// Requests that have begun and wait for a response.
    #[serde(default)]
    pub in_flight: u64,
    /// Bytes of payload from clients to the slot, each once; in mode http, from the gateway.
    #[serde(default)]
    pub bytes_in: u64,
    /// The same from the slot to its clients.
    #[serde(default)]
    pub bytes_out: u64,
    /// Connections that failed, and requests that were cut off, by kind: `refused`, `timeout`, `reset`,
    /// `closed`, `aborted`, `gone`. Those of which there is one at least.
    #[serde(default)]
    pub connection_errors: BTreeMap<String, u64>,
}

/// Responses of a slot, and its polls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SlotSignals {
    /// Name of the service.
    pub service: String,
    /// Number of the slot.
    pub slot: u16,
    /// Requests that do not count.
    pub excluded: u64,
    /// Responses by first digit of the status; index 0 is any other.
    pub responses: [u64; 6],
    /// Sum of response times, in seconds.
    pub sum_s: f64,
    /// Responses per bucket of `orch_common::latency`.
    pub buckets: Vec<u64>,
    /// Connections that failed, by the number of an `orch_common::counter::Failure`.
    pub failures: [u64; Failure::COUNT],
    /// How its last polls went.
    pub polls: Polls,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventRow {
    /// Counts up from 1 since the controller started.
    pub id: u64,
    /// Seconds since 1970-01-01 UTC.
    pub time: f64,
    /// Name of the service; empty for the controller itself.
    pub service: String,
    /// Number of the slot, where it concerns one.
    pub slot: Option<u16>,
    /// One word: `started`, `ready`, `unhealthy`, `exited`, `replaced`, `draining`, `stopped`,
    /// `scaled`, `backoff`, `adopted`, `reloaded`, `reset`, `lost`, `back`, `uplink`, `delivery`,
    /// `spare`, `suspect`, `cleared`, `error`.
    pub kind: String,
    /// A sentence.
    pub text: String,
}

/// A decision of a scaling policy, or of a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DecisionRow {
    /// Seconds since 1970-01-01 UTC.
    pub time: f64,
    /// Name of the service.
    pub service: String,
    /// Copies wanted before.
    pub from: u16,
    /// Copies wanted after.
    pub to: u16,
    /// The cause and its numbers: `window of 2m counted 68: floor(68/20)+1 = 4, limits 1..10`.
    pub reason: String,
}
