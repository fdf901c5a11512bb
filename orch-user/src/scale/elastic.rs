//! The policy `elastic`: covers what comes, with a margin for chance, what waits, and what is about
//! to come; and keeps a copy for as long as that costs less than to miss it.
//!
//! `copies = round(load + margin + backlog)`, where
//!
//! - `load = rate / service rate`, in copies. The rate is that of the shortest recent window which
//!   differs from the time before it, and of the longest if none does: change detection by windows
//!   (Bifet and Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", 2007), with
//!   Anscombe's test for counts. The service rate is learnt, see [`super::Learner`].
//! - `margin = sqrt(load * dispersion)`: square-root staffing (Halfin and Whitt, 1981), with the
//!   dispersion of the arrivals in place of a Poisson process's 1 (Whitt's peakedness). It is the
//!   Allan factor of the counts of half seconds, which a change of the rate moves little. Spares are
//!   margin that is there already.
//!   Where the rate rises by more than that while a copy starts, the variance of its rises over such
//!   a time in the last two minutes is added to `load * dispersion`, times the square of
//!   `start² / 25`, which is at most 1: what is missed until a copy is there grows with the square of
//!   that time, and so does what a margin is worth.
//! - `backlog = waiting / (service rate * 5 s)`: what waits is gone in 5 s.
//! - If counts repeat, and the last period says notably more of the time until a copy ordered now is
//!   ready, that is the rate, and two standard errors of such forecasts are added. They count as repeating
//!   if the period's forecasts, over all that is known and at least one whole period, were twice as
//!   good as "as it was when a copy ordered then would have come"; what was quiet before the first
//!   request that is known does not count. What comes as forecast is no longer
//!   notably less than the forecast: copies there are stay for any forecast above the rate.
//!
//! Down: to the most that was needed within the hold, `service rate * start² / 2` seconds: while a
//! copy that is missing starts, so many request-seconds are spent waiting for it, and a copy held
//! for nothing costs as many copy-seconds (the break-even of ski rental). At least one start, at most
//! five minutes.

use serde::{Deserialize, Serialize};

use super::{Advice, History, Limits};
use crate::state::Moment;

/// Windows over which a change of the rate is looked for, in seconds, for copies that start within
/// `WINDOWS_START_S`. What takes longer to start cannot follow what is shorter, and they grow with it.
const WINDOWS_S: [f64; 11] = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0];
/// See [`WINDOWS_S`].
const WINDOWS_START_S: f64 = 1.0;
/// A window is compared with so many times its length before it.
const BASE: f64 = 4.0;
/// Standard deviations from which a higher rate counts as a change: 1 in 160 by chance.
const UP: f64 = 2.5;
/// The same for a lower rate: 1 in 44. A mistake costs less, since the hold comes after it.
const DOWN: f64 = 2.0;
/// Counts of this many seconds tell the dispersion.
const BIN_S: f64 = 0.5;
/// So many seconds of them.
const DISPERSION_S: f64 = 60.0;
/// Requests of a Poisson process that are taken to have come before all others.
const PRIOR: f64 = 4.0;
/// Dispersion is never taken to be less or more: few counts prove no clockwork.
const DISPERSIONS: (f64, f64) = (0.25, 4.0);
/// Counts of so many seconds tell by how much the rate rises while a copy starts.
const RISES_S: f64 = 120.0;
/// Rises are covered in part where a start takes less than the square root of this, in seconds.
const COVER_S2: f64 = 25.0;
/// So many of them, at the least.
const FEW: u32 = 5;
/// What waits should be gone in so many seconds.
const DRAIN_S: f64 = 5.0;
/// Counts of so many seconds tell a period: one of up to half of them.
const SEASON_S: usize = 240;
/// A period's forecasts must be better than this part of the others' squared errors.
const TRUST: f64 = 0.5;
/// Standard errors that are added to a period's forecast: 1 in 44 is above.
const SURE: f64 = 2.0;
/// A copy goes only if so much of it was not needed beyond the rounding.
const STAYS: f64 = 0.25;
/// So long without a request, where nothing is known of what a copy can do, that none is needed for it, in seconds.
const RESTED_S: f64 = 12.0;
/// A start is never taken to be shorter, in seconds: two readings.
const LEAST_START_S: f64 = 0.5;
/// Longest hold, in seconds.
const LONGEST_HOLD_S: f64 = 300.0;

/// The policy. There is nothing to set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elastic;

/// What is needed now, and from what that follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    pub(super) copies: u16,
    /// As many are kept of those there are: a little more, or noise would go to and fro.
    keep: u16,
    rate: f64,
    service_rate: f64,
    margin: f64,
    waiting: f64,
    season: Option<Season>,
}

/// What the last period says of the time until a copy that is ordered now is ready.
#[derive(Clone, Copy, Debug)]
struct Season {
    period_s: usize,
    rate: f64,
    /// Standard error of such forecasts.
    error: f64,
}

impl Elastic {
    #[expect(clippy::unused_self, reason = "as every policy")]
    pub(super) fn need(self, history: &History, limits: Limits) -> Option<Need> {
        let last = history.last();
        let service_rate = last.service_rate;
        if service_rate <= 0.0 {
            return has_rested(history).then(|| Need::nothing(limits));
        }
        let dispersion = dispersion(history);
        let start = last.start_s.max(LEAST_START_S);
        let now = rate(history, dispersion, start);
        // What chance or a fraction of a copy would explain is not worth a change.
        let notable = (SURE * (now * dispersion).sqrt()).max(service_rate);
        let forecast = season(history, start).filter(|season| season.rate > now);
        let season = forecast.filter(|season| season.rate > now + notable);
        let cover = (start * start / COVER_S2).min(1.0) / service_rate;
        let rises = cover * cover * rises(history, start, dispersion);
        let with = |season: Option<Season>| {
            let rate = season.map_or(now, |season| season.rate);
            let unsure = season.map_or(0.0, |season| SURE * season.error / service_rate);
            let load = rate / service_rate;
            let chance = (load * dispersion + rises).sqrt() + unsure;
            let margin = (chance - f64::from(last.spares)).max(0.0);
            let working = load * (service_rate * last.alone_s).max(1.0);
            let waiting = (last.in_flight as f64 - working).max(0.0);
            let backlog = waiting / (service_rate * DRAIN_S);
            (rate, margin, waiting, load + margin + backlog)
        };
        let (rate, margin, waiting, wanted) = with(season);
        let (.., kept) = with(forecast);
        Some(Need {
            copies: limits.clamp(wanted.round()),
            keep: limits.clamp((wanted.max(kept) + STAYS).round()),
            rate,
            service_rate,
            margin,
            waiting,
            season,
        })
    }

    pub(super) fn decide(self, history: &History, limits: Limits, now: Moment) -> Advice {
        let Some(need) = self.need(history, limits) else {
            return Advice {
                desired: limits.clamp(f64::from(history.desired)),
                reason: "nothing is known of what a copy can do".to_owned(),
            };
        };
        let patience = hold_s(history);
        let before = history
            .desired
            .min(history.most_wanted(now, patience).max(need.keep));
        let desired = limits.clamp(f64::from(need.copies.max(before)));
        let kept = if desired > need.copies {
            format!(", {desired} were within {patience:.1} s")
        } else {
            String::new()
        };
        if need.service_rate <= 0.0 {
            let reason = format!("no request for {RESTED_S} s, nor before that: {desired} needed");
            return Advice { desired, reason };
        }
        let expected = need.season.map_or_else(String::new, |season| {
            format!(" expected, as {} s ago", season.period_s)
        });
        let reason = format!(
            "{:.1} requests/s{expected} at {:.1}/s per copy, {:.0} waiting, margin {:.1}: {} needed{kept}",
            need.rate, need.service_rate, need.waiting, need.margin, need.copies,
        );
        Advice { desired, reason }
    }
}

impl Need {
    /// Where nobody asks for anything.
    const fn nothing(limits: Limits) -> Self {
        Self {
            copies: limits.min,
            keep: limits.min,
            rate: 0.0,
            service_rate: 0.0,
            margin: 0.0,
            waiting: 0.0,
            season: None,
        }
    }
}

/// Whether nothing has come for some time.
fn has_rested(history: &History) -> bool {
    let (age, then) = history.before(RESTED_S);
    let last = history.last();
    age >= RESTED_S - 0.5 && last.in_flight == 0 && last.requests == then.requests
}

/// For how long a copy is kept that is not needed.
fn hold_s(history: &History) -> f64 {
    let last = history.last();
    let start = last.start_s.max(LEAST_START_S);
    let missed = last.service_rate * start * start / 2.0;
    missed.max(start).min(LONGEST_HOLD_S)
}

/// Requests a second.
fn rate(history: &History, dispersion: f64, start_s: f64) -> f64 {
    let last = history.last().requests;
    let slower = (start_s / WINDOWS_START_S).max(1.0);
    let mut longest = 0.0;
    for window in WINDOWS_S.map(|window| window * slower) {
        let (width, edge) = history.before(window);
        if width < window * 0.9 {
            break;
        }
        let (age, first) = history.before(window * (1.0 + BASE));
        let recent = last.saturating_sub(edge.requests) as f64;
        longest = recent / width;
        let base = age - width;
        if base < window * 0.9 {
            continue;
        }
        let before = edge.requests.saturating_sub(first.requests) as f64;
        let deviation = deviation(recent, before, width / base) / dispersion.sqrt();
        if !(-DOWN..=UP).contains(&deviation) {
            return longest;
        }
    }
    longest
}

/// By how many standard deviations a count differs from another over a span `1 / part` times as
/// long, if both are of one Poisson process.
fn deviation(recent: f64, before: f64, part: f64) -> f64 {
    let (recent, expected) = (recent + 0.375, (before + 0.375) * part);
    2.0 * (recent.sqrt() - expected.sqrt()) / (1.0 + part).sqrt()
}

/// Requests per bin of so many seconds, the latest first.
fn bins(history: &History, bin_s: f64, most_s: f64) -> impl Iterator<Item = f64> {
    let mut edge: Option<(f64, u64)> = None;
    let recent = history
        .backwards()
        .take_while(move |(age, _)| *age <= most_s + 0.01);
    recent.filter_map(move |(age, metrics)| {
        let Some((at, requests)) = edge else {
            edge = Some((age, metrics.requests));
            return None;
        };
        // Clocks of readings jitter.
        if age - at < bin_s - 0.01 {
            return None;
        }
        edge = Some((age, metrics.requests));
        Some(requests.saturating_sub(metrics.requests) as f64)
    })
}

/// The Allan factor: half the mean square of differences of neighbouring counts, over their mean.
/// 1 for a Poisson process, 0 for clockwork, more for bursts.
fn dispersion(history: &History) -> f64 {
    let (mut squares, mut sum) = (PRIOR, PRIOR);
    let mut later: Option<f64> = None;
    for count in bins(history, BIN_S, DISPERSION_S) {
        if let Some(later) = later {
            squares += (later - count).powi(2) / 2.0;
            sum += f64::midpoint(later, count);
        }
        later = Some(count);
    }
    (squares / sum).clamp(DISPERSIONS.0, DISPERSIONS.1)
}

/// Mean square of what the rate rises by while a copy starts, beyond what chance would explain.
fn rises(history: &History, start_s: f64, dispersion: f64) -> f64 {
    let counts: Vec<f64> = bins(history, 1.0, RISES_S).collect();
    let pairs = counts.iter().zip(counts.iter().skip(lead(start_s)));
    let (mut squares, mut sum, mut pairs_seen) = (0.0, 0.0, 0_u32);
    for (later, earlier) in pairs {
        squares += (later - earlier).max(0.0).powi(2);
        sum += f64::midpoint(*later, *earlier);
        pairs_seen += 1;
    }
    // A few seconds say nothing of what is usual.
    if pairs_seen < FEW {
        return 0.0;
    }
    // Counts of one second differ by chance with twice their variance, and half of that upwards.
    ((squares - sum * dispersion) / f64::from(pairs_seen)).max(0.0)
}

/// Seconds until a copy that is ordered now is ready, whole ones: a reading may have to be waited for.
fn lead(start_s: f64) -> usize {
    (start_s + 0.25).ceil() as usize
}

/// The period after which counts repeat, if they do.
fn season(history: &History, start_s: f64) -> Option<Season> {
    let mut counts: Vec<f64> = bins(history, 1.0, SEASON_S as f64).collect();
    // What was quiet before the first request was no part of a period, or a load that has just begun
    // would look less regular the longer nobody came before it.
    let known = counts.iter().rposition(|count| *count > 0.0);
    counts.truncate(known.map_or(0, |first| first + 1));
    let lead = lead(start_s);
    // The mean square error of forecasts so far ahead, or no number at all if it is not below `least`.
    let error = |shift: usize, over: usize, least: f64| {
        let pairs = counts.iter().zip(counts.iter().skip(shift)).take(over);
        let most = least * over as f64;
        let mut squares = 0.0;
        for (now, then) in pairs {
            squares += (now - then).powi(2);
            if squares >= most {
                return None;
            }
        }
        Some(squares / over as f64)
    };
    let mut best: Option<(usize, f64)> = None;
    for period in lead + 1..=counts.len() / 2 {
        let over = counts.len() - period;
        let least = best.map_or(f64::INFINITY, |(_, least)| least);
        let Some(squares) = error(period, over, least) else {
            continue;
        };
        let others = error(lead, over, f64::INFINITY).unwrap_or(0.0);
        if squares < TRUST * others {
            best = Some((period, squares));
        }
    }
    let (period_s, squares) = best?;
    let ahead = counts.iter().take(period_s).rev().take(lead + 1);
    Some(Season {
        period_s,
        rate: ahead.copied().fold(0.0, f64::max),
        error: squares.sqrt(),
    })
}
