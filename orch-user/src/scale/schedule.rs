//! The policy `schedule`: a floor by the time of day, and above it what `elastic` wants. For load
//! that is known beforehand: `["mon-fri 07:45-18:00 6", "20:00-23:00 3"]`. Times are UTC; a span
//! may go over midnight and then belongs to the day on which it begins.

use serde::{Deserialize, Serialize};

use super::{Advice, History, Limits, elastic::Elastic};
use crate::state::Moment;

const DAY: u32 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// What the file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The floors; the highest that applies holds.
    pub spans: Vec<Span>,
    /// What decides above the floor.
    pub above: Elastic,
}

/// A floor within some time of some days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// On these days, Monday first.
    pub days: [bool; 7],
    /// Minutes since midnight UTC.
    pub from: u32,
    /// The first minute that is outside.
    pub to: u32,
    /// Copies at the least.
    pub floor: u16,
    /// As the file says it.
    pub text: String,
}

impl Span {
    /// `mon-fri 08:00-18:00 4`, with the days left out for every day. `None` if it is not of
    /// this form.
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (days, times, floor) = match words[..] {
            [times, floor] => ([true; 7], times, floor),
            [days, times, floor] => (parse_days(days)?, times, floor),
            _ => return None,
        };
        let (from, to) = times.split_once('-')?;
        let (from, to) = (parse_time(from)?, parse_time(to)?);
        let floor = floor.parse().ok()?;
        let begins = from < DAY && from != to;
        begins.then(|| Self {
            days,
            from,
            to,
            floor,
            text: text.to_owned(),
        })
    }

    /// Whether it applies at this many seconds since 1970.
    pub fn applies(&self, wall_s: f64) -> bool {
        let minutes = (wall_s / 60.0) as u64;
        let minute = (minutes % u64::from(DAY)) as u32;
        // 1970-01-01 was a Thursday.
        let today = ((minutes / u64::from(DAY) + 3) % 7) as usize;
        let on = |day: usize| self.days.get(day).copied().unwrap_or(false);
        if self.from < self.to {
            return on(today) && (self.from..self.to).contains(&minute);
        }
        (on(today) && minute >= self.from) || (on((today + 6) % 7) && minute < self.to)
    }
}

fn parse_days(text: &str) -> Option<[bool; 7]> {
    let number = |day: &str| DAYS.iter().position(|name| *name == day);
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        let length = (last + 7 - first) % 7;
        for day in (first..=first + length).map(|day| day % 7) {
            *days.get_mut(day)? = true;
        }
    }
    Some(days)
}

fn parse_time(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes) = (hours.parse::<u32>().ok()?, minutes.parse::<u32>().ok()?);
    let minute = hours.checked_mul(60)?.checked_add(minutes)?;
    (minutes < 60 && minute <= DAY).then_some(minute)
}

impl Schedule {
    fn floor(&self, history: &History) -> Option<&Span> {
        let now = history.last().wall_s;
        let applying = self.spans.iter().filter(|span| span.applies(now));
        applying.max_by_key(|span| span.floor)
    }

    pub(super) fn need(&self, history: &History, limits: Limits) -> u16 {
        let above = self.above.need(history, limits);
        above.map_or(limits.min, |need| need.copies)
    }

    pub(super) fn decide(&self, history: &History, limits: Limits, now: Moment) -> Advice {
        let advice = self.above.decide(history, limits, now);
        let Some(span) = self.floor(history) else {
            return advice;
        };
        let floor = limits.clamp(f64::from(span.floor));
        if floor <= advice.desired {
            return advice;
        }
        Advice {
            desired: floor,
            reason: format!("the schedule {:?} wants {floor} at the least", span.text),
        }
    }
}
