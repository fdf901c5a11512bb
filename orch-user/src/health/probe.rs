//! Probes: a `GET` on a connection of its own, and the task that repeats it.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use http_body_util::Empty;
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1,
    header::{CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{Answer, START_INTERVAL, START_TIMEOUT};
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

/// Asks by HTTP/1.1.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpProber;

impl Prober for HttpProber {
    fn ask<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Answer> {
        Box::pin(get(target))
    }
}

async fn get(target: &Target) -> Answer {
    let Ok(stream) = TcpStream::connect(target.address).await else {
        return Answer::Refused;
    };
    let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else {
        return Answer::Broken;
    };
    let request = Request::get(&target.path)
        .header(HOST, target.address.to_string())
        .header(USER_AGENT, "orch")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let Ok(request) = request else {
        return Answer::Broken;
    };
    // The body is left unread: the status says all, and a fresh connection carries nothing else.
    let _driver = Task(tokio::spawn(async move {
        // An error of the connection also ends the request, which is where it is seen.
        let _ = connection.await;
    }));
    match sender.send_request(request).await {
        Ok(response) => Answer::Status(response.status().as_u16()),
        Err(_) => Answer::Broken,
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
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        sync::mpsc,
    };

    use super::*;

    async fn listener() -> (TcpListener, Target) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target {
            address: listener.local_addr().unwrap(),
            path: "/api/v1/_health".into(),
        };
        (listener, target)
    }

    /// Answers one request with these bytes, closes, and returns the request.
    async fn answer(listener: TcpListener, response: &[u8]) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 1024];
        let len = stream.read(&mut request).await.unwrap();
        stream.write_all(response).await.unwrap();
        request.truncate(len);
        String::from_utf8(request).unwrap()
    }

    #[tokio::test]
    async fn the_status_is_the_answer() {
        for (response, status) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200),
            ("HTTP/1.0 500 Oh\r\n\r\nmuch text", 500),
        ] {
            let (listener, target) = listener().await;
            let (got, request) = tokio::join!(
                HttpProber.ask(&target),
                answer(listener, response.as_bytes())
            );
            assert_eq!(got, Answer::Status(status));
            assert!(
                request.starts_with("GET /api/v1/_health HTTP/1.1\r\n"),
                "{request}"
            );
            assert!(request.contains("connection: close"), "{request}");
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_told_apart() {
        let (silent, target) = listener().await;
        let asked = timeout(Duration::from_millis(50), HttpProber.ask(&target)).await;
        assert!(asked.is_err(), "the caller ends it");
        drop(silent);
        assert_eq!(HttpProber.ask(&target).await, Answer::Refused);
        for response in ["", "SSH-2.0-none\r\n"] {
            let (listener, target) = listener().await;
            let (got, _) = tokio::join!(
                HttpProber.ask(&target),
                answer(listener, response.as_bytes())
            );
            assert_eq!(got, Answer::Broken);
        }
    }

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
