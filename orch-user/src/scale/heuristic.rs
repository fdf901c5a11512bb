//! The policy `heuristic`: a program of the user's decides. At every `interval` it gets the metrics
//! as one JSON object on its standard input, and prints one whole number: so many copies more, or
//! with a minus sign fewer; 0 for no change. This is the pure part, which takes its last answer;
//! who runs the program is `reconcile/consult.rs`. A late or unreadable answer changes nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Advice, History, Limits};

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heuristic {
    /// Program and arguments.
    pub program: Vec<String>,
    /// From one question to the next.
    pub interval: Duration,
    /// Longest time for an answer.
    pub timeout: Duration,
}

/// What the program is told. The first five are the names of the exercise that this comes from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// Requests a second, over the last interval.
    pub request_rate: f64,
    /// Responses a second, the same.
    pub response_rate: f64,
    /// Requests since the beginning.
    pub request_count: u64,
    /// Responses since the beginning.
    pub response_count: u64,
    /// Copies that are well.
    pub running_server_count: u16,
    /// Copies that are on their way.
    pub starting_server_count: u16,
    /// Copies wanted now.
    pub desired_server_count: u16,
    /// Requests without a response.
    pub in_flight: u64,
    /// Responses a second of one busy copy, as learnt; 0 if unknown.
    pub service_rate: f64,
    /// Seconds a copy takes to start, as learnt; 0 if unknown.
    pub start_seconds: f64,
    /// Fewest copies allowed.
    pub min: u16,
    /// Most copies allowed.
    pub max: u16,
}

impl Question {
    /// What is known now.
    pub fn new(history: &History, interval: Duration, limits: Limits) -> Self {
        let last = history.last();
        let seconds = interval.as_secs_f64();
        Self {
            request_rate: history.request_rate(seconds),
            response_rate: history.response_rate(seconds),
            request_count: last.requests,
            response_count: last.responses,
            running_server_count: last.ready,
            starting_server_count: last.starting,
            desired_server_count: history.desired,
            in_flight: last.in_flight,
            service_rate: last.service_rate,
            start_seconds: last.start_s,
            min: limits.min,
            max: limits.max,
        }
    }
}

/// The number in what the program printed; `None` if it is none.
pub fn read_answer(printed: &str) -> Option<i32> {
    printed.trim().parse().ok()
}

impl Heuristic {
    #[expect(clippy::unused_self, reason = "as every policy")]
    pub(super) fn decide(&self, history: &History, limits: Limits) -> Advice {
        let delta = history.answer.unwrap_or(0);
        let wanted = i64::from(history.desired) + i64::from(delta);
        let reason = format!("the program answered {delta:+}");
        let desired = limits.clamp(wanted.max(0) as f64);
        Advice { desired, reason }
    }
}
