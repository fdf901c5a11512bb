//! `orch sim`: what would a policy have done?

mod replay;
mod setup;
mod show;

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use super::{CliError, Target, print, print::Format};
use crate::{
    chart::Sheet,
    control::Recording,
    scale::Policy,
    sim::{
        dist::Dist,
        plot::Plot,
        study::{Contender, Score, Study},
        synthetic::Synthetic,
    },
};

/// Between two looks at the clock of a bar.
const TICK: Duration = Duration::from_millis(250);

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
    (oracle) knows what will come. Times are 500ms, exp:500ms, lognormal:500ms:0.5 (mean, and deviation\n\
    over mean), or measured ones in turn: 210ms,190ms. Traces are CSV with the header `second,count` or `minute,count`.")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// deterministic | random | constant | ramp | spike | sine, as `orch load` sends them
    #[arg(long, value_name = "PATTERN", default_value = "deterministic")]
    pattern: String,
    /// Requests per second; of ramp, spike and sine FROM..TO. Of random the most [default: 20]
    #[arg(long, value_name = "RATE", conflicts_with_all = ["trace", "service"])]
    rate: Option<String>,
    /// How long the pattern lasts [default: 30s, of random 5m]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with_all = ["trace", "service"])]
    length: Option<Duration>,
    /// From one lowest point of a sine to the next [default: the length]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    period: Option<Duration>,
    /// Distances by chance, as many independent users have them; those of traces are so always
    #[arg(long)]
    poisson: bool,
    /// Requests of this trace, rather than a pattern
    #[arg(long, value_name = "FILE", conflicts_with_all = ["service", "from_events", "pattern"])]
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
    /// How long a copy takes to end once it is stopped, which is when a reading finds it without a request
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    stop: Duration,
    /// Requests that a copy works on at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    /// Fewest copies
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    min: Option<u16>,
    /// Most copies
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    max: Option<u16>,
    /// When the first reading falls, below 250ms: a real load begins at any moment between two
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    phase: Duration,
    /// How long before the load the controller began, and started the first copies [default: they are there]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "phase")]
    lead: Option<Duration>,
    /// Ready spares at hand
    #[arg(long, value_name = "N", default_value_t = 0)]
    spares: u16,
    /// An answer that takes longer is late
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    late: Duration,
    /// Runs with so many seeds, for confidence intervals [default: 1 where nothing is random, else 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    seeds: Option<u64>,
    /// Draws the first run of the last policy that is named, or of elastic, into this file: .svg or .png
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
enum Half {
    First,
    Second,
}

pub(super) async fn run(args: Args, before: Target) -> Result<(), CliError> {
    if let Some(path) = &args.from_events {
        return replay::run(path, args.output);
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
    let study = setup::study(&args, recording.as_ref())?;
    let contenders = setup::contenders(&args.policy, &study.rules)?;
    // What cannot be written is told before the work, not after it.
    let sheet = args.plot.as_deref().map(Sheet::create).transpose()?;
    let scores = scores(&study, &contenders);
    match args.output {
        Format::Json => print::json(&scores)?,
        Format::Table => print::text(&show::table(&scores).render(print::cell))?,
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
    let Some(sheet) = sheet else {
        return Ok(());
    };
    let plot = Plot {
        policy: shown.name(),
        outcome: study.run(shown, 0),
        service_rate: study.world.service_rate(),
    };
    Ok(sheet.draw(&plot)?)
}

/// Every contender's score. A day takes minutes: a terminal is shown how far it is.
fn scores(study: &Study, contenders: &[Contender]) -> Vec<Score> {
    // Draws on a terminal, and nowhere else.
    let bar = ProgressBar::new(contenders.len() as u64 * study.seeds);
    let usual = ProgressStyle::default_bar();
    let ours = usual
        .clone()
        .template("{bar:24} {pos} of {len} runs, {elapsed}: {msg}");
    bar.set_style(ours.unwrap_or(usual));
    bar.enable_steady_tick(TICK);
    let scores = contenders.iter().map(|one| {
        bar.set_message(one.name());
        study.score_and_tell(one, || bar.inc(1))
    });
    let scores = scores.collect();
    bar.finish_and_clear();
    scores
}

fn generate(name: &str) -> Result<(), CliError> {
    let made = Synthetic::ALL.iter().find(|made| made.name() == name);
    let names = Synthetic::ALL.map(Synthetic::name).join(", ");
    let what = || format!("there is no made trace {name:?}; there is: {names}");
    let made = made.ok_or_else(|| CliError::Simulation { what: what() })?;
    print::text(&made.csv())
}
