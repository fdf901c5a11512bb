//! The real binary: one request at a time, in order.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers, too")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ChildStderr, Command, Stdio},
    time::{Duration, Instant},
};

/// What the tests have a request take: the order shows, and the test is short.
const WORK: Duration = Duration::from_millis(60);

struct Cna {
    child: Child,
    /// Kept open: a program that logs to a closed pipe dies of it.
    _log: BufReader<ChildStderr>,
    port: u16,
}

impl Cna {
    fn start(words: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cna"))
            .args(["--port", "0"])
            .args(words)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().unwrap().parse().unwrap();
        Self {
            child,
            _log: log,
            port,
        }
    }

    fn working() -> Self {
        Self::start(&["--work", &WORK.as_millis().to_string()])
    }

    /// Sends a request and does not wait.
    fn send(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let limit = Some(Duration::from_secs(30));
        stream.set_read_timeout(limit).unwrap();
        let text = format!("GET {path} HTTP/1.1\r\nHost: cna\r\nConnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }
}

fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

impl Drop for Cna {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn requests_are_done_one_at_a_time() {
    let cna = Cna::working();
    let begin = Instant::now();
    let streams: Vec<_> = (0..10).map(|_| cna.send("/doWork")).collect();
    // Each ends at least one turn after the one before, whoever is first.
    let mut ends: Vec<_> = streams
        .into_iter()
        .map(|stream| {
            std::thread::spawn(move || {
                assert!(answer(stream).starts_with("HTTP/1.1 200"));
                begin.elapsed()
            })
        })
        .map(|thread| thread.join().unwrap())
        .collect();
    ends.sort();
    assert!(ends[9] >= WORK * 10, "{ends:?}");
    assert!(ends[0] >= WORK, "{ends:?}");
}

#[test]
fn who_came_first_is_served_first() {
    let cna = Cna::working();
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(cna.send("/doWork"));
        // What is sent after another's heartbeat was sent after it.
        assert!(answer(cna.send("/heartbeat")).starts_with("HTTP/1.1 200"));
    }
    for at in 0..5 {
        let first = streams.remove(0);
        answer(first);
        // Those behind have no answer yet, since each takes a turn of its own.
        if let Some(last) = streams.last() {
            last.set_nonblocking(true).unwrap();
            let open = last.peek(&mut [0]).is_err();
            assert!(
                open || streams.len() == 1,
                "the last is answered after {at}"
            );
            last.set_nonblocking(false).unwrap();
        }
    }
}

#[test]
fn a_heartbeat_does_not_wait() {
    let cna = Cna::start(&["--work", "20000"]);
    let _work = cna.send("/doWork");
    let text = answer(cna.send("/heartbeat"));
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let (id, port) = (cna.child.id(), cna.port);
    for part in [format!("\"id\":\"{id}\""), format!("\"port\":{port}")] {
        assert!(text.contains(&part), "{text}");
    }
}

#[test]
fn stop_is_answered_and_ends_the_process_after_the_work() {
    let mut cna = Cna::working();
    let work = cna.send("/doWork");
    assert!(answer(cna.send("/heartbeat")).contains("tick"));
    assert!(answer(cna.send("/stop")).starts_with("HTTP/1.1 200"));
    assert!(answer(work).starts_with("HTTP/1.1 200"));
    assert!(cna.child.wait().unwrap().success());
}
