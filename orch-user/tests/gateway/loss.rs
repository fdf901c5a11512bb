//! No request is lost while copies, slots and gateways come and go.

use std::{
    io::Read,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crate::bench::{Copy, Gate, PATIENCE, Talk, spawn, until};
use orch::http::Client;

/// Clients that ask without a pause, half of them on kept connections.
struct Load<'a> {
    gate: &'a Mutex<Gate>,
    stop: AtomicBool,
    done: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl<'a> Load<'a> {
    fn new(gate: &'a Mutex<Gate>) -> Self {
        Self {
            gate,
            stop: AtomicBool::new(false),
            done: AtomicUsize::new(0),
            failed: Mutex::default(),
        }
    }

    fn run(&self, keep: bool) {
        let address = self.gate.lock().unwrap().address;
        let mut kept: Option<Talk> = None;
        while !self.stop.load(SeqCst) {
            let mut talk = kept.take().unwrap_or_else(|| Talk::to(address));
            talk.say("GET /api/who HTTP/1.1\r\nHost: t\r\n\r\n");
            match talk.try_answer("GET") {
                Some(answer) if answer.status == 200 => {
                    self.done.fetch_add(1, SeqCst);
                    let close = answer.field("connection") == Some("close");
                    kept = (keep && !close).then_some(talk);
                }
                other => self.failed.lock().unwrap().push(format!("{other:?}")),
            }
        }
    }

    /// Does this while clients ask, and gives how many answers there were.
    fn during(&self, work: impl FnOnce()) -> usize {
        thread::scope(|scope| {
            for keep in [true, false, true, false] {
                scope.spawn(move || self.run(keep));
            }
            self.progress(200);
            work();
            self.progress(200);
            self.stop.store(true, SeqCst);
        });
        let failed = self.failed.lock().unwrap();
        assert!(
            failed.is_empty(),
            "{} failed: {:?}",
            failed.len(),
            &failed[..1]
        );
        self.done.load(SeqCst)
    }

    /// So many more answers come.
    fn progress(&self, more: usize) {
        let from = self.done.load(SeqCst);
        until("answers", || {
            let failed = !self.failed.lock().unwrap().is_empty();
            (failed || self.done.load(SeqCst) >= from + more).then_some(())
        });
    }
}

#[test]
fn a_copy_that_refuses_is_passed_over() {
    let mut copies = ["A", "B"].map(Copy::start);
    let gate = Gate::open("", &copies.each_ref());
    assert_eq!(gate.get("/api/who").text(), "A");
    copies[1].crash();
    for _ in 0..4 {
        assert_eq!(gate.get("/api/who").text(), "A");
    }
    let report = gate.client.read().unwrap();
    assert!(report.services[0].slots[1].refused, "and that is told");
    assert_eq!(gate.counts(), (5, 0), "each request counts once");
}

#[test]
fn a_kept_connection_that_died_is_no_reason_to_fail() {
    let mut copy = Copy::start("A");
    let gate = Gate::open("", &[&copy]);
    let mut talk = gate.connect();
    assert_eq!(talk.get("/api/who").status, 200);
    let address = copy.address;
    copy.crash();
    let _again = Copy::at("B", address);
    talk.say("POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc");
    let answer = talk.answer("POST");
    assert_eq!((answer.status, answer.text()), (200, "3"));
}

#[test]
fn requests_wait_while_no_copy_is_ready() {
    let copy = Copy::start("A");
    let mut gate = Gate::open("waiting = 3", &[&copy]);
    gate.only(&[]);
    let mut talks: Vec<Talk> = (0..4).map(|_| gate.connect()).collect();
    for talk in &mut talks {
        talk.say("GET /api/who HTTP/1.1\r\nHost: t\r\n\r\n");
        talk.stream.set_nonblocking(true).unwrap();
    }
    // Which of four comes last is the kernel's to say; one too many is told at once.
    let crowded = until("one is one too many", || {
        let mut told = talks.iter();
        told.position(|talk| talk.stream.peek(&mut [0]).is_ok())
    });
    for talk in &talks {
        talk.stream.set_nonblocking(false).unwrap();
    }
    let answer = talks.remove(crowded).answer("GET");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.field("retry-after"), Some("1"));
    gate.only(&[0]);
    for talk in &mut talks {
        assert_eq!(talk.answer("GET").status, 200);
    }
}

#[test]
fn waiting_ends() {
    let mut copy = Copy::start("A");
    let mut gate = Gate::open("wait = \"200ms\"", &[&copy]);
    gate.only(&[]);
    let answer = gate.get("/api/who");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.field("retry-after"), Some("1"));
    gate.only(&[0]);
    copy.crash();
    let answer = gate.get("/api/who");
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("refused"), "{}", answer.text());
}

#[test]
fn a_silent_copy_is_told_from_a_broken_one() {
    let copy = Copy::start("A");
    let gate = Gate::open("answer_timeout = \"100ms\"", &[&copy]);
    assert_eq!(gate.get("/api/slow/60000").status, 504);
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap();
    let babble = thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = mute.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        stream.write_all(b"what?\r\n\r\n").unwrap();
        let (mut stream, _) = mute.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        stream.write_all(b"HTTP/1.1 200 O").unwrap();
    });
    let mut gate = gate;
    gate.service().slots[0].address = address;
    gate.service().slots[0].generation = 2;
    gate.only(&[0]);
    let answer = gate.get("/api/who");
    assert_eq!(
        (answer.status, answer.text().contains("not HTTP")),
        (502, true)
    );
    let answer = gate.get("/api/who");
    assert_eq!(
        (answer.status, answer.text().contains("closed")),
        (502, true)
    );
    babble.join().unwrap();
}

#[test]
fn a_draining_slot_finishes_and_gets_nothing_new() {
    let copies = ["A", "B"].map(Copy::start);
    let mut gate = Gate::open("", &copies.each_ref());
    let mut slow = gate.connect();
    slow.say("GET /api/slow/400 HTTP/1.1\r\nHost: t\r\n\r\n");
    until("it is in flight", || (gate.live() == 1).then_some(()));
    gate.only(&[1]);
    assert_eq!(gate.live(), 1);
    for _ in 0..4 {
        assert_eq!(gate.get("/api/who").text(), "B");
    }
    assert_eq!(slow.answer("GET").text(), "A");
    until("it has drained", || (gate.live() == 0).then_some(()));
}

#[test]
fn scaling_loses_nothing() {
    let copies = ["A", "B", "C", "D"].map(Copy::start);
    let gate = Mutex::new(Gate::open("", &copies.each_ref()));
    let load = Load::new(&gate);
    let done = load.during(|| {
        for at in 0..200_u16 {
            let ring: Vec<u16> = (0..=(at % 4)).collect();
            gate.lock().unwrap().only(&ring);
            thread::sleep(Duration::from_millis(2));
        }
    });
    let (requests, excluded) = gate.lock().unwrap().counts();
    assert_eq!(
        (requests, excluded),
        (done as u64, 0),
        "every one counted once"
    );
}

#[test]
fn crashes_lose_nothing_that_had_not_begun() {
    let stay = Copy::start("A");
    let mut other = Copy::start("B");
    let gate = Mutex::new(Gate::open("", &[&stay, &other]));
    let load = Load::new(&gate);
    load.during(|| {
        for round in 0..10 {
            other.crash();
            load.progress(20);
            other = Copy::at("B", other.address);
            other.generation = round + 2;
            gate.lock().unwrap().ring(&[&stay, &other]);
            load.progress(20);
        }
    });
}

#[test]
fn another_gateway_takes_over_and_loses_nothing() {
    let copies = ["A", "B", "C"].map(Copy::start);
    let gate = Mutex::new(Gate::open("", &copies.each_ref()));
    let load = Load::new(&gate);
    let mut olds = Vec::new();
    let done = load.during(|| {
        for _ in 0..3 {
            let mut gate = gate.lock().unwrap();
            let socket = gate.socket();
            let old = gate.client.hello().unwrap().pid;
            let next = spawn(&socket);
            gate.client = until("the next one answers", || {
                let client = Client::connect(&socket, crate::bench::PATIENCE).ok()?;
                (client.hello().ok()?.pid != old).then_some(client)
            });
            let before = std::mem::replace(&mut gate.child, next);
            olds.push(before);
            gate.client.set(&gate.table).unwrap();
            drop(gate);
            load.progress(100);
        }
    });
    let gate = gate.into_inner().unwrap();
    let requests = until("all are counted", || {
        let (requests, _) = gate.counts();
        (requests as usize >= done).then_some(requests)
    });
    assert_eq!(requests as usize, done, "and none twice");
    for mut old in olds {
        until("the old one ends", || {
            gate.counts();
            old.try_wait().unwrap()
        });
    }
    let after = gate.counts().0;
    assert_eq!(after as usize, done, "the counts of the old ones stay");
}

/// The controller hears at once that somebody waits, and nothing while nobody does.
#[test]
fn a_request_that_waits_for_a_copy_rings() {
    let mut gate = Gate::open("wait = \"20s\"", &[]);
    let watcher = Client::connect(&gate.socket(), PATIENCE).unwrap();
    let mut bell = watcher.watch().unwrap();
    bell.set_nonblocking(true).unwrap();
    let mut rings = || bell.read(&mut [0; 8]).ok();
    let copy = Copy::start("A");
    let address = gate.address;
    assert_eq!(rings(), None);
    thread::scope(|scope| {
        let asks = scope.spawn(move || {
            let mut talk = Talk::to(address);
            talk.say("GET /api/who HTTP/1.1\r\nHost: t\r\n\r\n");
            talk.answer("GET").status
        });
        assert_eq!(until("the bell", &mut rings), 1);
        assert_eq!(gate.client.read().unwrap().services[0].waiting, 1);
        gate.ring(&[&copy]);
        assert_eq!(asks.join().unwrap(), 200);
    });
    assert_eq!(gate.get("/api/who").status, 200);
    assert_eq!(rings(), None);
}
