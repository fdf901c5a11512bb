//! What does a copy's traffic say of it, beside its peers'? Judged as the kernel does in mode tcp, by
//! the same limits (`orch_common::pulse`), of requests instead of what segments show.

use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use orch_common::{
    event::EventKind,
    pulse::{PAUSE_NS, Peers, Pulse},
};

use super::service::locked;

/// Of one copy. Times are in nanoseconds since its service began.
#[derive(Debug, Default)]
pub(super) struct Repute {
    pulse: Mutex<Pulse>,
    /// The pulse's `why`, to be read without its lock.
    why: AtomicU32,
}

/// What a request or its answer leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// It is to be compared with its peers.
    Odd(EventKind),
}

impl Repute {
    /// Whether its turns are not passed by.
    pub(super) fn is_good(&self) -> bool {
        self.why.load(Relaxed) == 0
    }

    /// The number of an [`EventKind`]; 0 while it is good.
    pub(super) fn why(&self) -> u32 {
        self.why.load(Relaxed)
    }

    /// It is given a request.
    pub(super) fn asked(&self, now: u64) -> Verdict {
        let mut pulse = locked(&self.pulse);
        pulse.unanswered += 1;
        if pulse.unanswered == 1 {
            pulse.asked_ns = now;
            return Verdict::Fine;
        }
        if pulse.may_be_silent(now) && is_due(&pulse, now) {
            return Verdict::Odd(EventKind::Silent);
        }
        Verdict::Fine
    }

    /// It has answered, `taken` after it was asked. `error` for 5xx; `connection` tells its clients'
    /// connections apart.
    pub(super) fn answered(&self, now: u64, taken: u64, error: bool, connection: u32) -> Verdict {
        let mut pulse = locked(&self.pulse);
        pulse.unanswered = 0;
        if pulse.why == EventKind::Silent as u32 {
            // It was behind, and no more than that.
            pulse.clear(0, false);
            self.why.store(0, Relaxed);
        }
        pulse.answered(now, taken, error, connection);
        if error && pulse.may_be_failing(now) && is_due(&pulse, now) {
            return Verdict::Odd(EventKind::Failing);
        }
        Verdict::Fine
    }

    /// Passes it by from now on if it is much worse than its peers, of which at the most a third may be
    /// passed by so, and never all; says whether it is.
    pub(super) fn judge<'a>(
        &self,
        peers: impl Iterator<Item = &'a Self>,
        kind: EventKind,
        now: u64,
    ) -> bool {
        let own = {
            let mut pulse = locked(&self.pulse);
            pulse.looked_ns = now;
            *pulse
        };
        let silent = kind == EventKind::Silent;
        let since = if silent { own.asked_ns } else { own.failing_ns };
        let mut seen = Peers::default();
        let mut ring = 1;
        for peer in peers {
            let peer = *locked(&peer.pulse);
            seen.see(&peer, since, peer.why != 0);
            ring += 1;
        }
        let guilty = if silent {
            own.is_silent(&seen, now)
        } else {
            own.is_failing(&seen, now)
        };
        if !guilty || !seen.spare_one(ring) {
            return false;
        }
        locked(&self.pulse).why = kind as u32;
        self.why.store(kind as u32, Relaxed);
        true
    }

    /// Its turns count again: a probe was good.
    pub(super) fn pardon(&self, now: u64) {
        let mut pulse = locked(&self.pulse);
        if pulse.why != 0 {
            pulse.clear(now, true);
            self.why.store(0, Relaxed);
        }
    }
}

/// Whether it may be compared again.
const fn is_due(pulse: &Pulse, now: u64) -> bool {
    let never = pulse.looked_ns == 0;
    pulse.why == 0 && (never || now.saturating_sub(pulse.looked_ns) >= PAUSE_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn three() -> [Repute; 3] {
        Default::default()
    }

    /// All answer well, once per millisecond up to `until`, each client on a connection of its own.
    fn serve(copies: &[Repute], until: u64) {
        for ms in 1..=until {
            for copy in copies {
                assert_eq!(copy.asked(ms * MS), Verdict::Fine);
                assert_eq!(copy.answered(ms * MS, MS, false, ms as u32), Verdict::Fine);
            }
        }
    }

    #[test]
    fn the_one_that_fails_alone_is_passed_by_until_it_is_pardoned() {
        let copies = three();
        serve(&copies, 50);
        let [bad, one, other] = &copies;
        let mut verdicts = (51..54).map(|ms| bad.answered(ms * MS, MS, true, ms as u32));
        assert_eq!(verdicts.next(), Some(Verdict::Fine));
        assert_eq!(verdicts.nth(1), Some(Verdict::Odd(EventKind::Failing)));
        for peer in [one, other] {
            peer.answered(54 * MS, MS, false, 1);
        }
        assert!(bad.judge([one, other].into_iter(), EventKind::Failing, 55 * MS));
        assert_eq!(bad.why(), EventKind::Failing as u32);
        assert!(!bad.is_good());
        // An answer does not help it, nor may a second of three go.
        bad.answered(56 * MS, MS, false, 2);
        assert!(!bad.is_good());
        for ms in 57..70 {
            one.answered(ms * MS, MS, true, ms as u32);
            other.answered(ms * MS, MS, false, 1);
        }
        assert!(!one.judge([bad, other].into_iter(), EventKind::Failing, 70 * MS));
        bad.pardon(71 * MS);
        assert!(bad.is_good());
    }

    #[test]
    fn one_client_s_errors_say_nothing_and_those_of_all_copies_neither() {
        let copies = three();
        serve(&copies, 50);
        let [bad, one, other] = &copies;
        for ms in 51..90 {
            assert_eq!(bad.answered(ms * MS, MS, true, 7), Verdict::Fine);
        }
        for ms in 90..99 {
            for copy in &copies {
                copy.answered(ms * MS, MS, true, ms as u32);
            }
        }
        assert!(!bad.judge([one, other].into_iter(), EventKind::Failing, 99 * MS));
    }

    #[test]
    fn silence_ends_with_an_answer() {
        let copies = three();
        serve(&copies, 50);
        let [mute, one, other] = &copies;
        let mut odd = false;
        for ms in 51..80 {
            odd = mute.asked(ms * MS) == Verdict::Odd(EventKind::Silent);
            for peer in [one, other] {
                peer.asked(ms * MS);
                peer.answered(ms * MS, MS, false, 1);
            }
        }
        assert!(odd);
        assert!(mute.judge([one, other].into_iter(), EventKind::Silent, 80 * MS));
        mute.answered(81 * MS, 30 * MS, false, 1);
        assert!(mute.is_good());
    }
}
