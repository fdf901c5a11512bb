//! From words to a study.

use std::time::Duration;

use super::{Args, Half};
use crate::{
    arrivals::{
        pattern::{Pattern, Plan},
        trace::Trace,
    },
    beat::BEAT,
    cli::{
        CliError,
        pattern::{Words, read_trace},
        record,
    },
    config::{EXAMPLE, ScaleConfig, parse},
    control::Recording,
    sim::{
        study::{Contender, Study, plan as plan_of},
        world::World,
    },
};

/// How long the random pattern lasts where nobody says.
const RANDOM_LENGTH: Duration = Duration::from_mins(5);

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

/// What is to be simulated.
pub(super) fn study(args: &Args, recording: Option<&Recording>) -> Result<Study, CliError> {
    let rules = rules(args, recording)?;
    if args.phase >= BEAT {
        let what = format!("--phase must be below {BEAT:?}, the time between two readings");
        return Err(CliError::Simulation { what });
    }
    let plan = plan(args, recording)?;
    let random = plan.is_random() || args.time.is_random() || args.start.is_random();
    Ok(Study {
        world: World {
            service: args.time.clone(),
            start: args.start.clone(),
            concurrency: args.concurrency as usize,
            max: rules.max,
            first: rules.min,
            end: plan.length(),
            late: args.late,
            stop: args.stop,
            phase: args.phase,
            lead: args.lead.unwrap_or_default(),
            spares: args.spares,
        },
        plan,
        rules,
        seeds: args.seeds.unwrap_or(if random { 10 } else { 1 }),
    })
}

/// When requests come.
fn plan(args: &Args, recording: Option<&Recording>) -> Result<Plan, CliError> {
    let trace = match (&args.trace, recording) {
        (Some(path), _) => Some(read_trace(path)?),
        (None, Some(recording)) => Some(record::trace(recording)),
        (None, None) => None,
    };
    if let Some(trace) = trace {
        return replayed(trace, args);
    }
    if args.half.is_some() || args.peak.is_some() {
        let what = "--half and --peak are for traces: name one with --trace FILE".to_owned();
        return Err(CliError::Simulation { what });
    }
    let name = args.pattern.as_str();
    if name == "trace" {
        let what = "name the trace with --trace FILE".to_owned();
        return Err(CliError::Simulation { what });
    }
    let random = name == "random";
    let words = Words {
        name,
        file: None,
        // Ten copies that take half a second do twenty requests a second.
        rate: args.rate.as_deref().or(random.then_some("20")),
        period: args.period,
    };
    let length = args.length.or(random.then_some(RANDOM_LENGTH));
    if length.is_some_and(|length| length.is_zero()) {
        let what = "--length must be above 0".to_owned();
        return Err(CliError::Simulation { what });
    }
    let mut plan = plan_of(words.pattern()?, length);
    plan.spacing = words.spacing(args.poisson)?;
    Ok(plan)
}

/// A trace, or a part of it, as the flags want it.
fn replayed(trace: Trace, args: &Args) -> Result<Plan, CliError> {
    let trace = match args.half {
        Some(half) => trace.half(half == Half::Second),
        None => trace,
    };
    if trace.length().is_zero() {
        let what =
            "there is nothing to replay: the service has seen no whole second yet".to_owned();
        return Err(CliError::Simulation { what });
    }
    let peak = args.peak.map(|peak| peak.max(0.0));
    Ok(plan_of(Pattern::Trace { trace, peak }, None))
}

/// The policies of these names, or all with their references.
pub(super) fn contenders(
    names: &[String],
    rules: &ScaleConfig,
) -> Result<Vec<Contender>, CliError> {
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
