//! Health: what the answers of a backend mean. Pure; `probe` asks, by `get`.

mod get;
pub mod polls;
pub mod probe;

use std::{fmt, io, time::Duration};

use nix::errno::Errno;

use crate::{config::HealthConfig, state::Moment};

/// Between two probes of a backend that has not answered 200 yet.
pub const START_INTERVAL: Duration = Duration::from_millis(50);
/// The same while connections wait for it, and the first such pause of any: each is twice as long as
/// the one before.
pub const EAGER_INTERVAL: Duration = Duration::from_millis(2);
/// Longest such probe, where the configured timeout is not shorter.
pub const START_TIMEOUT: Duration = Duration::from_secs(1);

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was answered with this status.
    Status(u16),
    /// Nothing listens there, or the network said no.
    Refused,
    /// No answer within the timeout.
    TimedOut,
    /// The connection ended without a whole answer.
    Broken,
    /// What came is no response of HTTP/1, or the head of one that does not end.
    NotHttp,
    /// Nobody was asked: this host, or the controller, has run out of something. Says nothing of the
    /// backend.
    Unasked(Errno),
}

impl Answer {
    /// Whether it is the one that says "well".
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Status(200))
    }

    /// Whether it says anything of the backend.
    pub const fn is_its_own(self) -> bool {
        !matches!(self, Self::Unasked(_))
    }

    /// What a failed attempt to connect means.
    fn of_connecting(error: &io::Error) -> Self {
        let errno = error.raw_os_error().map(Errno::from_raw);
        match errno {
            Some(
                errno @ (Errno::EADDRNOTAVAIL
                | Errno::EMFILE
                | Errno::ENFILE
                | Errno::ENOMEM
                | Errno::ENOBUFS),
            ) => Self::Unasked(errno),
            _ => Self::Refused,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "answered {status}"),
            Self::Refused => f.write_str("refused the connection"),
            Self::TimedOut => f.write_str("did not answer in time"),
            Self::Broken => f.write_str("broke off its answer"),
            Self::NotHttp => f.write_str("answered in no HTTP/1.1"),
            Self::Unasked(Errno::EADDRNOTAVAIL) => {
                f.write_str("could not be sent: this host has no port left for a connection there")
            }
            Self::Unasked(error) => write!(f, "could not be sent: {}", error.desc()),
        }
    }
}

/// What is known of a backend's health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Since when it has been well; `None` until its first 200.
    pub since: Option<Moment>,
    /// Unanswered probes in a row.
    pub strikes: u32,
    /// The last answer.
    pub last: Option<Answer>,
    /// When it was last seen to be well.
    pub good_at: Option<Moment>,
    /// It was well by an earlier check, and has not passed the one that is in force since.
    pub untried: bool,
}

/// What an answer leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not well yet, and still allowed to start.
    Starting,
    /// The first 200.
    FirstGood,
    /// Well, as before.
    Good,
    /// One strike, or nobody knows: not enough to condemn it.
    Suspect,
    /// It answers a new check with anything but 200, and was well by the one before: the check may be
    /// wrong.
    Doubtful,
    /// It has to be replaced.
    Unhealthy,
    /// It did not answer 200 within the start limit.
    StartLimit,
}

impl Health {
    /// That of a backend which an earlier controller had put into the ring: it is trusted until a
    /// probe says otherwise, so that taking over interrupts nothing.
    pub fn trusted(now: Moment) -> Self {
        Self {
            since: Some(now),
            good_at: Some(now),
            ..Self::default()
        }
    }

    /// Takes in an answer. An answered non-200 condemns at once; silence only when it comes
    /// `unhealthy_after` times in a row; before the first 200 the start limit alone counts. Who was
    /// not asked is neither better nor worse than before.
    pub fn judge(
        &mut self,
        answer: Answer,
        rules: &HealthConfig,
        started: Moment,
        now: Moment,
    ) -> Verdict {
        if !answer.is_its_own() {
            let known = self.since.is_some();
            return if known {
                Verdict::Suspect
            } else {
                Verdict::Starting
            };
        }
        self.last = Some(answer);
        if answer.is_good() {
            self.strikes = 0;
            self.good_at = Some(now);
            self.untried = false;
            if self.since.is_some() {
                return Verdict::Good;
            }
            self.since = Some(now);
            return Verdict::FirstGood;
        }
        if self.since.is_none() {
            let late = now.saturating_sub(started) >= rules.start_limit;
            return if late {
                Verdict::StartLimit
            } else {
                Verdict::Starting
            };
        }
        if self.untried && matches!(answer, Answer::Status(_)) {
            self.strikes = 0;
            return Verdict::Doubtful;
        }
        self.strikes += 1;
        if matches!(answer, Answer::Status(_)) || self.strikes >= rules.unhealthy_after {
            Verdict::Unhealthy
        } else {
            Verdict::Suspect
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> HealthConfig {
        HealthConfig {
            path: "/".into(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(900),
            unhealthy_after: 2,
            start_limit: Duration::from_secs(30),
        }
    }

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_starting_backend_may_refuse_and_fail_until_the_start_limit() {
        let mut health = Health::default();
        for answer in [Answer::Refused, Answer::Status(503), Answer::TimedOut] {
            let verdict = health.judge(answer, &rules(), at(1), at(30));
            assert_eq!(verdict, Verdict::Starting, "{answer}");
        }
        let verdict = health.judge(Answer::Refused, &rules(), at(1), at(31));
        assert_eq!(verdict, Verdict::StartLimit);
    }

    #[test]
    fn an_answered_500_condemns_at_once() {
        let mut health = Health::default();
        let mut judge = |answer| health.judge(answer, &rules(), at(0), at(1));
        assert_eq!(judge(Answer::Status(200)), Verdict::FirstGood);
        assert_eq!(judge(Answer::Status(200)), Verdict::Good);
        assert_eq!(judge(Answer::Status(500)), Verdict::Unhealthy);
    }

    #[test]
    fn silence_condemns_only_in_a_row() {
        let mut health = Health::trusted(at(0));
        let mut judge = |answer| health.judge(answer, &rules(), at(0), at(1));
        assert_eq!(judge(Answer::TimedOut), Verdict::Suspect);
        assert_eq!(judge(Answer::Status(200)), Verdict::Good);
        assert_eq!(judge(Answer::Refused), Verdict::Suspect);
        assert_eq!(judge(Answer::Broken), Verdict::Unhealthy);
    }

    #[test]
    fn what_this_host_lacks_condemns_nobody() {
        let mut health = Health::trusted(at(0));
        let unasked = Answer::of_connecting(&io::Error::from(Errno::EMFILE));
        assert_eq!(unasked, Answer::Unasked(Errno::EMFILE));
        assert_eq!(
            unasked.to_string(),
            "could not be sent: Too many open files"
        );
        for _ in 0..5 {
            let verdict = health.judge(unasked, &rules(), at(0), at(90));
            assert_eq!(verdict, Verdict::Suspect);
        }
        let mut judge = |answer| health.judge(answer, &rules(), at(0), at(91));
        assert_eq!(judge(Answer::Refused), Verdict::Suspect);
        assert_eq!(judge(unasked), Verdict::Suspect);
        assert_eq!(judge(Answer::Refused), Verdict::Unhealthy);
        let mut fresh = Health::default();
        let verdict = fresh.judge(unasked, &rules(), at(0), at(31));
        assert_eq!(verdict, Verdict::Starting);
    }

    #[test]
    fn other_statuses_than_200_are_not_well() {
        for status in [204, 301, 404, 503] {
            let mut health = Health::trusted(at(0));
            let verdict = health.judge(Answer::Status(status), &rules(), at(0), at(1));
            assert_eq!(verdict, Verdict::Unhealthy, "{status}");
        }
    }
}
