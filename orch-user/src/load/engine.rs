//! The open loop: sends each request when it is due, whatever became of those before.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, watch},
    task, time,
};

use super::{
    error::LoadError,
    pacer::Pacer,
    pattern::Plan,
    tally::{Fate, Loss, Tally},
    wire::Wire,
};

/// Requests that are sent at once where the client is behind, before it looks at answers.
const BURST: usize = 32;

/// What a run may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For connecting and the whole answer of one request, from its sending on.
    pub timeout: Duration,
    /// Requests in flight at once; what is due beyond them is not sent, and counted.
    pub in_flight: u64,
    /// How long answers are waited for when all requests are sent.
    pub wait: Duration,
}

/// What has been counted, shared by all requests and by whoever looks on.
#[derive(Clone, Debug)]
pub struct Shared {
    tally: Arc<Mutex<Tally>>,
    /// Rung when the last request in flight has ended.
    quiet: Arc<Notify>,
}

impl Shared {
    /// Nothing counted; the pattern begins now.
    pub fn begin(length: Duration) -> Result<Self, LoadError> {
        let tally = Tally::new(Instant::now(), length).map_err(|error| LoadError::Prepare {
            what: "the histograms",
            source: io::Error::other(error),
        })?;
        Ok(Self {
            tally: Arc::new(Mutex::new(tally)),
            quiet: Arc::default(),
        })
    }

    /// What is counted so far. Held for a moment only: requests wait for it.
    pub fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, due: Duration, fate: Fate) {
        let mut tally = self.lock();
        tally.end(due, Instant::now(), fate);
        if tally.in_flight() == 0 {
            self.quiet.notify_one();
        }
    }
}

/// What a run has come to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was counted.
    pub tally: Tally,
    /// From the beginning to the last answer, or to the end of waiting for it.
    pub elapsed: Duration,
    /// Requests in flight when the pattern was over.
    pub open_at_end: u64,
    /// Whether it was told to stop.
    pub stopped: bool,
}

/// Sends the requests of a plan, until it is over or `stop` becomes true.
pub async fn run(
    plan: &Plan,
    wire: Arc<Wire>,
    limits: Limits,
    shared: &Shared,
    mut stop: watch::Receiver<bool>,
) -> Result<Outcome, LoadError> {
    let stopped = tokio::select! {
        sent = send_all(plan, &wire, limits, shared) => {
            sent?;
            false
        }
        _ = stop.wait_for(|stop| *stop) => true,
    };
    let open_at_end = shared.lock().in_flight();
    let mut cut = stopped;
    if !stopped {
        cut = tokio::select! {
            () = all_answered(shared) => false,
            () = time::sleep(limits.wait) => true,
            _ = stop.wait_for(|stop| *stop) => true,
        };
    }
    let mut tally = shared.lock().clone();
    let end = Instant::now();
    let left = tally.in_flight();
    for _ in 0..if cut { left } else { 0 } {
        let text = "no answer when the run ended".to_owned();
        tally.end(Duration::ZERO, end, Fate::Lost(Loss::Unanswered, text));
    }
    Ok(Outcome {
        elapsed: end - tally.begin,
        tally,
        open_at_end,
        stopped,
    })
}

async fn send_all(
    plan: &Plan,
    wire: &Arc<Wire>,
    limits: Limits,
    shared: &Shared,
) -> Result<(), LoadError> {
    let prepare = |source| LoadError::Prepare {
        what: "a timer",
        source,
    };
    let pacer = Pacer::new().map_err(prepare)?;
    let begin = shared.lock().begin;
    let mut burst = 0;
    for due in plan.arrivals() {
        let moment = begin + due;
        if moment > Instant::now() {
            pacer.until(moment).await.map_err(prepare)?;
            burst = 0;
        }
        burst += 1;
        if burst > BURST {
            task::yield_now().await;
            burst = 0;
        }
        {
            let mut tally = shared.lock();
            if tally.in_flight() >= limits.in_flight {
                tally.hold_back(due);
                continue;
            }
            tally.send(due);
        }
        let (wire, shared) = (Arc::clone(wire), shared.clone());
        task::spawn(async move {
            shared.lock().sending(due, Instant::now());
            let asked = time::timeout(limits.timeout, wire.ask(&shared)).await;
            shared.end(due, asked.unwrap_or_else(|_| late(limits.timeout)));
        });
    }
    // The pattern has its length, also where nothing is due at its end.
    pacer.until(begin + plan.length()).await.map_err(prepare)
}

async fn all_answered(shared: &Shared) {
    while shared.lock().in_flight() > 0 {
        shared.quiet.notified().await;
    }
}

fn late(limit: Duration) -> Fate {
    let limit = humantime::format_duration(limit);
    Fate::Lost(Loss::TimedOut, format!("no whole answer within {limit}"))
}
