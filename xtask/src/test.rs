//! `cargo xtask test`: the ladder, or one rung of it.

use std::{
    env,
    time::{Duration, Instant},
};

use clap::ValueEnum;

use crate::{
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
    let named = args.rung.is_some();
    let all = || Rung::value_variants().to_vec();
    let rungs = args.rung.map_or_else(all, |rung| vec![rung]);
    let mut rows = Vec::new();
    for rung in rungs {
        let begin = Instant::now();
        let outcome = climb(rung, named, args.real_time);
        rows.push(Row {
            rung,
            outcome,
            time: begin.elapsed(),
        });
    }
    show(&rows);
    let bad: Vec<_> = rows.iter().filter(|row| row.is_bad(strict)).collect();
    if bad.is_empty() {
        return Ok(());
    }
    let failed: Vec<_> = bad.iter().map(|row| row.rung.name()).collect();
    Err(Error::Rungs(failed.join(", ")))
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
    if docker::answers() {
        build::acts_image()?;
    }
    Ok(())
}

impl Row {
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
