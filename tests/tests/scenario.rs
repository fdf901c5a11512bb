//! The course's seventeen steps, and what else its assignment asks for, against containers and
//! against plain processes, on the host's own ports 80 and 8000 to 8009.
//!
//! The script's waits are those of its text with `ORCH_REAL_TIME=1`; else windows, and the sleeps
//! that wait for them, are short. Tests whose name contains `docker` need an engine.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::{
    collections::BTreeSet,
    env,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use orch_tests::{
    scenario::{
        client,
        dice::Dice,
        ring::assert_round_robin,
        stage::{Kind, Mode, Stage},
    },
    wait::{until, within},
};

/// A path that counts; the answer's head names the copy.
const COUNTED: &str = "/api/v1/whoami";
/// Paths that do not count. The third is there for POST alone, so it harms nobody.
const UNCOUNTED: [&str; 3] = ["/", "/api/v1/_health", "/api/v1/_crash"];
const HEALTH: &str = "/api/v1/_health";
/// How late a copy may be seen that should be there: for the script's own work on a busy host.
const GRACE: Duration = Duration::from_millis(150);

/// How long things take.
#[derive(Clone, Copy)]
struct Clock {
    window: Duration,
    /// For the replacement of a crashed copy; probes come once a second with short windows, too.
    replace: Duration,
    /// Sleep the whole time even where the condition can be waited for.
    sleeps: bool,
}

impl Clock {
    const SHORT: Self = Self {
        window: Duration::from_secs(12),
        replace: Duration::from_secs(8),
        sleeps: false,
    };

    /// What the environment asks for.
    fn of_run() -> Self {
        if env::var("ORCH_REAL_TIME").is_ok_and(|value| value == "1") {
            Self {
                window: Duration::from_mins(2),
                replace: Duration::from_secs(20),
                sleeps: true,
            }
        } else {
            Self::SHORT
        }
    }
}

/// Between two requests of a script.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// As fast as it goes.
    Fast,
    /// 50 ms.
    Slow,
    /// Some so, some so.
    Mixed,
}

/// The testing script.
struct Script {
    stage: Stage,
    clock: Clock,
    dice: Dice,
}

impl Script {
    fn begin(kind: Kind, mode: Mode, clock: Clock) -> Self {
        let dice = Dice::new();
        let stage = Stage::open(kind, mode, clock.window);
        Self { stage, clock, dice }
    }

    /// Makes requests that count, and among them some that do not. Gives who answered those that
    /// count, and when the first and the last of them were sent.
    fn requests(&self, number: usize, pace: Pace, uncounted: bool) -> (Vec<String>, Span) {
        let mut answers = Vec::new();
        let mut sent = Vec::new();
        for at in 0..number {
            if at > 0 && (pace == Pace::Slow || (pace == Pace::Mixed && at % 2 == 0)) {
                thread::sleep(Duration::from_millis(50));
            }
            if uncounted {
                self.stage.inside(UNCOUNTED[at % 3]);
            }
            sent.push(Instant::now());
            // Every other one from another host.
            let answer = if at % 2 == 0 {
                self.stage.outside(COUNTED)
            } else {
                self.stage.inside(COUNTED)
            };
            assert_eq!(answer.status, 200, "request {at}");
            answers.push(answer.backend);
        }
        let span = Span {
            first: sent[0],
            last: sent[number - 1],
        };
        (answers, span)
    }

    /// So many requests, which must come round robin over all copies.
    fn take_turns(&self, number: usize, copies: u16) -> Span {
        let ring = self.stage.ring();
        assert_eq!(ring.len(), usize::from(copies), "copies in the ring");
        let (answers, span) = self.requests(number, Pace::Fast, false);
        assert_round_robin(&answers, &ring);
        span
    }

    /// Step 2, and the state in which each further check begins.
    fn reset(&self) {
        self.stage.orch(&["reset", "acts"]);
        until("one copy and a count of 0", || {
            let zero = self.stage.status().window_count == 0;
            (zero && self.stage.is_settled(1)).then_some(())
        });
    }

    /// Steps 1 to 7.
    fn until_the_second_copy(&mut self, pace: Pace) {
        // 1: the engine runs, and port 80 answers.
        let home = self.stage.inside("/");
        if self.stage.mode.has_page() {
            assert_eq!((home.status, home.backend.as_str()), (200, ""), "by orch");
        } else {
            assert_eq!(home.status, 404, "by the sole copy");
        }
        // 2: the count is zero; there is one copy, on 8000.
        self.reset();
        assert_eq!(health(8000), Some(200));
        assert_eq!(health(8001), None);
        let sole = self.stage.ring();
        assert_eq!(sole.len(), 1);
        // 3: all requests to the public address go to the sole copy.
        for path in UNCOUNTED {
            for answer in [self.stage.inside(path), self.stage.outside(path)] {
                let at_home = self.stage.mode.has_page() && path == "/";
                let by_copy = sole.contains(&answer.backend);
                assert_eq!(by_copy, !at_home, "{path}: {answer:?}");
            }
        }
        // 4: the health check on localhost.
        assert_eq!(health(8000), Some(200));
        // 5: 20 requests.
        let (answers, span) = self.requests(20, pace, true);
        assert_round_robin(&answers, &sole);
        println!("20 requests within {:?}", span.last - span.first);
        // 6: the script sleeps.
        span.sleep(self.clock.window);
        // 7: a second copy listens on 8001, now.
        let woken = Instant::now();
        assert_eq!(health(8001), Some(200), "the second copy");
        within(GRACE, "exactly two copies", || {
            self.stage.is_settled(2).then_some(())
        });
        println!("two copies {:?} after the sleep", woken.elapsed());
    }

    /// Steps 8 to 17.
    fn until_the_end(&mut self) {
        // 8 and 9: 1 to 4 requests, round robin over the two.
        let first = self.dice.roll(1..=4);
        let begin = self.take_turns(first, 2).first;
        // 10 and 11: a crash, and a replacement on the same port.
        self.crash();
        // 12 and 13: 1 to 4 requests, round robin over the two.
        let second = self.dice.roll(1..=4);
        self.take_turns(second, 2);
        // 14: 20 to 60 more.
        let third = self.dice.roll(20..=60);
        let pace = if self.clock.sleeps {
            Pace::Slow
        } else {
            Pace::Fast
        };
        let (_, span) = self.requests(third, pace, true);
        let took = span.last - begin;
        assert!(
            took + Duration::from_millis(500) < self.clock.window,
            "this host is too slow for a window of {:?}: requests took {took:?}",
            self.clock.window
        );
        let counted = (first + second + third) as u64;
        within(Duration::from_secs(2), "the window counts all", || {
            (self.stage.status().window_count == counted).then_some(())
        });
        // 15: the number of copies that the window's requests ask for.
        span.sleep(self.clock.window);
        let copies = (counted / 20 + 1) as u16;
        let woken = Instant::now();
        for slot in 0..copies {
            assert_eq!(health(8000 + slot), Some(200), "copy {slot} of {copies}");
        }
        assert_eq!(health(8000 + copies), None, "{copies} copies and no more");
        within(GRACE, "the right number of copies", || {
            self.stage.is_settled(copies).then_some(())
        });
        println!("{copies} copies {:?} after the sleep", woken.elapsed());
        self.assert_reason(counted);
        // 16 and 17: 1 to 8 requests, round robin over all.
        let fourth = self.dice.roll(1..=8);
        self.take_turns(fourth, copies);
    }

    /// Steps 10 and 11.
    fn crash(&self) {
        let before = ask(8000).unwrap();
        assert!(self.stage.exists(&before.backend));
        let crash = client::post(local(8000), "/api/v1/_crash", b"").unwrap();
        assert_eq!((crash.status, &crash.backend), (200, &before.backend));
        let crashed = Instant::now();
        if let Some(answer) = ask(8000)
            && answer.backend == before.backend
        {
            assert_eq!(answer.status, 500, "from a crashed copy");
        }
        if self.clock.sleeps {
            thread::sleep(self.clock.replace);
        }
        let limit = self.clock.replace.saturating_sub(crashed.elapsed());
        let after = within(limit, "a healthy replacement in the ring", || {
            let answer = ask(8000).filter(|answer| answer.status == 200)?;
            self.stage.is_settled(2).then_some(answer)
        });
        println!("replaced within {:?}", crashed.elapsed());
        assert_ne!(after.backend, before.backend, "another identity");
        // A container that is reached directly is in the ring before the engine has removed the other.
        within(Duration::from_secs(2), "the crashed copy is gone", || {
            (!self.stage.exists(&before.backend)).then_some(())
        });
    }

    /// The last decision must give the count and the formula.
    fn assert_reason(&self, counted: u64) {
        let why = self.stage.why();
        let reason = &why.last().unwrap().reason;
        let wanted = format!(
            "counted {counted}: floor({counted}/20)+1 = {}, limits 1..10",
            counted / 20 + 1
        );
        assert!(reason.ends_with(&wanted), "{reason:?} without {wanted:?}");
    }

    /// Waits for the number of copies that a window decides.
    fn settled(&self, copies: u16) {
        let what = format!("{copies} copies");
        until(&what, || self.stage.is_settled(copies).then_some(()));
    }
}

/// When requests were sent.
#[derive(Clone, Copy)]
struct Span {
    first: Instant,
    last: Instant,
}

impl Span {
    /// Sleeps until so long after the last.
    fn sleep(self, time: Duration) {
        thread::sleep((self.last + time).saturating_duration_since(Instant::now()));
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The health check of the copy on a port, if one listens there.
fn ask(port: u16) -> Option<client::Answer> {
    client::get(local(port), HEALTH).ok()
}

fn health(port: u16) -> Option<u16> {
    ask(port).map(|answer| answer.status)
}

fn seventeen_steps(kind: Kind, mode: Mode) {
    let mut script = Script::begin(kind, mode, Clock::of_run());
    script.until_the_second_copy(Pace::Mixed);
    script.until_the_end();
    script.stage.close();
}

#[test]
fn seventeen_steps_docker() {
    seventeen_steps(Kind::Docker, Mode::Tcp);
}

#[test]
fn seventeen_steps_http_docker() {
    seventeen_steps(Kind::Docker, Mode::Http);
}

#[test]
fn seventeen_steps_http_kept_docker() {
    seventeen_steps(Kind::Docker, Mode::HttpKept);
}

#[test]
fn seventeen_steps_http_process() {
    seventeen_steps(Kind::Process, Mode::Http);
}

#[test]
fn seventeen_steps_http_kept_process() {
    seventeen_steps(Kind::Process, Mode::HttpKept);
}

#[test]
fn seventeen_steps_process() {
    seventeen_steps(Kind::Process, Mode::Tcp);
}

/// The window's end comes an interval after the *first* request at the latest. A script that
/// sends all of them at once and sleeps for an interval leaves no time to start anything then.
fn second_copy_in_time(kind: Kind, window: u64) {
    let clock = Clock {
        window: Duration::from_secs(window),
        ..Clock::SHORT
    };
    let mut script = Script::begin(kind, Mode::Tcp, clock);
    for pace in [Pace::Fast, Pace::Slow, Pace::Fast] {
        script.until_the_second_copy(pace);
        script.take_turns(4, 2);
    }
    script.stage.close();
}

#[test]
fn second_copy_in_time_docker() {
    second_copy_in_time(Kind::Docker, 4);
}

#[test]
fn second_copy_in_time_process() {
    second_copy_in_time(Kind::Process, 4);
}

/// The number of copies at the steps of the count, and never more than ten; on the way down the
/// greatest ports go first.
fn sizes(kind: Kind, window: u64) {
    let clock = Clock {
        window: Duration::from_secs(window),
        ..Clock::SHORT
    };
    let script = Script::begin(kind, Mode::Tcp, clock);
    for (count, copies) in [
        (19, 1),
        (20, 2),
        (39, 2),
        (40, 3),
        (59, 3),
        (60, 4),
        (230, 10),
    ] {
        script.reset();
        let (_, span) = script.requests(count, Pace::Fast, false);
        assert!(span.last - span.first < clock.window, "host too slow");
        span.sleep(clock.window);
        until("a decision", || {
            script
                .stage
                .status()
                .window_ends_in_s
                .is_none()
                .then_some(())
        });
        script.settled(copies);
        script.assert_reason(count as u64);
        assert_eq!(health(8010), None, "{count} requests");
    }
    greatest_ports_go_first(&script);
    script.stage.close();
}

/// From ten copies down by a window of 60 requests, one of 20, and idleness.
fn greatest_ports_go_first(script: &Script) {
    let ids = || {
        let rows = script.stage.ps();
        rows.into_iter().map(|row| row.backend).collect::<Vec<_>>()
    };
    let mut before = ids();
    for (count, copies) in [(60, 4), (20, 2), (0, 1)] {
        if count > 0 {
            script.requests(count, Pace::Fast, false);
        }
        script.settled(copies);
        before.truncate(usize::from(copies));
        assert_eq!(ids(), before, "those of the lowest ports stay");
    }
}

#[test]
fn sizes_docker() {
    sizes(Kind::Docker, 4);
}

#[test]
fn sizes_process() {
    sizes(Kind::Process, 3);
}

/// 100 acts with pictures through port 80; every copy has every one of them.
fn acts(kind: Kind, mode: Mode) {
    let mut script = Script::begin(kind, mode, Clock::SHORT);
    let stage = &script.stage;
    stage.orch(&["scale", "acts=3"]);
    script.settled(3);
    for category in CATEGORIES {
        let body = format!("[{category:?}]");
        let answer = stage.post(false, "/api/v1/categories", body.as_bytes());
        assert_eq!(answer.status, 201);
    }
    let mut images = Vec::new();
    for number in 0..100 {
        let size = match number {
            57 => 8 << 20,
            _ => script.dice.roll(50_000..=300_000),
        };
        let image = picture(number, size);
        let answer = stage.post(number % 2 == 0, "/api/v1/acts", &act(number, &image));
        assert_eq!(answer.status, 201, "act {number}");
        images.push(image);
    }
    for port in 8000..8003 {
        let count = client::get(local(port), "/api/v1/acts/count").unwrap();
        assert_eq!(count.body, b"[100]", "on {port}");
    }
    let mut readers = BTreeSet::new();
    for (number, image) in images.iter().enumerate() {
        // One turn of three copies, from outside and inside alike.
        for _ in 0..3 {
            let answer = if number % 2 == 0 {
                stage.outside(&address(number))
            } else {
                stage.inside(&address(number))
            };
            assert_eq!(answer.status, 200, "act {number}");
            assert_shows(&answer.body, number, image);
            readers.insert(answer.backend);
        }
    }
    assert_eq!(readers, stage.ring());
    script.stage.close();
}

const CATEGORIES: [&str; 4] = ["trees", "water", "books", "neighbours"];

/// Base64 of that many bytes, rounded up to threes, different for every number.
fn picture(number: usize, size: usize) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |at: usize| char::from(DIGITS[(at * (number + 1) + at / 64) % 64]);
    (0..size.div_ceil(3) * 4).map(digit).collect()
}

fn act(number: usize, image: &str) -> Vec<u8> {
    let category = CATEGORIES[number % 4];
    format!(
        "{{\"actId\":{number},\"username\":\"u{number}\",\"caption\":\"act {number}\",\
         \"categoryName\":\"{category}\",\"imgB64\":\"{image}\"}}"
    )
    .into_bytes()
}

/// Where one act alone can be read.
fn address(number: usize) -> String {
    // The newest comes first.
    let place = 25 - number / 4;
    let category = CATEGORIES[number % 4];
    format!("/api/v1/acts?category={category}&start={place}&end={place}")
}

fn assert_shows(body: &[u8], number: usize, image: &str) {
    let text = str::from_utf8(body).unwrap();
    let caption = format!("\"caption\":\"act {number}\"");
    assert!(
        text.contains(&caption),
        "{caption}: {}",
        &text[..text.len().min(200)]
    );
    let quoted = format!("\"imgB64\":\"{image}\"");
    assert!(text.contains(&quoted), "the picture of act {number}");
}

#[test]
fn acts_docker() {
    acts(Kind::Docker, Mode::Tcp);
}

#[test]
fn acts_process() {
    acts(Kind::Process, Mode::Tcp);
}

#[test]
fn acts_http_process() {
    acts(Kind::Process, Mode::HttpKept);
}
