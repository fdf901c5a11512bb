//! What copies may answer. Plain requests and their answers are handed on as bytes, all others by the
//! library: what clients hear must be the same, so each is the other's reference. But for codings that
//! nobody has asked for (`Transfer-Encoding: gzip`), which the library hands on as if they were none.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use crate::bench::{Copy, Gate, until};

const PLAIN: &str = "";
/// A copy does not see it, and the library has the request for it.
const NOT_PLAIN: &str = "Proxy-Connection: keep-alive\r\n";

/// A copy that says the same to every request.
struct Script {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// How often it has said all.
    said: Arc<AtomicUsize>,
}

impl Script {
    /// Says it in steps of so many bytes, and closes the connection or not.
    fn start(says: &[u8], step: usize, closes: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let said = Arc::new(AtomicUsize::new(0));
        let (count, ends) = (Arc::clone(&connections), Arc::clone(&said));
        let says: Arc<[u8]> = says.into();
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, SeqCst);
                let stream = stream.unwrap();
                let (says, ends) = (Arc::clone(&says), Arc::clone(&ends));
                thread::spawn(move || speak(stream, &says, step, closes, &ends));
            }
        });
        Self {
            address,
            connections,
            said,
        }
    }

    /// Has the gateway ask this copy alone, which is a new one to it.
    fn enter(&self, gate: &mut Gate) {
        let slot = &mut gate.service().slots[0];
        slot.address = self.address;
        slot.generation += 1;
        gate.only(&[0]);
    }
}

fn speak(
    mut stream: TcpStream,
    says: &[u8],
    step: usize,
    closes: bool,
    said: &AtomicUsize,
) -> Option<()> {
    stream.set_nodelay(true).unwrap();
    loop {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut piece = [0; 1024];
            let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
            request.extend_from_slice(&piece[..read]);
        }
        let mut parts = says.chunks(step);
        let heard = parts.all(|part| stream.write_all(part).is_ok());
        said.fetch_add(1, SeqCst);
        if closes || !heard {
            return None;
        }
    }
}

/// What a client hears of two requests on one connection.
#[derive(Debug, PartialEq)]
struct Heard {
    /// Status, fields and body of each that was answered.
    answers: Vec<(u16, Vec<String>, String)>,
    /// Connections that the copy has had for them.
    connections: usize,
}

fn hear(gate: &mut Gate, method: &str, line: &str, script: &Script) -> Heard {
    script.enter(gate);
    script.connections.store(0, SeqCst);
    let mut talk = gate.connect();
    let mut answers = Vec::new();
    for _ in 0..2 {
        talk.try_say(format!("{method} /api/a HTTP/1.1\r\nHost: t\r\n{line}\r\n").as_bytes());
        // A body that breaks off ends the connection within it.
        let answer =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| talk.try_answer(method)));
        let Ok(Some(answer)) = answer else {
            break;
        };
        let fields = answer.head.lines().skip(1).map(str::to_ascii_lowercase);
        // The moment is not the same, and the library has it elsewhere.
        let fields = fields.filter(|field| !field.starts_with("date: ") && !field.is_empty());
        let mut fields: Vec<_> = fields.collect();
        fields.sort_unstable();
        assert!(answer.field("date").is_some(), "{}", answer.head);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        answers.push((answer.status, fields, text));
    }
    Heard {
        answers,
        connections: script.connections.load(SeqCst),
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\n";

fn head(lines: &str, body: &str) -> String {
    format!("{OK}{lines}\r\n{body}")
}

/// Longer than any buffer.
fn long() -> String {
    "x".repeat(300_000)
}

/// Answers behind which another may follow.
fn whole() -> Vec<String> {
    let long = long();
    vec![
        head(
            "Content-Length: 5\r\nX-A: b\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n",
            "hello",
        ),
        head("Content-Length: 0\r\n", ""),
        head("content-length: 300000\r\n", &long),
        head(
            "Transfer-Encoding: chunked\r\n",
            "3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n",
        ),
        head(
            "Transfer-Encoding: chunked\r\n",
            &format!("493e0\r\n{long}\r\n0\r\n\r\n"),
        ),
        head(
            "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 1\r\n",
            "a",
        ),
        head(
            "Connection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 1\r\n",
            "a",
        ),
        format!(
            "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n{}",
            head("Content-Length: 1\r\n", "a")
        ),
        "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n".to_owned(),
        "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n".to_owned(),
        "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone".to_owned(),
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
            .to_owned(),
        head(
            "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 1\r\n",
            "a",
        ),
        head("Content-Length: 1\r\nContent-Length: 1\r\n", "a"),
        "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(),
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nold".to_owned(),
    ]
}

/// Answers that end with their connection, are broken off, or are no HTTP.
fn last() -> Vec<String> {
    vec![
        head("Connection: close\r\nContent-Length: 5\r\n", "hello"),
        head("Connection: close\r\n", "until the end"),
        head("", ""),
        head("", &long()),
        "HTTP/1.0 200 OK\r\n\r\nold".to_owned(),
        "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Le".to_owned(),
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n".to_owned(),
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        head("Content-Length: 1\r\nContent-Length: 2\r\n", "ab"),
        head("Content-Length: a\r\n", "ab"),
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n"
            .to_owned(),
    ]
}

#[test]
fn plain_or_not_clients_hear_the_same() {
    let copy = Copy::start("A");
    let mut gate = Gate::open("", &[&copy]);
    let all = whole().into_iter().map(|says| (says, false));
    for (says, closes) in all.chain(last().into_iter().map(|says| (says, true))) {
        let byte_by_byte = (says.len() < 1000).then_some(1);
        for step in [usize::MAX, 7_919].into_iter().chain(byte_by_byte) {
            let script = Script::start(says.as_bytes(), step, closes);
            let plain = hear(&mut gate, "GET", PLAIN, &script);
            let other = hear(&mut gate, "GET", NOT_PLAIN, &script);
            let shown: String = says.chars().take(200).collect();
            assert_eq!(plain, other, "{shown:?} in steps of {step}");
            let connections = if closes { plain.connections } else { 1 };
            assert_eq!(plain.connections, connections, "{shown:?}");
        }
    }
    let script = Script::start(head("Content-Length: 5\r\n", "").as_bytes(), 64, false);
    let plain = hear(&mut gate, "HEAD", PLAIN, &script);
    assert_eq!(plain, hear(&mut gate, "HEAD", NOT_PLAIN, &script));
    assert_eq!((plain.answers.len(), plain.connections), (2, 1));
}

/// A body that breaks off, or is none, ends the client's connection: nothing after it could be told
/// from it.
#[test]
fn a_broken_body_ends_the_connection() {
    let copy = Copy::start("A");
    let mut gate = Gate::open("", &[&copy]);
    for (says, closes) in [
        (format!("{OK}Content-Length: 9\r\n\r\nhello"), true),
        (
            format!("{OK}Transfer-Encoding: chunked\r\n\r\n9\r\nhello"),
            true,
        ),
        (
            format!("{OK}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"),
            true,
        ),
        (
            format!("{OK}Transfer-Encoding: chunked\r\n\r\n5\r\nhello!!!"),
            false,
        ),
        (
            format!("{OK}Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
            false,
        ),
    ] {
        for line in [PLAIN, NOT_PLAIN] {
            let script = Script::start(says.as_bytes(), usize::MAX, closes);
            script.enter(&mut gate);
            let mut talk = gate.connect();
            talk.say(&format!("GET /api/a HTTP/1.1\r\nHost: t\r\n{line}\r\n"));
            let all = String::from_utf8(talk.rest()).unwrap();
            // What is broken at once may never have begun.
            assert!(all.is_empty() || all.starts_with(OK), "{all:?}");
            assert!(!all.ends_with("0\r\n\r\n"), "{all:?}");
            until("the flight to end", || (gate.live() == 0).then_some(()));
        }
    }
}

/// What a copy says behind its answer is never taken for the next one's.
#[test]
fn what_comes_behind_an_answer_is_nobody_s() {
    let copy = Copy::start("A");
    let mut gate = Gate::open("", &[&copy]);
    let first = format!("{OK}Content-Length: 5\r\n\r\nfirst");
    let forged = format!("{OK}Content-Length: 6\r\n\r\nforged");
    for says in [
        format!("{first}{forged}"),
        format!("{OK}Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n{forged}"),
        format!("HTTP/1.1 204 No Content\r\n\r\n{forged}"),
    ] {
        for step in [usize::MAX, 1] {
            let script = Script::start(says.as_bytes(), step, false);
            script.enter(&mut gate);
            let mut talk = gate.connect();
            for count in 1..=5 {
                talk.say("GET /api/a HTTP/1.1\r\nHost: t\r\n\r\n");
                let answer = talk.answer("GET");
                assert_ne!(answer.text(), "forged", "in steps of {step}");
                // What comes while another request is on its way cannot be told from its answer.
                until("all to be said", || {
                    (script.said.load(SeqCst) >= count).then_some(())
                });
            }
        }
    }
}

/// Requests of both kinds on one connection, many at once, are answered in their order; and again
/// where the connection was silent for so long that whoever served it has given it back.
#[test]
fn plain_requests_and_others_keep_their_order() {
    let copy = Copy::start("A");
    let gate = Gate::open("", &[&copy]);
    let mut talk = gate.connect();
    for _ in 0..3 {
        let said = (0..60).map(|number| match number % 5 {
            2 => format!(
                "POST /api/upload?{number} HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi"
            ),
            3 => "GET /nowhere HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(),
            4 => format!("GET /api/head?{number} HTTP/1.1\r\nHost: t\r\n{NOT_PLAIN}\r\n"),
            _ => format!("GET /api/head?{number} HTTP/1.1\r\nHost: t\r\n\r\n"),
        });
        talk.say(&said.collect::<String>());
        for number in 0..60 {
            let answer = talk.answer("GET");
            match number % 5 {
                2 => assert_eq!(answer.text(), "2"),
                3 => assert_eq!(answer.status, 404),
                _ => {
                    let line = answer.text().lines().next();
                    assert_eq!(line, Some(format!("GET /api/head?{number}").as_str()));
                }
            }
        }
        thread::sleep(std::time::Duration::from_millis(400));
    }
}
