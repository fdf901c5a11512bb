//! Checks of what a service's policy is told. A policy that is not chosen is checked as well: its
//! keys are wrong today rather than on the day on which it is tried.

use super::value;
use crate::{
    config::{
        problem::{At, Sink},
        raw::RawScale,
    },
    scale::{
        Policy,
        concurrency::Concurrency,
        elastic::Elastic,
        heuristic::Heuristic,
        schedule::{Schedule, Span},
        target::Target,
    },
};

/// Most copies in flight that a copy may be said to have.
const MOST_IN_FLIGHT: f64 = 1e6;

pub(super) fn check(raw: &RawScale, sink: &Sink) -> Policy {
    let numbers: Vec<_> = Policy::NAMES.iter().copied().zip(0..).collect();
    let chosen = value::choice(&raw.policy, &numbers, &[], 0, sink);
    let target = target(raw, sink);
    let concurrency = Concurrency {
        limit: within(&raw.concurrency, MOST_IN_FLIGHT, sink),
        window: value::positive_duration(&raw.window, sink).unwrap_or_default(),
    };
    let heuristic = heuristic(raw, chosen == 4, sink);
    let schedule = schedule(raw, chosen == 5, sink);
    match chosen {
        1 => Policy::Target(target),
        2 => Policy::Concurrency(concurrency),
        3 => Policy::Elastic(Elastic),
        4 => Policy::Heuristic(heuristic),
        5 => Policy::Schedule(schedule),
        6 => Policy::Manual,
        _ => Policy::Step,
    }
}

/// A number above 0.
fn within(raw: &At<f64>, most: f64, sink: &Sink) -> f64 {
    let number = raw.value;
    if !(number > 0.0 && number <= most) {
        sink.at(
            raw,
            format!("must be above 0.0, up to {most:.1}, not {number}"),
        );
    }
    number
}

fn target(raw: &RawScale, sink: &Sink) -> Target {
    let tolerance = raw.tolerance.value;
    if !(0.0..1.0).contains(&tolerance) {
        let text = format!("must be from 0.0 to below 1.0, not {tolerance}");
        sink.at(&raw.tolerance, text);
    }
    Target {
        target: within(&raw.target, 1.0, sink),
        tolerance,
        sync: value::positive_duration(&raw.sync, sink).unwrap_or_default(),
        stabilisation: value::duration(&raw.stabilisation, sink).unwrap_or_default(),
    }
}

fn heuristic(raw: &RawScale, chosen: bool, sink: &Sink) -> Heuristic {
    let program = raw.program.value.iter().map(|word| word.value.clone());
    let program: Vec<String> = program.collect();
    if chosen && program.first().is_none_or(String::is_empty) {
        let text = "policy = \"heuristic\" needs a program: write program = [\"/path/to/it\"]";
        sink.at(&raw.program, text);
    }
    let interval = value::positive_duration(&raw.program_interval, sink).unwrap_or_default();
    let timeout = value::positive_duration(&raw.program_timeout, sink).unwrap_or_default();
    if timeout > interval {
        let (late, often) = (&raw.program_timeout.value, &raw.program_interval.value);
        let text = format!("{late} is longer than program_interval, which is {often}");
        sink.at(&raw.program_timeout, text);
    }
    Heuristic {
        program,
        interval,
        timeout,
    }
}

fn schedule(raw: &RawScale, chosen: bool, sink: &Sink) -> Schedule {
    let spans = &raw.schedule.value;
    if chosen && spans.is_empty() {
        let text = "policy = \"schedule\" needs at least one: [\"mon-fri 08:00-18:00 4\"]";
        sink.at(&raw.schedule, text);
    }
    let parse = |text: &At<String>| {
        let span = Span::parse(&text.value);
        if span.is_none() {
            let text_of = &text.value;
            let hint = format!(
                "{text_of:?} is no floor: write \"mon-fri 08:00-18:00 4\", days first and copies last"
            );
            sink.at(text, hint);
        }
        span
    };
    Schedule {
        spans: spans.iter().filter_map(parse).collect(),
        above: Elastic,
    }
}
