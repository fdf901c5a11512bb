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
    time::{Instant, sleep_until, timeout},
};

use super::{Answer, START_INTERVAL, START_TIMEOUT, get::get};
use crate::config::HealthConfig;

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
/// returns false. A `fresh` backend is asked every 50 ms until its
/// first 200; after it, and for any other from the second probe on, every `rules.interval`, the
/// phase spread by `seed` so that many backends are not asked at once.
pub fn spawn<F>(
    prober: Arc<dyn Prober>,
    target: Target,
    rules: &HealthConfig,
    fresh: bool,
    seed: &str,
    report: F,
) -> Task
where
    F: Fn(Answer) -> bool + Send + 'static,
{
    let (interval, limit) = (rules.interval, rules.timeout);
    let phase = phase(seed, interval);
    Task(tokio::spawn(async move {
        let mut starting = fresh;
        let mut wait = phase;
        loop {
            let begun = Instant::now();
            let limit = if starting {
                limit.min(START_TIMEOUT)
            } else {
                limit
            };
            let answer = timeout(limit, prober.ask(&target))
                .await
                .unwrap_or(Answer::TimedOut);
            if !report(answer) {
                return;
            }
            starting = starting && !answer.is_good();
            if starting {
                sleep_until(begun + START_INTERVAL).await;
            } else {
                sleep_until(begun + wait).await;
                wait = interval;
            }
        }
    }))
}

/// A time below `interval` that depends on `seed` alone.
fn phase(seed: &str, interval: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    interval.mul_f64((hasher.finish() % 1000) as f64 / 1000.0)
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
    async fn a_fresh_backend_is_asked_every_50_ms_until_its_first_200() {
        let rules = HealthConfig {
            path: "/".into(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(900),
            unhealthy_after: 2,
            start_limit: Duration::from_secs(30),
        };
        let (sender, mut answers) = mpsc::unbounded_channel();
        let script = Script(std::sync::Mutex::new(vec![Answer::Refused; 3]));
        let target = Target {
            address: ([127, 0, 0, 1], 1).into(),
            path: "/".into(),
        };
        let begun = Instant::now();
        let report = move |answer| sender.send((answer, begun.elapsed())).is_ok();
        let _task = spawn(Arc::new(script), target, &rules, true, "seed", report);
        let mut times = Vec::new();
        for _ in 0..7 {
            times.push(answers.recv().await.unwrap().1.as_millis());
        }
        assert_eq!(times[..4], [0, 50, 100, 150]);
        assert!(times[4] - times[3] <= 1000, "within an interval: {times:?}");
        assert_eq!((times[5] - times[4], times[6] - times[5]), (1000, 1000));
    }
}
