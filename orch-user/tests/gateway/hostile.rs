//! Clients that mean harm, or are broken: refused by the rules of RFC 9112, and nobody else notices.

use std::{
    env, fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use orch::http::Framer;

use crate::bench::{Copy, Gate, until};

/// Requests that are refused, each with the status that says so.
const REFUSED: [(&str, u16); 40] = [
    // Two ways to say how long the body is.
    (
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
        400,
    ),
    (
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        400,
    ),
    (
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length: 4, 4\r\n\r\nabcd",
        400,
    ),
    (
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length: +4\r\n\r\nabcd",
        400,
    ),
    (
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length: -4\r\n\r\nabcd",
        400,
    ),
    (
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length: 0x4\r\n\r\nabcd",
        400,
    ),
    (
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length: 4 4\r\n\r\nabcd",
        400,
    ),
    (
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999999999999\r\n\r\n",
        400,
    ),
    (
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length:\r\n\r\n",
        400,
    ),
    (
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length : 4\r\n\r\nabcd",
        400,
    ),
    // Codings of the transfer that are not chunked alone.
    (
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST /api/upload HTTP/1.0\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    // Ends of lines.
    ("GET /api/who HTTP/1.1\nHost: t\n\n", 400),
    ("GET /api/who HTTP/1.1\r\nHost: t\nA: b\r\n\r\n", 400),
    ("GET /api/who HTTP/1.1\r\nHost: t\r\nA: b\n\r\n", 400),
    (
        "GET /api/who HTTP/1.1\r\nHost: t\r\nA: b\rc: d\r\n\r\n",
        400,
    ),
    ("GET /api/who HTTP/1.1\rHost: t\r\n\r\n", 400),
    (
        "GET /api/who HTTP/1.1\r\nHost: t\r\nA: b\r\n c\r\n\r\n",
        400,
    ),
    (
        "GET /api/who HTTP/1.1\r\nHost: t\r\nA: b\r\n\tc\r\n\r\n",
        400,
    ),
    ("GET /api/who HTTP/1.1\r\n Host: t\r\n\r\n", 400),
    // Lines that are none.
    ("GET /api/who HTTP/1.1\r\nHost: t\r\nA b\r\n\r\n", 400),
    ("GET /api/who HTTP/1.1\r\nHost: t\r\n: b\r\n\r\n", 400),
    ("GET /api/who HTTP/1.1\r\nHost: t\r\nA\0: b\r\n\r\n", 400),
    ("GET /api/who HTTP/1.1\r\nHost: t\r\nA: b\0c\r\n\r\n", 400),
    ("GET /api/who\r\n\r\n", 400),
    ("GET /api/who#a HTTP/1.1\r\nHost: t\r\n\r\n", 400),
    ("GET  /api/who HTTP/1.1\r\nHost: t\r\n\r\n", 400),
    ("GET /api/who HTTP/3.7\r\nHost: t\r\n\r\n", 400),
    ("G(T /api/who HTTP/1.1\r\nHost: t\r\n\r\n", 400),
    ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", 400),
    // Whom it is for.
    ("GET /api/who HTTP/1.1\r\n\r\n", 400),
    ("GET /api/who HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("CONNECT t:443 HTTP/1.1\r\nHost: t\r\n\r\n", 501),
    ("CONNECT /api/who HTTP/1.1\r\nHost: t\r\n\r\n", 501),
];

#[test]
fn what_the_rules_forbid_is_refused_and_never_forwarded() {
    let copy = Copy::start("A");
    let gate = Gate::open("header_timeout = \"5s\"", &[&copy]);
    for (text, status) in REFUSED {
        // What follows may be taken for a request by nobody.
        let smuggled = "GET /api/smuggled HTTP/1.1\r\nHost: t\r\n\r\n";
        let mut talk = gate.connect();
        talk.say(text);
        talk.try_say(smuggled.as_bytes());
        let answer = talk.answer("GET");
        assert_eq!(answer.status, status, "{text:?}: {answer:?}");
        if status == 400 {
            assert!(talk.is_closed(), "{text:?}");
        }
    }
    assert_eq!(gate.counts(), (0, 0), "none came to a copy");
    assert_eq!(gate.get("/api/who").status, 200);
}

#[test]
fn an_answer_before_a_refused_request_is_still_given() {
    let copy = Copy::start("A");
    let gate = Gate::open("", &[&copy]);
    let mut talk = gate.connect();
    talk.say("GET /api/who HTTP/1.1\r\nHost: t\r\n\r\nGET /api/who HTTP/1.1\nHost: t\r\n\r\n");
    assert_eq!(talk.answer("GET").status, 200);
    assert_eq!(talk.answer("GET").status, 400);
    assert!(talk.is_closed());
}

#[test]
fn heads_have_limits() {
    let copy = Copy::start("A");
    let gate = Gate::open("max_header = \"8KiB\"\nmax_headers = 50", &[&copy]);
    let many: String = "A: b\r\n".repeat(60);
    let long = format!("A: {}\r\n", "b".repeat(9000));
    for lines in [many, long] {
        let mut talk = gate.connect();
        talk.try_say(format!("GET /api/who HTTP/1.1\r\nHost: t\r\n{lines}\r\n").as_bytes());
        let answer = talk.answer("GET");
        assert_eq!(answer.status, 431);
        assert!(talk.is_closed());
    }
    // A flood of headers without an end is cut off, and not kept.
    let mut flood = TcpStream::connect(gate.address).unwrap();
    flood
        .set_write_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    flood.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let line = "A: b\r\n".repeat(1000);
    until("the flood is cut off", || {
        flood.write_all(line.as_bytes()).is_err().then_some(())
    });
    assert_eq!(gate.get("/api/who").status, 200);
}

#[test]
fn slow_heads_and_bodies_end() {
    let copy = Copy::start("A");
    let lines = "header_timeout = \"300ms\"\nbody_timeout = \"300ms\"";
    let gate = Gate::open(lines, &[&copy]);
    let mut silent = gate.connect();
    assert!(silent.is_closed(), "one that says nothing");
    let mut slow = gate.connect();
    for piece in ["GET /api", "/who HTTP/1.1\r\n", "Host"] {
        slow.say(piece);
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(slow.answer("GET").status, 408);
    assert!(slow.is_closed());
    let mut drop_by_drop = gate.connect();
    drop_by_drop.say("POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n");
    until("one that sends a byte at a time is sent away", || {
        thread::sleep(Duration::from_millis(40));
        (!drop_by_drop.try_say(b"x")).then_some(())
    });
    let mut drip = gate.connect();
    drip.say("POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\n12");
    assert_eq!(drip.answer("POST").status, 408);
    assert!(drip.is_closed());
    until("nothing is in flight", || (gate.live() == 0).then_some(()));
}

#[test]
fn clients_that_go_away_leave_nothing() {
    let copy = Copy::start("A");
    let gate = Gate::open("", &[&copy]);
    for _ in 0..20 {
        let mut talk = gate.connect();
        talk.say("GET /api/bytes/50000000 HTTP/1.1\r\nHost: t\r\n\r\n");
        talk.line();
    }
    until("nothing is in flight", || (gate.live() == 0).then_some(()));
}

/// 10,000 with `ORCH_IDLE=10000`.
#[test]
fn idle_connections_cost_little_and_stop_nobody() {
    let count = env::var("ORCH_IDLE").map_or(2000, |text| text.parse().unwrap());
    let (_, most) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most).unwrap();
    let copy = Copy::start("A");
    let gate = Gate::open("idle_timeout = \"10m\"\nheader_timeout = \"10m\"", &[&copy]);
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/status", gate.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    assert_eq!(gate.get("/api/who").status, 200);
    let before = resident();
    let mut talks: Vec<_> = (0..count).map(|_| gate.connect()).collect();
    let mut one = gate.connect();
    assert_eq!(one.get("/api/who").status, 200);
    let each = until("they cost little", || {
        let each = (resident().saturating_sub(before) * 1024) / count as u64;
        (each < 8 << 10).then_some(each)
    });
    println!("{each} bytes for each of {count} connections that have said nothing");
    for talk in talks.iter_mut().step_by(97) {
        assert_eq!(talk.get("/api/who").status, 200, "it is heard again");
    }
    drop(talks);
}

/// A generator (xorshift) whose numbers come again with the same seed.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let given = env::var("ORCH_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()) + 1);
        println!("repeat with ORCH_SEED={seed}");
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }

    /// Some requests in a row, good and bad, and a few bytes of them changed.
    fn bytes(&mut self) -> Vec<u8> {
        const GOOD: [&str; 5] = [
            "GET /api/who HTTP/1.1\r\nHost: t\r\n\r\n",
            "POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nabcde",
            "POST /api/upload HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n",
            "HEAD /api/who HTTP/1.0\r\n\r\n",
            "GET /api/chat HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n",
        ];
        const ODD: [&[u8]; 12] = [
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b"\t",
            b"\0",
            b":",
            b",",
            b"0",
            b"\xff",
            b"chunked",
            b"Content-Length: 3\r\n",
        ];
        let mut bytes = Vec::new();
        for _ in 0..=self.below(4) {
            let text = match self.below(3) {
                0 => REFUSED[self.below(REFUSED.len())].0,
                _ => GOOD[self.below(GOOD.len())],
            };
            bytes.extend_from_slice(text.as_bytes());
        }
        for _ in 0..self.below(4) {
            if bytes.len() < 2 {
                break;
            }
            let at = self.below(bytes.len());
            match self.below(4) {
                0 => bytes[at] = self.below(256) as u8,
                1 => {
                    bytes.remove(at);
                }
                2 => bytes.truncate(at.max(1)),
                _ => {
                    let odd = ODD[self.below(ODD.len())];
                    bytes.splice(at..at, odd.iter().copied());
                }
            }
        }
        bytes
    }
}

/// Ten minutes with `ORCH_FUZZ_SECONDS=600`.
fn fuzz_time() -> Duration {
    let seconds = env::var("ORCH_FUZZ_SECONDS").map_or(2, |text| text.parse().unwrap());
    Duration::from_secs(seconds)
}

#[test]
fn where_bytes_are_cut_changes_nothing() {
    let mut dice = Dice::new();
    let end = Instant::now() + fuzz_time();
    while Instant::now() < end {
        let bytes = dice.bytes();
        let whole = Framer::new(4096).feed(&bytes).err().map(|(_, why)| why);
        let mut cut = Framer::new(4096);
        let mut rest = bytes.as_slice();
        let mut found = None;
        while !rest.is_empty() && found.is_none() {
            let (piece, behind) = rest.split_at(1 + dice.below(rest.len()));
            found = cut.feed(piece).err().map(|(_, why)| why);
            rest = behind;
        }
        assert_eq!(whole, found, "{:?}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn no_bytes_bring_the_gateway_down() {
    let copy = Copy::start("A");
    let lines = "header_timeout = \"100ms\"\nbody_timeout = \"100ms\"\nidle_timeout = \"100ms\"";
    let mut gate = Gate::open(lines, &[&copy]);
    let mut dice = Dice::new();
    let end = Instant::now() + fuzz_time();
    let mut tries = 0;
    while Instant::now() < end {
        let bytes = dice.bytes();
        let mut stream = TcpStream::connect(gate.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let cut = dice.below(bytes.len());
        let _ = stream.write_all(&bytes[..cut]);
        let _ = stream.write_all(&bytes[cut..]);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let shown = String::from_utf8_lossy(&bytes);
        let hung = read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!hung, "it hangs: {shown:?}");
        let sane = answer.is_empty() || answer.starts_with(b"HTTP/1.");
        assert!(sane, "{shown:?}: {:?}", String::from_utf8_lossy(&answer));
        tries += 1;
        assert_eq!(gate.child.try_wait().unwrap(), None, "{shown:?}");
    }
    println!("{tries} connections");
    until("nothing is in flight", || (gate.live() == 0).then_some(()));
    assert_eq!(gate.get("/api/who").status, 200);
}
