//! Scaling: how many copies a service should have, and why. Pure; `now` is an argument.

pub mod outlook;
pub mod rest;
pub mod step;

use std::time::Duration;

/// What a policy has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Copies wanted before.
    pub from: u16,
    /// Copies wanted from now on.
    pub to: u16,
    /// The cause and its numbers, a sentence.
    pub reason: String,
}

/// Which way a decision goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// More copies.
    Up,
    /// Fewer.
    Down,
    /// As many as before.
    Same,
}

impl Direction {
    /// Every direction.
    pub const ALL: [Self; 3] = [Self::Up, Self::Down, Self::Same];

    /// The metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Same => "same",
        }
    }
}

impl Decision {
    /// Which way it goes.
    pub fn direction(&self) -> Direction {
        match self.to.cmp(&self.from) {
            std::cmp::Ordering::Greater => Direction::Up,
            std::cmp::Ordering::Less => Direction::Down,
            std::cmp::Ordering::Equal => Direction::Same,
        }
    }
}

/// A duration as the configuration file would say it: `2m`, `90s`, `2.5s`.
pub fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() == 0 && seconds > 0 && seconds.is_multiple_of(60) {
        return format!("{}m", seconds / 60);
    }
    format!("{duration:?}")
}
