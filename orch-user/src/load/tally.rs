//! What became of the requests, while they are still being sent.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hdrhistogram::{CreationError, Histogram};

/// Times are kept in microseconds, up to an hour.
const MOST_US: u64 = 3_600_000_000;
/// Texts of errors that are told apart; the rest is counted under one.
const TEXTS: usize = 20;
/// Stretches of the run that are told apart: a longer run has longer ones.
const STRETCHES: u32 = 600;

/// What became of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A whole answer with this status.
    Answered(u16),
    /// No whole answer.
    Lost(Loss, String),
}

/// Why there was no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Nobody listens there.
    Refused,
    /// The connection ended before the whole answer was there.
    Reset,
    /// The time for an answer was over.
    TimedOut,
    /// The run ended first.
    Unanswered,
    /// Anything else: no route, no local port left, an answer that is no HTTP.
    Other,
}

impl Loss {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Refused,
        Self::Reset,
        Self::TimedOut,
        Self::Unanswered,
        Self::Other,
    ];

    /// The word for it, also in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::Unanswered => "unanswered",
            Self::Other => "other",
        }
    }
}

/// One stretch of the run.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Requests that were due in it.
    pub due: u64,
    /// Answers that were whole in it.
    pub answered: u64,
    /// Requests that were given up in it.
    pub lost: u64,
    /// Microseconds to the answers of those that were due in it.
    pub latency: Histogram<u32>,
}

/// Everything that is counted. One lock holds it; whoever counts takes it for less than a
/// microsecond.
#[derive(Clone, Debug)]
pub struct Tally {
    /// When the pattern began.
    pub begin: Instant,
    /// Requests sent.
    pub sent: u64,
    /// Requests that had a connection to be sent on.
    pub connected: u64,
    /// Connections opened.
    pub connections: u64,
    /// Requests that were due and not sent, since the limit of requests in flight was reached.
    pub held_back: u64,
    /// Whole answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer, by cause.
    pub losses: BTreeMap<Loss, u64>,
    /// The same, by what the system said.
    pub texts: BTreeMap<String, u64>,
    /// Microseconds from when requests were due to their whole answers.
    pub latency: Histogram<u64>,
    /// Microseconds from when requests were due to when this client sent them.
    pub lateness: Histogram<u64>,
    /// The run in stretches of equal length.
    pub stretches: Vec<Stretch>,
    /// The length of one of them.
    pub stretch: Duration,
    /// What a stretch begins with.
    empty: Histogram<u32>,
}

impl Tally {
    /// An empty one for a run that begins now and is planned to take so long.
    ///
    /// # Errors
    /// None that can happen: the bounds of the histograms are constants.
    pub fn new(begin: Instant, length: Duration) -> Result<Self, CreationError> {
        let times = Histogram::new_with_bounds(1, MOST_US, 3)?;
        Ok(Self {
            begin,
            sent: 0,
            connected: 0,
            connections: 0,
            held_back: 0,
            statuses: BTreeMap::new(),
            losses: BTreeMap::new(),
            texts: BTreeMap::new(),
            latency: times.clone(),
            lateness: times,
            stretches: Vec::new(),
            stretch: Duration::from_secs(1).max(length / STRETCHES),
            empty: Histogram::new_with_bounds(1, MOST_US, 2)?,
        })
    }

    /// Answers so far.
    pub fn answered(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Losses so far.
    pub fn lost(&self) -> u64 {
        self.losses.values().sum()
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u64 {
        self.sent - self.answered() - self.lost()
    }

    /// A request that was due then is handed over to be sent.
    pub fn send(&mut self, due: Duration) {
        self.sent += 1;
        self.at(due).due += 1;
    }

    /// Its sending begins now.
    pub fn sending(&mut self, due: Duration, now: Instant) {
        let late = now.saturating_duration_since(self.begin + due);
        self.lateness.saturating_record(micros(late));
    }

    /// A request that was due then is not sent.
    pub fn hold_back(&mut self, due: Duration) {
        self.held_back += 1;
        self.at(due).due += 1;
    }

    /// A request that was due then has come to its end now.
    pub fn end(&mut self, due: Duration, now: Instant, fate: Fate) {
        let end = now.saturating_duration_since(self.begin);
        match fate {
            Fate::Answered(status) => {
                *self.statuses.entry(status).or_default() += 1;
                let took = micros(end.saturating_sub(due));
                self.latency.saturating_record(took);
                self.at(due).latency.saturating_record(took);
                self.at(end).answered += 1;
            }
            Fate::Lost(loss, text) => {
                *self.losses.entry(loss).or_default() += 1;
                self.at(end).lost += 1;
                let known = self.texts.contains_key(&text) || self.texts.len() < TEXTS;
                let text = if known { text } else { "others".to_owned() };
                *self.texts.entry(text).or_default() += 1;
            }
        }
    }

    fn at(&mut self, time: Duration) -> &mut Stretch {
        let at = (time.as_nanos() / self.stretch.as_nanos().max(1)) as usize;
        while self.stretches.len() <= at {
            self.stretches.push(Stretch {
                due: 0,
                answered: 0,
                lost: 0,
                latency: self.empty.clone(),
            });
        }
        &mut self.stretches[at]
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
