//! `orch load`: requests as a pattern has them, whatever becomes of them.

mod arguments;
mod files;
mod progress;
mod show;

use std::{path::PathBuf, pin::pin, sync::Arc, time::Duration};

use hyper::Method;
use tokio::sync::watch;

use super::{CliError, Target, print, print::Format, signals};
use crate::{
    chart::Sheet,
    descriptors,
    load::{
        engine::{self, Limits, Shared},
        error::LoadError,
        report::Report,
        watch::Watch,
        wire::Wire,
    },
};
use progress::Progress;

/// File descriptors that are for other things than requests.
const OTHER_FILES: u64 = 64;

/// Sends requests in a pattern over time, and says what became of them
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Args {
    /// What to ask: `http://HOST[:PORT][/PATH]`
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// deterministic | random | constant | ramp | spike | sine | trace FILE
    #[arg(short, long, num_args = 1..=2, value_names = ["PATTERN", "FILE"], default_value = "constant")]
    pattern: Vec<String>,
    /// Requests per second; of ramp, spike and sine FROM..TO. Of random the most, of a trace its peak
    #[arg(short, long, value_name = "RATE")]
    rate: Option<String>,
    /// How long requests are sent [default: 30s, or the trace's length]
    #[arg(short, long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// From one lowest point of a sine to the next [default: the duration]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    period: Option<Duration>,
    /// Distances by chance, as many independent users have them; else they are equal
    #[arg(long)]
    poisson: bool,
    /// Seed of all that is random: the same one gives the same requests at the same times
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Uses connections again
    #[arg(short, long, conflicts_with = "one_per_request")]
    keep_alive: bool,
    /// One connection per request: the default
    #[arg(long)]
    one_per_request: bool,
    /// Method [default: GET, or POST with a body]
    #[arg(short = 'X', long, value_name = "METHOD")]
    method: Option<Method>,
    /// A header, as 'Name: value'; may be given several times
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// A file that is sent as the body of each request
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// For connecting and the whole answer; after it a request is lost
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// How long answers are waited for after the pattern's end [default: the timeout]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// Most requests in flight; what is due beyond is not sent, and counted [default: by the limit of open files]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Also shows what the controller did with this service meanwhile
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    #[command(flatten)]
    target: Target,
    /// Draws the run: a file that ends in .svg or .png
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Writes the report as JSON into a file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How to show the report
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Nothing while it runs
    #[arg(short, long)]
    quiet: bool,
}

const EXAMPLES: &str = "Examples:\n  \
    orch load localhost/ --rate 200 --duration 10s\n  \
    orch load localhost/doWork --pattern deterministic       1.25, 10, 2, 10, 5, 20 a second, 5 s each\n  \
    orch load localhost/ --pattern ramp --rate 10..2000 -k   one rate to another, connections kept\n  \
    orch load localhost/ --pattern trace day.csv --rate 50   a trace, its peak brought to 50/s\n  \
    orch load localhost/ --service acts --chart run.svg      with copies and decisions, as a picture\n\n\
    A trace is CSV: a header `second,count` or `minute,count`, and a row per interval.\n\
    Requests are sent when they are due, whatever became of the others. Times count from when a\n\
    request was due, so what waits behind a slow answer shows. Ctrl-C ends it and reports.\n\
    Exit codes: 0 it ran, 1 error, 2 usage.";

pub(super) async fn run(args: &Args, before: Target) -> Result<(), CliError> {
    let (url, plan) = arguments::plan(args)?;
    let target = arguments::target(args, &url)?;
    // What cannot be written is told before the run, not after it.
    let chart = args.chart.as_deref().map(Sheet::create).transpose();
    let chart = chart.map_err(LoadError::from)?;
    let json = args.json.as_deref().map(files::create).transpose()?;
    let limits = limits(args);
    let url = target.url.clone();
    let addresses = target.resolve().await?;
    let wire = Arc::new(Wire::new(target, addresses, args.keep_alive));
    let mut watch = match &args.service {
        Some(service) => {
            let client = args.target.clone().or(before).client()?;
            Some(Watch::begin(client, service).await?)
        }
        None => None,
    };
    let stop = stop_on_signal()?;
    let shared = Shared::begin(plan.length())?;
    let progress = Progress::start(&plan, &shared, args.quiet);
    let outcome = {
        let run = engine::run(&plan, wire, limits, &shared, stop);
        beside(run, watch.as_mut()).await
    };
    progress.finish();
    let watched = match watch {
        Some(watch) => watch.finish().await.map(Some),
        None => Ok(None),
    };
    // The requests are counted in any case.
    let (watched, lost) = match watched {
        Ok(watched) => (watched, None),
        Err(error) => (None, Some(error)),
    };
    let report = Report::new(&url, &plan, &outcome?, watched);
    if let Some(json) = json {
        json.write(&report)?;
    }
    if let Some(chart) = chart {
        chart.draw(&report).map_err(LoadError::from)?;
    }
    match args.output {
        Format::Json => print::json(&report)?,
        Format::Table => print::text(&show::report(&report))?,
    }
    lost.map_or(Ok(()), |error| Err(error.into()))
}

/// Becomes true with the first signal that asks for an end.
fn stop_on_signal() -> Result<watch::Receiver<bool>, CliError> {
    let mut signals = signals::listen()?;
    let (stopper, stop) = watch::channel(false);
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            stopper.send_replace(true);
        }
    });
    Ok(stop)
}

/// Runs it to its end, with the watch beside it for as long as its controller answers.
async fn beside<T>(run: impl Future<Output = T>, watch: Option<&mut Watch>) -> T {
    let mut run = pin!(run);
    if let Some(watch) = watch {
        tokio::select! {
            outcome = &mut run => return outcome,
            // A controller that is lost is asked again at the end, and then it is told.
            _ = watch.go_on() => {}
        }
    }
    run.await
}

fn limits(args: &Args) -> Limits {
    Limits {
        timeout: args.timeout,
        in_flight: args.limit.unwrap_or_else(files_for_requests),
        wait: args.wait.unwrap_or(args.timeout),
    }
}

/// As many requests as this process may have files open, since each has a connection.
fn files_for_requests() -> u64 {
    let files = descriptors::raise(u64::MAX);
    files.saturating_sub(OTHER_FILES).max(1)
}
