//! `orch load` as users call it, against servers that do one thing each.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers, too")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use orch::load::report::Report;
use socket2::SockRef;

fn load(url: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orch"));
    command.arg("load").arg(url).args(words);
    command.env_remove("ORCH_CONTROL").stdin(Stdio::null());
    command
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// The report of a run that ends well.
fn report(address: SocketAddr, words: &[&str]) -> Report {
    let url = format!("http://{address}/work?x=1");
    let all = [words, &["-o", "json", "--quiet"]].concat();
    let (code, text, errors) = said(&load(&url, &all).output().unwrap());
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
    let report: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(report.sent, report.answered + report.lost, "{report:#?}");
    let sum: u64 = report.lost_by.values().sum();
    assert_eq!(report.lost, sum);
    let classes: u64 = report.classes.values().sum();
    assert_eq!(report.answered, classes);
    let series = |of: fn(&orch::load::report::Point) -> u64| report.series.iter().map(of).sum();
    let (offered, answered, lost): (u64, u64, u64) = (
        series(|at| at.offered),
        series(|at| at.answered),
        series(|at| at.lost),
    );
    assert_eq!(offered, report.sent + report.held_back);
    assert_eq!((answered, lost), (report.answered, report.lost));
    report
}

/// A server that gives each connection to `serve`, with the number of connections before it. It
/// lives as long as the test.
fn server(serve: impl Fn(TcpStream, u64) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            serve(stream.unwrap(), number as u64);
        }
    });
    address
}

/// Reads a request without a body; its lines, or nothing at the connection's end.
fn read(stream: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            return Some(lines);
        }
        lines.push(line.trim_end().to_owned());
    }
}

fn answer(stream: TcpStream, status: u16) {
    let mut stream = BufReader::new(stream);
    if read(&mut stream).is_some() {
        let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok");
        let _ = stream.get_mut().write_all(text.as_bytes());
    }
}

/// Keeps its connections open and says nothing.
fn silent() -> SocketAddr {
    let open = std::sync::Mutex::new(Vec::new());
    server(move |stream, _| open.lock().unwrap().push(stream))
}

#[test]
fn every_request_is_sent_and_counted_by_its_class() {
    let statuses = [200, 204, 301, 404, 500];
    let address = server(move |stream, number| answer(stream, statuses[number as usize % 5]));
    let report = report(address, &["--rate", "100", "--duration", "1s"]);
    assert_eq!((report.sent, report.answered), (100, 100));
    assert_eq!((report.connected, report.connections), (100, 100));
    let classes: Vec<_> = report.classes.into_iter().collect();
    let expect = [("2xx", 40), ("3xx", 20), ("4xx", 20), ("5xx", 20)];
    assert_eq!(
        classes,
        expect.map(|(class, count)| (class.to_owned(), count))
    );
    assert_eq!(report.statuses[&404], 20);
    assert!(!report.stopped);
}

/// A closed loop would have one slow answer to show.
#[test]
fn whoever_waits_behind_a_stall_is_seen_to_wait() {
    let stall = Duration::from_millis(600);
    let address = server(move |stream, number| {
        if number == 20 {
            thread::sleep(stall);
        }
        answer(stream, 200);
    });
    let report = report(address, &["--rate", "100", "--duration", "1s"]);
    assert_eq!(report.answered, 100);
    assert!(report.latency_ms.max >= 599.0, "{:?}", report.latency_ms);
    // 60 of them were due while it stalled; the 40th of those still waits 200 ms.
    assert!(report.latency_ms.p50 >= 90.0, "{:?}", report.latency_ms);
    assert!(report.latency_ms.p90 >= 480.0, "{:?}", report.latency_ms);
}

#[test]
fn refused_requests_are_lost_and_had_no_connection() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let report = report(closed, &["--rate", "50", "--duration", "1s"]);
    assert_eq!((report.sent, report.connected), (50, 0));
    assert_eq!(report.lost_by["refused"], 50);
    assert_eq!(report.latency_ms, orch::load::report::Quantiles::default());
}

#[test]
fn what_ends_before_its_answer_is_whole_is_lost_as_reset() {
    let address = server(|stream, number| {
        let mut stream = BufReader::new(stream);
        read(&mut stream);
        let half = b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\nhalf";
        match number % 3 {
            // No answer, and an end.
            0 => {}
            // Half an answer.
            1 => stream.get_mut().write_all(half).unwrap(),
            // A reset.
            _ => SockRef::from(stream.get_ref())
                .set_linger(Some(Duration::ZERO))
                .unwrap(),
        }
    });
    let report = report(address, &["--rate", "30", "--duration", "1s"]);
    assert_eq!((report.answered, report.connected), (0, 30));
    assert_eq!(report.lost_by["reset"], 30, "{:?}", report.errors);
}

#[test]
fn an_answer_that_is_no_http_is_lost_as_other() {
    let address = server(|stream, _| {
        let mut stream = BufReader::new(stream);
        read(&mut stream);
        stream.get_mut().write_all(b"+PONG\r\n\r\n").unwrap();
    });
    let report = report(address, &["--rate", "10", "--duration", "1s"]);
    assert_eq!(report.lost_by["other"], 10, "{:?}", report.errors);
}

#[test]
fn silence_is_a_timeout_or_unanswered_where_nobody_waits() {
    let words = ["--rate", "20", "--duration", "1s", "--timeout"];
    let timed = report(silent(), &[&words[..], &["100ms"]].concat());
    assert_eq!(timed.lost_by["timed_out"], 20);
    let cut = report(silent(), &[&words[..], &["60s", "--wait", "0s"]].concat());
    assert_eq!((cut.lost_by["unanswered"], cut.open_at_end), (20, 20));
}

#[test]
fn what_exceeds_the_limit_is_held_back_and_said() {
    let words = [
        "--rate",
        "20",
        "--duration",
        "1s",
        "--wait",
        "0s",
        "--limit",
        "3",
    ];
    let report = report(silent(), &words);
    assert_eq!((report.sent, report.held_back), (3, 17));
    let url = format!("http://{}/", silent());
    let (code, text, _) = said(&load(&url, &words).output().unwrap());
    assert_eq!(code, Some(0));
    assert!(text.contains("17 requests were due and not sent"), "{text}");
}

/// Kept connections are used again; one that the server closes between two requests is no loss.
#[test]
fn kept_connections_are_used_again() {
    let address = server(|stream, _| {
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            for _ in 0..10 {
                if read(&mut stream).is_none() {
                    return;
                }
                let text = b"HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n";
                stream.get_mut().write_all(text).unwrap();
            }
        });
    });
    let report = report(
        address,
        &["--keep-alive", "--rate", "40", "--duration", "1s"],
    );
    assert_eq!(report.answered, 40, "{:?}", report.errors);
    assert!(
        (4..40).contains(&report.connections),
        "{}",
        report.connections
    );
}

#[test]
fn method_headers_and_body_are_sent() {
    let (sender, seen) = mpsc::channel();
    let address = server(move |stream, _| {
        let mut stream = BufReader::new(stream);
        let head = read(&mut stream).unwrap();
        let mut body = [0; 5];
        stream.read_exact(&mut body).unwrap();
        let text = b"HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n";
        stream.get_mut().write_all(text).unwrap();
        sender.send((head, body)).unwrap();
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("body");
    fs::write(&file, "hello").unwrap();
    let words = [
        "-X",
        "PUT",
        "-H",
        "X-One: two",
        "--rate",
        "1",
        "-d",
        "1s",
        "--body",
    ];
    report(address, &[&words[..], &[file.to_str().unwrap()]].concat());
    let (head, body) = seen.recv().unwrap();
    assert_eq!(head[0], "PUT /work?x=1 HTTP/1.1");
    assert_eq!(&body, b"hello");
    let host = format!("host: {address}");
    for line in [
        "x-one: two",
        "content-length: 5",
        "connection: close",
        &host,
    ] {
        assert!(
            head.iter().any(|has| has.eq_ignore_ascii_case(line)),
            "{line}: {head:?}"
        );
    }
}

#[test]
fn a_trace_from_a_file_is_sent_to_the_request() {
    let address = server(|stream, _| answer(stream, 200));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trace.csv");
    fs::write(&file, "# mine\nsecond,count\n10,7\n11,0\n12,5\n").unwrap();
    let report = report(address, &["--pattern", "trace", file.to_str().unwrap()]);
    assert_eq!((report.sent, report.planned_s), (12, 3.0));
    let offered: Vec<_> = report.series.iter().map(|point| point.offered).collect();
    assert_eq!(offered[..3], [7, 0, 5]);
}

#[test]
fn ctrl_c_ends_it_early_and_it_reports() {
    let count = Arc::new(AtomicU64::new(0));
    let served = Arc::clone(&count);
    let address = server(move |stream, _| {
        answer(stream, 200);
        served.fetch_add(1, Ordering::Relaxed);
    });
    let words = ["--rate", "100", "--duration", "10m", "-o", "json", "-q"];
    let mut command = load(&format!("http://{address}/"), &words);
    let child: Child = command.stdout(Stdio::piped()).spawn().unwrap();
    while count.load(Ordering::Relaxed) < 20 {
        thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let (code, text, _) = said(&child.wait_with_output().unwrap());
    let report: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(code, Some(0));
    assert!(report.stopped && report.answered >= 20);
    assert_eq!(report.sent, report.answered + report.lost);
}

#[test]
fn the_report_goes_into_files_too() {
    let address = server(|stream, _| answer(stream, 200));
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (json, svg, png) = (at("r.json"), at("r.svg"), at("r.png"));
    let words = ["--rate", "20", "-d", "1s", "--json", &json, "--chart", &svg];
    let shown = report(address, &words);
    let written: Report = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(written, shown);
    let picture = fs::read_to_string(&svg).unwrap();
    for word in ["<svg", "offered", "answered", "p99", "seconds"] {
        assert!(picture.contains(word), "{word}");
    }
    report(address, &["--rate", "20", "-d", "1s", "--chart", &png]);
    let picture = fs::read(&png).unwrap();
    assert_eq!(&picture[1..4], b"PNG");
    assert!(picture.len() > 5_000, "{} bytes", picture.len());
}

#[test]
fn what_cannot_be_run_is_one_clear_error() {
    for (url, words, code, expect) in [
        ("https://localhost/", &[][..], 2, "without TLS"),
        ("http://a b/", &[], 2, "it is no URL"),
        (
            "http://host.invalid/",
            &[],
            1,
            "cannot find the host `host.invalid`",
        ),
        (
            "localhost",
            &["-p", "wobble"],
            2,
            "there is no pattern `wobble`",
        ),
        (
            "localhost",
            &["--body", "/nonexistent"],
            2,
            "cannot read /nonexistent",
        ),
        (
            "localhost",
            &["--json", "/nonexistent/x"],
            1,
            "cannot write /nonexistent/x",
        ),
        (
            "localhost",
            &["--chart", "x.gif"],
            2,
            "must end in .svg or .png",
        ),
        ("localhost", &["-H", "none"], 2, "`none` is no header"),
        (
            "localhost",
            &["--service", "a", "--control", "/nonexistent"],
            1,
            "no controller answers",
        ),
    ] {
        let (found, text, errors) = said(&load(url, words).output().unwrap());
        assert_eq!(
            (found, text.as_str()),
            (Some(code), ""),
            "{url} {words:?}: {errors}"
        );
        assert!(
            errors.starts_with("error: ") && errors.contains(expect),
            "{url} {words:?}: {errors}"
        );
        assert_eq!(errors.matches("error:").count(), 1, "{errors}");
    }
}
