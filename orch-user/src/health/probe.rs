//! Probes: the task that asks a backend how it is, again and again.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout},
};

use super::{Answer, EAGER_INTERVAL, START_TIMEOUT, get::get};
use crate::{
    beat::{BEAT, Beats},
    config::HealthConfig,
};

/// Whom to ask, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where the backend listens.
    pub address: SocketAddr,
    /// The path to `GET`.
    pub path: String,
}

/// What asks a backend how it is. Must end when its future is dropped.
pub trait Prober: Send + Sync {
    /// Asks once, however long it takes.
    fn ask<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Answer>;
}

/// Asks by HTTP/1.1, each time on a connection of its own: a kept one would not notice that nobody
/// listens any more.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpProber;

impl Prober for HttpProber {
    fn ask<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Answer> {
        Box::pin(get(target))
    }
}

/// A task that ends with its handle.
#[derive(Debug)]
pub struct Task(pub JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Probes a backend until the task is dropped, and hands each answer to `report`; stops when that
/// returns false. A `fresh` backend is asked so often until its first 200, and more often in the
/// first moments, since many a program needs no longer to start; after it, and for any other from the second probe on, every `rules.interval`. That
/// begins at one of the `beats`, so that few wake-ups are enough for many backends; which of them
/// depends on `seed`, so that not all are asked at once.
pub fn spawn<F>(
    prober: Arc<dyn Prober>,
    target: Target,
    rules: &HealthConfig,
    fresh: Option<Duration>,
    (beats, seed): (Beats, &str),
    report: F,
) -> Task
where
    F: Fn(Answer) -> bool + Send + 'static,
{
    let (interval, limit) = (rules.interval, rules.timeout);
    let phase = phase(seed, interval);
    Task(tokio::spawn(async move {
        let ask = async |limit| {
            let answer = timeout(limit, prober.ask(&target)).await;
            answer.unwrap_or(Answer::TimedOut)
        };
        let first_limit = if fresh.is_some() {
            limit.min(START_TIMEOUT)
        } else {
            limit
        };
        let mut pause = EAGER_INTERVAL;
        let regular = loop {
            let begun = Instant::now();
            let answer = ask(first_limit).await;
            if !report(answer) {
                return;
            }
            let Some(longest) = fresh.filter(|_| !answer.is_good()) else {
                // An interval may be shorter than a beat.
                break (beats.after(begun) + phase).min(begun + interval);
            };
            pause = pause.min(longest);
            sleep_until(begun + pause).await;
            pause *= 2;
        };
        let mut due = interval_at(regular, interval);
        // Asking late must not make the next ones come faster, nor off the beat.
        due.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            due.tick().await;
            let answer = ask(limit).await;
            if !report(answer) {
                return;
            }
        }
    }))
}

/// Some whole beats, fewer than there are in the `interval`, that depend on `seed` alone.
fn phase(seed: &str, interval: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    let beats = interval.as_nanos() / BEAT.as_nanos();
    BEAT * (u128::from(hasher.finish()) % beats.max(1)) as u32
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    struct Script(std::sync::Mutex<Vec<Answer>>);

    impl Prober for Script {
        fn ask<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Answer> {
            Box::pin(async {
                let next = self.0.lock().unwrap().pop();
                next.unwrap_or(Answer::Status(200))
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_backend_is_asked_often_until_its_first_200() {
        let rules = HealthConfig {
            path: "/".into(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(900),
            unhealthy_after: 2,
            start_limit: Duration::from_secs(30),
        };
        let (sender, mut answers) = mpsc::unbounded_channel();
        let script = Script(std::sync::Mutex::new(vec![Answer::Refused; 7]));
        let target = Target {
            address: ([127, 0, 0, 1], 1).into(),
            path: "/".into(),
        };
        let begun = Instant::now();
        let fresh = Duration::from_millis(50);
        let report = move |answer| sender.send((answer, begun.elapsed())).is_ok();
        let beats = Beats::from(begun);
        let script = Arc::new(script);
        let _task = spawn(script, target, &rules, Some(fresh), (beats, "seed"), report);
        let mut times = Vec::new();
        for _ in 0..11 {
            times.push(answers.recv().await.unwrap().1.as_millis());
        }
        assert_eq!(times[..8], [0, 2, 6, 14, 30, 62, 112, 162]);
        assert!(times[8] - times[7] <= 1000, "within an interval: {times:?}");
        assert_eq!((times[9] - times[8], times[10] - times[9]), (1000, 1000));
        assert_eq!(times[8] % BEAT.as_millis(), 0, "together with all else");
    }
}
