//! `orch sim`: what would a policy have done?

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;

use super::{CliError, Target, print, print::Format, record};
use crate::{
    config::{EXAMPLE, ScaleConfig, parse},
    control::Recording,
    scale::{Log, Policy},
    sim::{
        arrivals::Pattern,
        dist::Dist,
        engine::World,
        plot,
        study::{Contender, Mean, Score, Study},
        synthetic::Synthetic,
        trace::Trace,
    },
    table::{Side, Table},
};

/// Simulates what policies do with a pattern of requests, or decides again from a recording
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    orch sim                                             all policies on the predefined pattern\n  \
    orch sim --pattern random --seeds 30 --start 5s\n  \
    orch sim --trace examples/traces/day.csv --peak 16 --policy elastic --plot day.svg\n  \
    orch sim --service acts                              on what a live service saw, with its limits\n  \
    orch sim --from-events acts.json                     the decisions of a recording, once more\n\n\
    LOST is without an answer at the end, LATE answered or waiting beyond --late, UNDER and OVER are copies\n\
    missing and too many over copies needed (SPEC's elasticity). Names in brackets are references, and\n\
    (oracle) knows what will come. Times are 500ms, exp:500ms or lognormal:500ms:0.5 (mean, and deviation\n\
    over mean). Traces are CSV with the header `second,count` or `minute,count`.")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// What clients do
    #[arg(long, value_enum, default_value_t = Clients::Deterministic)]
    pattern: Clients,
    /// How long the random pattern lasts
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration)]
    length: Duration,
    /// Requests of this trace, rather than a pattern
    #[arg(long, value_name = "FILE", conflicts_with_all = ["service", "from_events"])]
    trace: Option<PathBuf>,
    /// Scales the trace to so many requests a second at its peak
    #[arg(long, value_name = "RATE")]
    peak: Option<f64>,
    /// One half of the trace alone: tune on the first, report on the second
    #[arg(long, value_enum)]
    half: Option<Half>,
    /// What this live service saw, with its limits
    #[arg(long, value_name = "SERVICE", conflicts_with = "from_events")]
    service: Option<String>,
    /// Lets the policy of a recording decide again, and compares
    #[arg(long, value_name = "FILE")]
    from_events: Option<PathBuf>,
    /// Writes a made trace to the standard output: day, crowd or bursts
    #[arg(long, value_name = "NAME", conflicts_with_all = ["trace", "service", "from_events"])]
    generate: Option<String>,
    /// This policy alone, with defaults; again for more [default: all]
    #[arg(long, value_name = "POLICY")]
    policy: Vec<String>,
    /// How long a request takes that does not wait
    #[arg(long, value_name = "TIME", default_value = "500ms")]
    time: Dist,
    /// How long a copy takes to start
    #[arg(long, value_name = "TIME", default_value = "700ms")]
    start: Dist,
    /// Requests that a copy works on at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    /// Fewest copies
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    min: Option<u16>,
    /// Most copies
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    max: Option<u16>,
    /// Ready spares at hand
    #[arg(long, value_name = "N", default_value_t = 0)]
    spares: u16,
    /// An answer that takes longer is late
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    late: Duration,
    /// Runs with so many seeds, for confidence intervals [default: 1 where nothing is random, else 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    seeds: Option<u64>,
    /// Draws the first run of the last policy that is named, or of elastic, into this file (SVG)
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Says each decision of the first run, as `orch why` does
    #[arg(long)]
    why: bool,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Clients {
    /// 1.25, 10, 2, 10, 5 and 20 requests/s, 5 s each: 215 in all, since its clock begins anew each second
    Deterministic,
    /// Intervals up to 999 ms, redrawn every 5 s
    Random,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Half {
    First,
    Second,
}

pub(super) async fn run(args: Args, before: Target) -> Result<(), CliError> {
    if let Some(path) = &args.from_events {
        return replay(path, args.output);
    }
    if let Some(name) = &args.generate {
        return generate(name);
    }
    let recording: Option<Recording> = match &args.service {
        Some(service) => {
            let client = args.target.clone().or(before).client()?;
            let what = format!("/v1/services/{service}/recording");
            Some(client.get(&what).await?)
        }
        None => None,
    };
    let rules = rules(&args, recording.as_ref())?;
    let study = study(&args, recording.as_ref(), rules)?;
    let contenders = contenders(&args.policy, &study.rules)?;
    let scores: Vec<Score> = contenders.iter().map(|one| study.score(one)).collect();
    match args.output {
        Format::Json => print::json(&scores)?,
        Format::Table => print::text(&table(&scores).render(print::cell))?,
    }
    let shown = contenders.iter().rfind(|one| {
        let elastic = matches!(one, Contender::Own(Policy::Elastic(_)));
        elastic || !args.policy.is_empty()
    });
    let Some(shown) = shown else {
        return Ok(());
    };
    if args.why {
        for (at, decision) in study.decisions(shown) {
            let (from, to) = (decision.from, decision.to);
            print::text(&format!(
                "{:8.2}s  {from} -> {to}: {}\n",
                at.as_secs_f64(),
                decision.reason
            ))?;
        }
    }
    match &args.plot {
        Some(path) => draw(path, &study, shown),
        None => Ok(()),
    }
}

fn draw(path: &Path, study: &Study, shown: &Contender) -> Result<(), CliError> {
    let outcome = study.run(shown, 0);
    let title = format!(
        "{}: {} requests, {} without an answer, {:.0} copy-seconds",
        shown.name(),
        outcome.arrivals,
        outcome.unanswered(),
        outcome.copy_s()
    );
    let path = path.to_owned();
    if path.extension().is_none_or(|extension| extension != "svg") {
        let why = "name a file that ends in .svg".to_owned();
        return Err(CliError::Plot { path, why });
    }
    match plot::svg(&title, &outcome, study.world.service_rate()) {
        Ok(text) => fs::write(&path, text).map_err(|source| CliError::File { path, source }),
        Err(why) => Err(CliError::Plot { path, why }),
    }
}

fn generate(name: &str) -> Result<(), CliError> {
    let made = Synthetic::ALL.iter().find(|made| made.name() == name);
    let names = Synthetic::ALL.map(Synthetic::name).join(", ");
    let what = || format!("there is no made trace {name:?}; there is: {names}");
    let made = made.ok_or_else(|| CliError::Simulation { what: what() })?;
    print::text(&made.csv())
}

/// Limits: of the flags, else of the live service, else the defaults of a file.
fn rules(args: &Args, recording: Option<&Recording>) -> Result<ScaleConfig, CliError> {
    let mut rules = match recording {
        Some(recording) => recording.log.last_rules(),
        None => default_rules()?,
    };
    rules.min = args.min.unwrap_or(rules.min).max(1);
    rules.max = args.max.unwrap_or(rules.max);
    if rules.min > rules.max {
        let what = format!("min {} is above max {}", rules.min, rules.max);
        return Err(CliError::Simulation { what });
    }
    Ok(rules)
}

fn default_rules() -> Result<ScaleConfig, CliError> {
    let config = parse("defaults", EXAMPLE)?;
    let rules = config.services.into_iter().next().map(|one| one.scale);
    rules.ok_or_else(|| CliError::Simulation {
        what: "the defaults have no service".to_owned(),
    })
}

fn study(
    args: &Args,
    recording: Option<&Recording>,
    rules: ScaleConfig,
) -> Result<Study, CliError> {
    let trace = match (&args.trace, recording) {
        (Some(path), _) => Some(read_trace(path)?),
        (None, Some(recording)) => Some(record::trace(recording)),
        (None, None) => None,
    };
    let pattern = match trace {
        Some(trace) => Pattern::Trace(shaped(trace, args)),
        None if args.pattern == Clients::Random => Pattern::Random(args.length),
        None => Pattern::Deterministic,
    };
    if pattern.length().is_zero() {
        let what =
            "there is nothing to replay: the service has seen no whole second yet".to_owned();
        return Err(CliError::Simulation { what });
    }
    let random = pattern.is_random() || args.time.is_random() || args.start.is_random();
    Ok(Study {
        world: World {
            service: args.time,
            start: args.start,
            concurrency: args.concurrency as usize,
            max: rules.max,
            first: rules.min,
            end: pattern.length(),
            late: args.late,
            spares: args.spares,
        },
        pattern,
        rules,
        seeds: args.seeds.unwrap_or(if random { 10 } else { 1 }),
    })
}

fn shaped(trace: Trace, args: &Args) -> Trace {
    let trace = match args.half {
        Some(half) => trace.half(half == Half::Second),
        None => trace,
    };
    args.peak
        .map_or(trace.clone(), |peak| trace.with_peak(peak.max(0.0)))
}

fn read_trace(path: &Path) -> Result<Trace, CliError> {
    let path = path.to_owned();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(CliError::File { path, source }),
    };
    Trace::parse(&text).map_err(|source| CliError::Trace { path, source })
}

fn contenders(names: &[String], rules: &ScaleConfig) -> Result<Vec<Contender>, CliError> {
    let known = Contender::policies();
    if names.is_empty() {
        let references = Contender::references(rules.max);
        return Ok(known.into_iter().chain(references).collect());
    }
    let find = |name: &String| {
        let found = known.iter().find(|one| one.name() == *name);
        found.cloned().ok_or_else(|| {
            let names: Vec<_> = known.iter().map(Contender::name).collect();
            let what = format!(
                "there is no policy {name:?} to simulate; there is: {}",
                names.join(", ")
            );
            CliError::Simulation { what }
        })
    };
    names.iter().map(find).collect()
}

fn table(scores: &[Score]) -> Table {
    let mut table = Table::new(&[
        ("POLICY", Side::Left),
        ("REQUESTS", Side::Right),
        ("LOST", Side::Right),
        ("REFUSED", Side::Right),
        ("LATE", Side::Right),
        ("LATE%", Side::Right),
        ("COPY-S", Side::Right),
        ("ACTIONS", Side::Right),
        ("REVERSALS", Side::Right),
        ("P50", Side::Right),
        ("P99", Side::Right),
        ("UNDER", Side::Right),
        ("OVER", Side::Right),
    ]);
    for score in scores {
        table.row(vec![
            score.policy.clone(),
            number(score.arrivals, 0),
            number(score.unanswered, 1),
            number(score.refused, 0),
            number(score.late, 1),
            number(score.late_percent, 1),
            number(score.copy_seconds, 0),
            number(score.actions, 1),
            number(score.reversals, 1),
            format!("{:.2}s", score.p50_s.mean),
            format!("{:.2}s", score.p99_s.mean),
            number(score.under, 2),
            number(score.over, 2),
        ]);
    }
    table
}

fn number(mean: Mean, digits: usize) -> String {
    if mean.plus_minus == 0.0 {
        return format!("{:.digits$}", mean.mean);
    }
    format!("{:.digits$}±{:.digits$}", mean.mean, mean.plus_minus)
}

/// Decides again what was decided before.
fn replay(path: &Path, output: Format) -> Result<(), CliError> {
    let path = path.to_owned();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(CliError::File { path, source }),
    };
    let log: Log = match serde_json::from_str(&text) {
        Ok(log) => log,
        Err(source) => return Err(CliError::Recording { path, source }),
    };
    let replayed = log.replay();
    if output == Format::Json {
        print::json(&replayed)?;
    }
    for (at, again, before) in &replayed {
        let words = |decision: &Option<crate::scale::Decision>| match decision {
            Some(one) => format!("{} -> {}: {}", one.from, one.to, one.reason),
            None => "nothing".to_owned(),
        };
        if output == Format::Json {
            continue;
        }
        print::text(&format!("{:8.2}s  {}\n", at.as_secs_f64(), words(again)))?;
        if again != before {
            print::text(&format!("           but before: {}\n", words(before)))?;
        }
    }
    let count = replayed
        .iter()
        .filter(|(_, again, before)| again != before)
        .count();
    let all = replayed.len();
    if count > 0 {
        return Err(CliError::Differs { count, all });
    }
    if output == Format::Table {
        let readings = log.entries.len();
        print::text(&format!(
            "{all} decisions from {readings} inputs, all the same as before\n"
        ))?;
    }
    Ok(())
}
