//! How long something takes: always the same, drawn, or as it was measured.

use std::{str::FromStr, sync::Arc, time::Duration};

use rand_distr::{Distribution, Exp, LogNormal};
use rand_pcg::Pcg64Mcg;

/// A distribution of times.
#[derive(Clone, Debug, PartialEq)]
pub enum Dist {
    /// Always the same.
    Fixed(Duration),
    /// Exponential, with this mean.
    Exponential(Exp<f64>, Duration),
    /// Lognormal, with this mean and standard deviation over mean.
    Lognormal(LogNormal<f64>, Duration),
    /// These in turn, and from the beginning again.
    Listed(Arc<[Duration]>),
}

/// Why a text is no distribution.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no distribution: write 500ms, exp:500ms, lognormal:500ms:0.5 (mean, and standard deviation over mean), or measured times in turn: 210ms,190ms,350ms"
)]
pub struct DistError {
    text: String,
}

impl Dist {
    /// A time, of which so many were asked for before.
    pub fn draw(&self, turn: usize, rng: &mut Pcg64Mcg) -> Duration {
        let seconds = match self {
            Self::Fixed(time) => return *time,
            Self::Listed(times) => {
                let time = times.get(turn % times.len().max(1));
                return time.copied().unwrap_or_default();
            }
            Self::Exponential(exp, _) => exp.sample(rng),
            Self::Lognormal(normal, _) => normal.sample(rng),
        };
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Their mean.
    pub fn mean(&self) -> Duration {
        match self {
            Self::Fixed(mean) | Self::Exponential(_, mean) | Self::Lognormal(_, mean) => *mean,
            Self::Listed(times) => {
                let sum: Duration = times.iter().sum();
                sum / u32::try_from(times.len().max(1)).unwrap_or(u32::MAX)
            }
        }
    }

    /// Whether seeds make a difference.
    pub const fn is_random(&self) -> bool {
        !matches!(self, Self::Fixed(_) | Self::Listed(_))
    }
}

impl FromStr for Dist {
    type Err = DistError;

    fn from_str(text: &str) -> Result<Self, DistError> {
        parse(text).ok_or_else(|| DistError {
            text: text.to_owned(),
        })
    }
}

fn parse(text: &str) -> Option<Dist> {
    if text.contains(',') {
        let times = text.split(',').map(humantime::parse_duration);
        return times.collect::<Result<_, _>>().ok().map(Dist::Listed);
    }
    let time = |text: &str| {
        humantime::parse_duration(text)
            .ok()
            .filter(|time| !time.is_zero())
    };
    let words: Vec<&str> = text.split(':').collect();
    match words[..] {
        [one] => Some(Dist::Fixed(humantime::parse_duration(one).ok()?)),
        ["exp", mean] => {
            let mean = time(mean)?;
            Some(Dist::Exponential(
                Exp::new(1.0 / mean.as_secs_f64()).ok()?,
                mean,
            ))
        }
        ["lognormal", mean, spread] => {
            let (mean, spread) = (time(mean)?, spread.parse::<f64>().ok()?);
            let normal = LogNormal::from_mean_cv(mean.as_secs_f64(), spread).ok()?;
            Some(Dist::Lognormal(normal, mean))
        }
        _ => None,
    }
}
