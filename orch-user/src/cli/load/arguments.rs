//! From words to a plan and a request.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::body::Bytes;

use super::Args;
use crate::load::{
    error::LoadError,
    pattern::{DEFAULT_RATE, LONGEST_GAP_MS, Pattern, Plan, Spacing},
    target::Target,
    trace::Trace,
};

/// Requests per second that may be asked for. Who means more has mistyped.
const MOST: f64 = 10_000_000.0;

/// The URL, and when it is asked.
pub(super) fn plan(args: &Args) -> Result<(String, Plan), LoadError> {
    let (name, file, url) = split(args)?;
    let pattern = shape(args, name, file.as_deref())?;
    if args.period.is_some() && name != "sine" {
        return Err(usage("--period is for --pattern sine alone"));
    }
    if args.poisson && matches!(name, "deterministic" | "random") {
        return Err(LoadError::Usage {
            what: format!("--pattern {name} has its own distances: leave out --poisson"),
        });
    }
    if [args.duration, args.period, Some(args.timeout)].contains(&Some(Duration::ZERO)) {
        return Err(usage("--duration, --period and --timeout must be above 0"));
    }
    let spacing = if args.poisson {
        Spacing::Poisson
    } else {
        Spacing::Even
    };
    let plan = Plan {
        pattern,
        duration: args.duration,
        spacing,
        seed: args.seed,
    };
    Ok((url, plan))
}

fn shape(args: &Args, name: &str, file: Option<&Path>) -> Result<Pattern, LoadError> {
    let rates = args.rate.as_deref().map(Rates::parse).transpose()?;
    Ok(match name {
        "deterministic" => {
            if rates.is_some() {
                return Err(usage("--pattern deterministic has its own rates: leave out --rate"));
            }
            Pattern::Deterministic
        }
        "random" => Pattern::Random {
            shortest_ms: shortest_gap_ms(rates)?,
        },
        "constant" => Pattern::Constant {
            rate: one(rates, name)?.unwrap_or(DEFAULT_RATE),
        },
        "ramp" => {
            let (from, to) = two(rates, 0.0);
            Pattern::Ramp { from, to }
        }
        "spike" => {
            let (low, high) = two(rates, 0.1);
            Pattern::Spike { low, high }
        }
        "sine" => {
            let (low, high) = two(rates, 0.0);
            let period = args.period;
            Pattern::Sine { low, high, period }
        }
        "trace" => Pattern::Trace {
            trace: read_trace(file.ok_or_else(|| {
                usage("--pattern trace needs a file: --pattern trace FILE, CSV with the header second,count")
            })?)?,
            peak: one(rates, name)?,
        },
        _ => {
            return Err(LoadError::Usage {
                what: format!(
                    "there is no pattern `{name}`: deterministic, random, constant, ramp, spike, sine, trace FILE"
                ),
            });
        }
    })
}

/// The request of these arguments.
pub(super) fn target(args: &Args, url: &str) -> Result<Target, LoadError> {
    let body = args.body.as_ref().map(|path| {
        fs::read(path).map_err(|source| LoadError::Read {
            path: path.clone(),
            source,
        })
    });
    let body = Bytes::from(body.transpose()?.unwrap_or_default());
    Target::new(url, args.method.clone(), &args.headers, body)
}

/// Pattern, its file, URL. A pattern takes up to two words, so that the URL may be the second.
fn split(args: &Args) -> Result<(&str, Option<PathBuf>, String), LoadError> {
    let first = args.pattern.first().map_or("", String::as_str);
    let second = args.pattern.get(1);
    let (name, named) = match first.split_once('=') {
        Some((name, file)) => (name, Some(PathBuf::from(file))),
        None => (first, None),
    };
    let (file, url) = match (second, &args.url) {
        (Some(word), Some(url)) if name == "trace" && named.is_none() => (Some(word.into()), url),
        (Some(word), None) if name == "trace" && named.is_none() => {
            return Err(LoadError::Usage {
                what: format!(
                    "the trace is {word}, and the URL is missing: orch load URL --pattern trace {word}"
                ),
            });
        }
        (Some(url), None) | (None, Some(url)) => (named, url),
        (Some(word), Some(_)) => {
            return Err(LoadError::Usage {
                what: format!("`{word}` is too much: only the pattern `trace` has a file"),
            });
        }
        (None, None) => {
            return Err(usage(
                "the URL is missing: orch load http://HOST[:PORT][/PATH]",
            ));
        }
    };
    Ok((name, file, url.clone()))
}

fn read_trace(path: &Path) -> Result<Trace, LoadError> {
    let path = path.to_owned();
    match fs::read_to_string(&path) {
        Ok(text) => Trace::parse(&text).map_err(|source| LoadError::Trace { path, source }),
        Err(source) => Err(LoadError::Read { path, source }),
    }
}

/// `RATE` or `FROM..TO`, in requests per second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rates {
    from: Option<f64>,
    to: f64,
}

impl Rates {
    fn parse(text: &str) -> Result<Self, LoadError> {
        let number = |word: &str| {
            let number = word.trim().trim_end_matches("/s").parse::<f64>().ok();
            let right = number.filter(|rate| (0.0..=MOST).contains(rate));
            right.ok_or_else(|| LoadError::Usage {
                what: format!(
                    "`{text}` is no rate: write --rate 100 or --rate 10..200, requests per second up to {MOST}"
                ),
            })
        };
        Ok(match text.split_once("..") {
            Some((from, to)) => Self {
                from: Some(number(from)?),
                to: number(to)?,
            },
            None => Self {
                from: None,
                to: number(text)?,
            },
        })
    }
}

fn one(rates: Option<Rates>, name: &str) -> Result<Option<f64>, LoadError> {
    match rates {
        Some(Rates { from: Some(_), .. }) => Err(LoadError::Usage {
            what: format!("--pattern {name} has one rate, not FROM..TO"),
        }),
        Some(Rates { to, .. }) => Ok(Some(to)),
        None => Ok(None),
    }
}

/// Both rates; where one is given, the other is this share of it.
fn two(rates: Option<Rates>, share: f64) -> (f64, f64) {
    let to = rates.map_or(DEFAULT_RATE, |rates| rates.to);
    let from = rates.and_then(|rates| rates.from);
    (from.unwrap_or(to * share), to)
}

fn shortest_gap_ms(rates: Option<Rates>) -> Result<u64, LoadError> {
    let most = one(rates, "random")?.unwrap_or(1000.0);
    let gap_ms = (1000.0 / most).ceil();
    if !(1.0..=LONGEST_GAP_MS as f64).contains(&gap_ms) {
        return Err(usage(
            "--rate of --pattern random is the most that it may reach: 1.01 to 1000",
        ));
    }
    Ok(gap_ms as u64)
}

fn usage(what: &str) -> LoadError {
    LoadError::Usage {
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn of(words: &str) -> Result<(String, Plan), String> {
        let words = words.split_whitespace();
        let line = Line::try_parse_from(["load"].into_iter().chain(words));
        let line = line.map_err(|error| error.to_string())?;
        plan(&line.args).map_err(|error| error.to_string())
    }

    fn pattern(words: &str) -> Pattern {
        of(words).unwrap().1.pattern
    }

    #[test]
    fn patterns_have_their_usual_rates() {
        assert_eq!(pattern("u"), Pattern::Constant { rate: 10.0 });
        assert_eq!(pattern("u -p deterministic"), Pattern::Deterministic);
        assert_eq!(pattern("u -p random"), Pattern::Random { shortest_ms: 1 });
        assert_eq!(
            pattern("u -p random -r 20"),
            Pattern::Random { shortest_ms: 50 }
        );
        let (from, to) = (0.0, 80.0);
        assert_eq!(pattern("u -p ramp -r 80"), Pattern::Ramp { from, to });
        let (low, high) = (8.0, 80.0);
        assert_eq!(pattern("u -p spike -r 80"), Pattern::Spike { low, high });
        assert_eq!(
            pattern("u -p spike -r 8..80/s"),
            Pattern::Spike { low, high }
        );
    }

    #[test]
    fn the_url_may_stand_anywhere() {
        for words in ["u --pattern ramp", "--pattern ramp u", "--pattern=ramp u"] {
            let (url, plan) = of(words).unwrap();
            assert_eq!(url, "u", "{words}");
            assert!(matches!(plan.pattern, Pattern::Ramp { .. }), "{words}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.csv");
        fs::write(&file, "second,count\n0,3\n").unwrap();
        let file = file.display();
        for words in [
            format!("u --pattern trace {file}"),
            format!("--pattern trace {file} u"),
            format!("u --pattern trace={file}"),
        ] {
            let (url, plan) = of(&words).unwrap();
            assert_eq!((url.as_str(), plan.arrivals().count()), ("u", 3), "{words}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        for (words, expect) in [
            ("", "the URL is missing"),
            ("u -p wobble", "there is no pattern `wobble`"),
            ("u -p ramp x", "`x` is too much"),
            ("u -p trace", "needs a file"),
            ("-p trace x", "the URL is missing"),
            ("u -p trace /nonexistent", "cannot read /nonexistent"),
            ("u -p deterministic -r 3", "has its own rates"),
            ("u -p constant -r 3..4", "has one rate"),
            ("u -r -3", "unexpected argument"),
            ("u -r=-3", "`-3` is no rate"),
            ("u -r NaN", "`NaN` is no rate"),
            ("u -r inf", "`inf` is no rate"),
            ("u -p random -r 0.5", "1.01 to 1000"),
            ("u -p random --poisson", "its own distances"),
            ("u -p ramp --period 3s", "--period is for"),
            ("u -d 0s", "must be above 0"),
            ("u -k --one-per-request", "cannot be used with"),
            ("u --limit 0", "0 is not in"),
        ] {
            let error = of(words).unwrap_err();
            assert!(error.contains(expect), "{words}: {error}");
        }
    }
}
