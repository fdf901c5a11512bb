//! What a run has come to, as people and programs read it.

use std::collections::BTreeMap;

use hdrhistogram::{Counter, Histogram};
use serde::{Deserialize, Serialize};

use super::{
    engine::Outcome,
    pattern::Plan,
    tally::{Loss, Stretch, Tally},
    watch::Watched,
};

/// A send that is later than this is late.
const LATE_MS: f64 = 10.0;
/// With a larger share of late sends, the client is behind its schedule.
const LATE_SHARE: f64 = 0.01;

/// The report of a run. Its fields are the JSON that scripts rely on; times are in milliseconds
/// where a name ends in `_ms`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was asked.
    pub url: String,
    /// The pattern and its numbers.
    pub pattern: String,
    /// The seed of all that is random.
    pub seed: u64,
    /// How long the pattern was to last.
    pub planned_s: f64,
    /// How long the run took, with the wait for the last answers.
    pub elapsed_s: f64,
    /// Whether it was stopped before its end.
    pub stopped: bool,
    /// Requests sent: `answered + lost`.
    pub sent: u64,
    /// Requests that had a connection to be sent on.
    pub connected: u64,
    /// Connections opened.
    pub connections: u64,
    /// Requests that were due and not sent: as many were in flight as `--limit` permits.
    pub held_back: u64,
    /// Whole answers.
    pub answered: u64,
    /// Answers by class of status: `2xx` and so on; `other` is any below 100 or from 600 on.
    pub classes: BTreeMap<String, u64>,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without a whole answer.
    pub lost: u64,
    /// The same by cause: `refused`, `reset`, `timed_out`, `unanswered`, `other`.
    pub lost_by: BTreeMap<String, u64>,
    /// The same by what the system said.
    pub errors: BTreeMap<String, u64>,
    /// Requests in flight when the pattern was over, of which some may have been answered later.
    pub open_at_end: u64,
    /// Times of the answers, from when their requests were due.
    pub latency_ms: Quantiles,
    /// How late this client sent what was due.
    pub lateness_ms: Quantiles,
    /// The share of the requests that it sent more than 10 ms late.
    pub late_share: f64,
    /// Whether that share is large enough to make the times doubtful.
    pub behind: bool,
    /// The run in stretches.
    pub series: Vec<Point>,
    /// What the controller did, where it was watched.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub controller: Option<Watched>,
}

/// Of a set of times, in milliseconds. All 0 where there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Quantiles {
    pub min: f64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// A stretch of the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Its beginning, in seconds since the run's.
    pub at_s: f64,
    /// Its length, in seconds.
    pub length_s: f64,
    /// Requests that were due in it.
    pub offered: u64,
    /// Answers that became whole in it.
    pub answered: u64,
    /// Requests that were given up in it.
    pub lost: u64,
    /// Times of the requests that were due in it; 0 where none was answered.
    pub p50_ms: f64,
    /// The same.
    pub p99_ms: f64,
}

impl Report {
    /// Of a run that has ended.
    pub fn new(url: &str, plan: &Plan, outcome: &Outcome, controller: Option<Watched>) -> Self {
        let tally = &outcome.tally;
        let late_share = late_share(&tally.lateness);
        Self {
            url: url.to_owned(),
            pattern: plan.pattern.to_string(),
            seed: plan.seed,
            planned_s: plan.length().as_secs_f64(),
            elapsed_s: outcome.elapsed.as_secs_f64(),
            stopped: outcome.stopped,
            sent: tally.sent,
            connected: tally.connected,
            connections: tally.connections,
            held_back: tally.held_back,
            answered: tally.answered(),
            classes: classes(&tally.statuses),
            statuses: tally.statuses.clone(),
            lost: tally.lost(),
            lost_by: Loss::ALL
                .map(|loss| {
                    let count = tally.losses.get(&loss).copied().unwrap_or(0);
                    (loss.name().to_owned(), count)
                })
                .into(),
            errors: tally.texts.clone(),
            open_at_end: outcome.open_at_end,
            latency_ms: quantiles(&tally.latency),
            lateness_ms: quantiles(&tally.lateness),
            late_share,
            behind: late_share > LATE_SHARE,
            series: series(tally),
            controller,
        }
    }
}

fn classes(statuses: &BTreeMap<u16, u64>) -> BTreeMap<String, u64> {
    let mut classes = BTreeMap::new();
    for (status, count) in statuses {
        let class = match status / 100 {
            class @ 1..=5 => format!("{class}xx"),
            _ => "other".to_owned(),
        };
        *classes.entry(class).or_default() += count;
    }
    classes
}

fn late_share(lateness: &Histogram<u64>) -> f64 {
    if lateness.is_empty() {
        return 0.0;
    }
    let late = lateness.count_between((LATE_MS * 1000.0) as u64, lateness.max());
    late as f64 / lateness.len() as f64
}

fn quantiles<T: Counter>(times: &Histogram<T>) -> Quantiles {
    if times.is_empty() {
        return Quantiles::default();
    }
    let at = |quantile| ms(times.value_at_quantile(quantile));
    Quantiles {
        min: ms(times.min()),
        mean: times.mean() / 1000.0,
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: ms(times.max()),
    }
}

fn ms(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

fn series(tally: &Tally) -> Vec<Point> {
    let length_s = tally.stretch.as_secs_f64();
    let point = |(at, stretch): (usize, &Stretch)| {
        let times = quantiles(&stretch.latency);
        Point {
            at_s: at as f64 * length_s,
            length_s,
            offered: stretch.due,
            answered: stretch.answered,
            lost: stretch.lost,
            p50_ms: times.p50,
            p99_ms: times.p99,
        }
    };
    tally.stretches.iter().enumerate().map(point).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::load::tally::Fate;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn answers_count_from_when_they_were_due_and_where_they_came() {
        let begin = Instant::now();
        let mut tally = Tally::new(begin, SECOND * 30).unwrap();
        for status in [200, 204, 503, 999] {
            tally.send(SECOND);
            tally.end(SECOND, begin + SECOND * 3, Fate::Answered(status));
        }
        tally.hold_back(SECOND * 2);
        let classes: Vec<_> = classes(&tally.statuses).into_iter().collect();
        let expect = [("2xx", 2), ("5xx", 1), ("other", 1)];
        assert_eq!(
            classes,
            expect.map(|(class, count)| (class.to_owned(), count))
        );
        let series = series(&tally);
        let counts = series.iter().map(|point| (point.offered, point.answered));
        assert_eq!(counts.collect::<Vec<_>>(), [(0, 0), (4, 0), (1, 0), (0, 4)]);
        // Two digits in a stretch, three in the whole.
        assert!((series[1].p50_ms / 2000.0 - 1.0).abs() < 0.01);
        assert!((quantiles(&tally.latency).p99 / 2000.0 - 1.0).abs() < 0.001);
    }

    #[test]
    fn a_client_is_behind_where_more_than_one_send_in_a_hundred_is_late() {
        let begin = Instant::now();
        let mut tally = Tally::new(begin, SECOND).unwrap();
        for _ in 0..99 {
            tally.sending(SECOND, begin + SECOND);
        }
        assert!(late_share(&tally.lateness) == 0.0);
        tally.sending(SECOND, begin + SECOND * 2);
        let one = late_share(&tally.lateness);
        assert!((one - 0.01).abs() < 1e-9 && one <= LATE_SHARE, "{one}");
        tally.sending(SECOND, begin + SECOND * 2);
        assert!(late_share(&tally.lateness) > LATE_SHARE);
    }

    #[test]
    fn a_long_run_has_longer_stretches_not_more() {
        let mut tally = Tally::new(Instant::now(), SECOND * 6000).unwrap();
        tally.send(SECOND * 5999);
        assert_eq!((tally.stretches.len(), tally.stretch), (600, SECOND * 10));
    }
}
