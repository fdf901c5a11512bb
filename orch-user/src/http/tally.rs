//! What is counted per slot, by every thread at once.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use orch_common::{
    counter::{Bytes, Failure, SlotCounters},
    latency::{BUCKETS, Histogram, bucket},
};
use serde::{Deserialize, Serialize};

/// Counts of a slot since it came into the table, whatever backends it has had.
#[derive(Debug)]
pub(super) struct Tally {
    requests: AtomicU64,
    excluded: AtomicU64,
    responses: [AtomicU64; 6],
    failures: [AtomicU64; Failure::COUNT],
    received: AtomicU64,
    sent: AtomicU64,
    sum_ns: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// The same, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that count.
    pub requests: u64,
    /// Requests that do not.
    pub excluded: u64,
    /// Answers to those that count, by the first digit of their status; 0 for any other.
    pub responses: [u64; 6],
    /// Connections that failed, by the number of a [`Failure`]. A gateway of an earlier version tells
    /// of none, nor of bytes.
    #[serde(default)]
    pub failures: [u64; Failure::COUNT],
    /// Bytes that were sent to backends.
    #[serde(default)]
    pub received: u64,
    /// Bytes that came from backends.
    #[serde(default)]
    pub sent: u64,
    /// Sum of the times to those answers, in nanoseconds.
    pub sum_ns: u64,
    /// Their histogram (`orch_common::latency`); cut off behind the last that is not zero.
    pub buckets: Vec<u64>,
}

impl Tally {
    /// A tally that goes on from here.
    pub(super) fn from(counts: &Counts) -> Self {
        let bucket = |at: usize| counts.buckets.get(at).copied().unwrap_or_default();
        Self {
            requests: counts.requests.into(),
            excluded: counts.excluded.into(),
            responses: counts.responses.map(AtomicU64::new),
            failures: counts.failures.map(AtomicU64::new),
            received: counts.received.into(),
            sent: counts.sent.into(),
            sum_ns: counts.sum_ns.into(),
            buckets: std::array::from_fn(|at| bucket(at).into()),
        }
    }

    /// A request was given to the slot.
    pub(super) fn request(&self, counted: bool) {
        let cell = if counted {
            &self.requests
        } else {
            &self.excluded
        };
        cell.fetch_add(1, Relaxed);
    }

    /// A request that counts was answered.
    pub(super) fn answer(&self, status: u16, took: Duration) {
        let class = usize::from(status / 100);
        let cell = self.responses.get(class).or(self.responses.first());
        if let Some(cell) = cell {
            cell.fetch_add(1, Relaxed);
        }
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Relaxed);
        if let Some(cell) = self.buckets.get(bucket(ns)) {
            cell.fetch_add(1, Relaxed);
        }
    }

    /// A connection to the slot failed.
    pub(super) fn failed(&self, how: Failure) {
        if let Some(cell) = self.failures.get(how as usize) {
            cell.fetch_add(1, Relaxed);
        }
    }

    /// So many bytes went to the slot.
    pub(super) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Relaxed);
    }

    /// So many bytes came from the slot.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn read(&self) -> Counts {
        let mut buckets: Vec<u64> = self.buckets.iter().map(|cell| cell.load(Relaxed)).collect();
        let end = buckets.iter().rposition(|count| *count > 0);
        buckets.truncate(end.map_or(0, |end| end + 1));
        Counts {
            requests: self.requests.load(Relaxed),
            excluded: self.excluded.load(Relaxed),
            responses: self.responses.each_ref().map(|cell| cell.load(Relaxed)),
            failures: self.failures.each_ref().map(|cell| cell.load(Relaxed)),
            received: self.received.load(Relaxed),
            sent: self.sent.load(Relaxed),
            sum_ns: self.sum_ns.load(Relaxed),
            buckets,
        }
    }
}

impl Counts {
    /// Requests and answers, as the kernel counts them.
    pub fn counters(&self) -> SlotCounters {
        SlotCounters {
            requests: self.requests,
            excluded: self.excluded,
            responses: self.responses,
            failures: self.failures,
        }
    }

    /// Bytes, as the kernel counts them: with heads, without those of TLS.
    pub const fn bytes(&self) -> Bytes {
        Bytes {
            received: self.received,
            sent: self.sent,
        }
    }

    /// Times to answers, as the kernel counts them.
    pub fn histogram(&self) -> Histogram {
        let mut histogram = Histogram {
            sum_ns: self.sum_ns,
            ..Histogram::default()
        };
        for (to, from) in histogram.buckets.iter_mut().zip(&self.buckets) {
            *to = *from;
        }
        histogram
    }
}

impl std::ops::AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.requests += other.requests;
        self.excluded += other.excluded;
        self.received += other.received;
        self.sent += other.sent;
        self.sum_ns += other.sum_ns;
        for (to, from) in self.failures.iter_mut().zip(other.failures) {
            *to += from;
        }
        for (to, from) in self.responses.iter_mut().zip(other.responses) {
            *to += from;
        }
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (to, from) in self.buckets.iter_mut().zip(&other.buckets) {
            *to += from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_goes_on_where_another_ended() {
        let tally = Tally::from(&Counts::default());
        tally.request(true);
        tally.request(true);
        tally.request(false);
        tally.failed(Failure::Reset);
        tally.received(70);
        tally.sent(800);
        tally.answer(200, Duration::from_micros(3));
        tally.answer(999, Duration::from_hours(24));
        let read = tally.read();
        assert_eq!((read.requests, read.excluded), (2, 1));
        assert_eq!(read.responses, [1, 0, 1, 0, 0, 0]);
        assert_eq!(read.counters().failures, [0, 0, 1, 0, 0, 0]);
        assert_eq!((read.bytes().received, read.bytes().sent), (70, 800));
        assert_eq!(read.buckets.len(), BUCKETS);
        let next = Tally::from(&read);
        next.request(true);
        let mut sum = next.read();
        assert_eq!(sum.requests, 3);
        assert_eq!(sum.histogram().buckets.iter().sum::<u64>(), 2);
        sum += &read;
        assert_eq!((sum.requests, sum.responses[2]), (5, 2));
        assert_eq!((sum.failures[2], sum.received, sum.sent), (2, 140, 1600));
    }
}
