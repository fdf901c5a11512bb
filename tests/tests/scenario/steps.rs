//! The seventeen steps, in their order.

use std::{
    thread,
    time::{Duration, Instant},
};

use orch_tests::{
    scenario::{
        client,
        ring::assert_round_robin,
        stage::{Kind, Mode},
    },
    wait::within,
};

use crate::script::{Clock, Pace, Script, UNCOUNTED, ask, health, local};

/// How late a copy may be seen that should be there: for the script's own work on a busy host.
const GRACE: Duration = Duration::from_millis(150);

impl Script {
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
