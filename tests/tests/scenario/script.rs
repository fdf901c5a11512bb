//! How does the testing script ask, count and wait?

use std::{
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
    wait::until,
};

/// A path that counts; the answer's head names the copy.
const COUNTED: &str = "/api/v1/whoami";
/// Paths that do not count. The third is there for POST alone, so it harms nobody.
pub(crate) const UNCOUNTED: [&str; 3] = ["/", "/api/v1/_health", "/api/v1/_crash"];
const HEALTH: &str = "/api/v1/_health";

/// How long things take.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) window: Duration,
    /// For the replacement of a crashed copy; probes come once a second with short windows, too.
    pub(crate) replace: Duration,
    /// Sleep the whole time even where the condition can be waited for.
    pub(crate) sleeps: bool,
}

impl Clock {
    pub(crate) const SHORT: Self = Self {
        window: Duration::from_secs(12),
        replace: Duration::from_secs(8),
        sleeps: false,
    };

    /// What the environment asks for.
    pub(crate) fn of_run() -> Self {
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
pub(crate) enum Pace {
    /// As fast as it goes.
    Fast,
    /// 50 ms.
    Slow,
    /// Some so, some so.
    Mixed,
}

/// The testing script.
pub(crate) struct Script {
    pub(crate) stage: Stage,
    pub(crate) clock: Clock,
    pub(crate) dice: Dice,
}

impl Script {
    pub(crate) fn begin(kind: Kind, mode: Mode, clock: Clock) -> Self {
        let dice = Dice::new();
        let stage = Stage::open(kind, mode, clock.window);
        Self { stage, clock, dice }
    }

    /// Makes requests that count, and among them some that do not. Gives who answered those that
    /// count, and when the first and the last of them were sent.
    pub(crate) fn requests(
        &self,
        number: usize,
        pace: Pace,
        uncounted: bool,
    ) -> (Vec<String>, Span) {
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
    pub(crate) fn take_turns(&self, number: usize, copies: u16) -> Span {
        let ring = self.stage.ring();
        assert_eq!(ring.len(), usize::from(copies), "copies in the ring");
        let (answers, span) = self.requests(number, Pace::Fast, false);
        assert_round_robin(&answers, &ring);
        span
    }

    /// Step 2, and the state in which each further check begins.
    pub(crate) fn reset(&self) {
        self.stage.orch(&["reset", "acts"]);
        until("one copy and a count of 0", || {
            let zero = self.stage.status().window_count == 0;
            (zero && self.stage.is_settled(1)).then_some(())
        });
    }

    /// The last decision must give the count and the formula.
    pub(crate) fn assert_reason(&self, counted: u64) {
        let why = self.stage.why();
        let reason = &why.last().unwrap().reason;
        let wanted = format!(
            "counted {counted}: floor({counted}/20)+1 = {}, limits 1..10",
            counted / 20 + 1
        );
        assert!(reason.ends_with(&wanted), "{reason:?} without {wanted:?}");
    }

    /// Waits for the number of copies that a window decides.
    pub(crate) fn settled(&self, copies: u16) {
        let what = format!("{copies} copies");
        until(&what, || self.stage.is_settled(copies).then_some(()));
    }
}

/// When requests were sent.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) first: Instant,
    pub(crate) last: Instant,
}

impl Span {
    /// Sleeps until so long after the last.
    pub(crate) fn sleep(self, time: Duration) {
        thread::sleep((self.last + time).saturating_duration_since(Instant::now()));
    }
}

pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The health check of the copy on a port, if one listens there.
pub(crate) fn ask(port: u16) -> Option<client::Answer> {
    client::get(local(port), HEALTH).ok()
}

pub(crate) fn health(port: u16) -> Option<u16> {
    ask(port).map(|answer| answer.status)
}
