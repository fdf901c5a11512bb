//! `cargo xtask test`: the ladder, or one rung of it.

use std::{
    env,
    time::{Duration, Instant},
};

use clap::ValueEnum;

use crate::{
    aside::{Ahead, Aside},
    build, docker,
    error::Error,
    rung::{Outcome, Rung},
};

/// What to test.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The rung; all that this host can run if left out.
    rung: Option<Rung>,
    /// Windows of two minutes, as in real use, instead of short ones.
    #[arg(long)]
    real_time: bool,
}

struct Row {
    rung: Rung,
    outcome: Outcome,
    time: Duration,
}

/// Runs the rungs and shows a table.
pub(crate) fn test(args: &Args) -> Result<(), Error> {
    // Where `CI=true`, or where a rung is asked for by name, none is left out in silence.
    let strict = args.rung.is_some() || env::var("CI").is_ok_and(|value| value == "true");
    let rows = match args.rung {
        Some(rung) => vec![Row::of(rung, true, args.real_time)],
        None => ladder(args.real_time),
    };
    show(&rows);
    let bad: Vec<_> = rows.iter().filter(|row| row.is_bad(strict)).collect();
    if bad.is_empty() {
        return Ok(());
    }
    let failed: Vec<_> = bad.iter().map(|row| row.rung.name()).collect();
    Err(Error::Rungs(failed.join(", ")))
}

/// All rungs, one after the other but for the long ones: they compute for as long as the rungs with
/// real programs wait.
fn ladder(real_time: bool) -> Vec<Row> {
    let mut ahead = Some(Ahead::start());
    let mut beside = Vec::new();
    let mut rows = Vec::new();
    for &rung in Rung::value_variants() {
        if rung.runs_programs()
            && let Some(ahead) = ahead.take()
        {
            ahead.end();
            beside = start_long();
        }
        let row = match beside.pop_if(|aside: &mut Aside| aside.rung == rung) {
            Some(aside) => Row::of_aside(aside),
            None => Row::of(rung, false, real_time),
        };
        rows.push(row);
    }
    rows
}

/// Those that can run beside others, the first of the ladder last. Of the rest their turn tells.
fn start_long() -> Vec<Aside> {
    let rungs = Rung::value_variants().iter().copied().rev();
    let able = rungs.filter(|rung| rung.is_long() && rung.obstacle(false).is_none());
    let able: Vec<_> = able.collect();
    // What is to be compiled would keep them, who yield to it, from their own work.
    if able.is_empty() || build::tests().is_err() {
        return Vec::new();
    }
    able.into_iter().flat_map(Aside::start).collect()
}

fn climb(rung: Rung, named: bool, real_time: bool) -> Outcome {
    if let Some(obstacle) = rung.obstacle(named) {
        eprintln!("==> {}: left out: {obstacle}", rung.name());
        return Outcome::LeftOut(obstacle);
    }
    eprintln!("==> {}", rung.name());
    if let Some(remark) = rung.remark() {
        eprintln!("    {remark}");
    }
    match prepare(rung).and_then(|()| rung.run(real_time)) {
        Ok(()) => Outcome::Passed,
        Err(error) => {
            eprintln!("    {error}");
            Outcome::Failed
        }
    }
}

fn prepare(rung: Rung) -> Result<(), Error> {
    if !rung.runs_programs() {
        return Ok(());
    }
    build::orch()?;
    build::acts()?;
    if rung == Rung::Netns {
        build::example("cna")?;
    }
    if !rung.is_long() && docker::answers() {
        build::acts_image()?;
    }
    Ok(())
}

impl Row {
    fn of(rung: Rung, named: bool, real_time: bool) -> Self {
        let begin = Instant::now();
        let outcome = climb(rung, named, real_time);
        let time = begin.elapsed();
        Self {
            rung,
            outcome,
            time,
        }
    }

    fn of_aside(aside: Aside) -> Self {
        let rung = aside.rung;
        eprintln!("==> {}, beside the others", rung.name());
        let (passed, time) = aside.end();
        let outcome = if passed {
            Outcome::Passed
        } else {
            Outcome::Failed
        };
        Self {
            rung,
            outcome,
            time,
        }
    }

    fn is_bad(&self, strict: bool) -> bool {
        match self.outcome {
            Outcome::Passed => false,
            Outcome::Failed => true,
            Outcome::LeftOut(_) => strict,
        }
    }
}

fn show(rows: &[Row]) {
    eprintln!("\nrung      result    time");
    for row in rows {
        let (result, why) = match &row.outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Failed => ("FAILED", ""),
            Outcome::LeftOut(why) => ("left out", why.as_str()),
        };
        let time = build::seconds(row.time);
        eprintln!("{:<9} {result:<9} {time:>7}  {why}", row.rung.name());
    }
}
