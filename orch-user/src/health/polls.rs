//! The last polls of a slot, as dots are drawn of them. A few bits each, so that they cost nothing
//! while nobody looks.

use super::Answer;

/// Polls that are remembered.
pub const POLLS: u32 = 60;
const BITS: u32 = 2;

/// What became of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Answered 200.
    Good,
    /// Not well yet: the backend has never answered 200. Many such polls in a row are one.
    Starting,
    /// Anything else, or the backend was seen to end.
    Bad,
}

impl Poll {
    /// What an answer is, from a backend that has been well before or not.
    pub const fn of(answer: Answer, was_well: bool) -> Self {
        if answer.is_good() {
            Self::Good
        } else if was_well {
            Self::Bad
        } else {
            Self::Starting
        }
    }
}

/// The last [`POLLS`] polls of a slot, whichever backend was in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Polls(u128);

impl Polls {
    /// Adds the newest.
    pub const fn push(&mut self, poll: Poll) {
        let code = match poll {
            Poll::Good => 1,
            Poll::Starting => 2,
            Poll::Bad => 3,
        };
        // A starting backend is polled 20 times a second: it must not push the minute before out.
        if code == 2 && self.0 & 3 == 2 {
            return;
        }
        let kept = (1 << (POLLS * BITS)) - 1;
        self.0 = (self.0 << BITS | code) & kept;
    }

    /// A character per poll, oldest first: `+` good, `.` starting, `!` bad.
    pub fn marks(self) -> String {
        let code = |at: u32| self.0 >> (at * BITS) & 3;
        let polls = (0..POLLS).rev().map(code).filter(|code| *code != 0);
        polls.map(mark).collect()
    }
}

const fn mark(code: u128) -> char {
    match code {
        1 => '+',
        2 => '.',
        _ => '!',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_are_kept_in_order_and_a_start_is_one() {
        let mut polls = Polls::default();
        assert_eq!(polls.marks(), "");
        for answer in [Answer::Refused, Answer::Refused, Answer::Status(503)] {
            polls.push(Poll::of(answer, false));
        }
        for answer in [Answer::Status(200), Answer::TimedOut, Answer::Status(500)] {
            polls.push(Poll::of(answer, true));
        }
        assert_eq!(polls.marks(), ".+!!");
    }

    #[test]
    fn the_oldest_go() {
        let mut polls = Polls::default();
        polls.push(Poll::Bad);
        for _ in 1..POLLS {
            polls.push(Poll::Good);
        }
        assert_eq!(polls.marks().len(), 60);
        assert!(polls.marks().starts_with("!+"));
        polls.push(Poll::Bad);
        assert_eq!(polls.marks(), format!("{}!", "+".repeat(59)));
    }
}
