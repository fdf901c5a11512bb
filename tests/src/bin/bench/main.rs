//! The benchmark: orch beside no balancer, nftables, `HAProxy` and nginx on this machine; time per
//! packet; sizes; the controller. Everything happens in network namespaces of its own. Started by
//! `cargo xtask bench`, as root.
#![allow(unreachable_pub, reason = "a binary without a library has no outside")]

mod compare;
mod controller;
mod cpu;
mod docker;
mod empty;
mod frames;
mod goals;
mod http;
mod installed;
mod leftovers;
mod load;
mod packets;
mod peers;
mod report;
mod rivals;
mod tables;
mod topology;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

use self::peers::Scene;

/// What may go wrong is reported and ends the run; nobody looks at the kind.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures orch beside its peers, in network namespaces of its own.
#[derive(Parser)]
#[command(name = "bench")]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
struct Args {
    /// Passes over all peers
    #[arg(long, default_value_t = 5)]
    passes: usize,
    /// Seconds per measurement
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// One pass of one second, one backend, fewer packets
    #[arg(long)]
    quick: bool,
    /// Print tables in Markdown
    #[arg(long)]
    markdown: bool,
    /// Compare only those whose name has this in it (and, of the peers, no balancer)
    #[arg(long)]
    only: Vec<String>,
    /// Leave out the comparison with peers
    #[arg(long)]
    no_peers: bool,
    /// Leave out packets, programs and maps
    #[arg(long)]
    no_packets: bool,
    /// Leave out mode http
    #[arg(long)]
    no_http: bool,
    /// The controller's binary; without it, the controller is not measured
    #[arg(long, requires = "acts")]
    orch: Option<PathBuf>,
    /// The demo service's binary
    #[arg(long, requires = "orch")]
    acts: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = run(&Args::parse());
    leftovers::remove();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    leftovers::guard()?;
    let threads = std::thread::available_parallelism()?.get();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("Linux {}, {threads} CPUs", kernel.trim());
    if !args.no_packets {
        let runs = if args.quick { 1000 } else { 5000 };
        for table in packets::measure(runs)? {
            table.print(args.markdown);
        }
    }
    let plan = compare::Plan {
        passes: if args.quick { 1 } else { args.passes },
        seconds: if args.quick { 1 } else { args.seconds },
        threads,
        scenes: &Scene::ALL[..if args.quick { 2 } else { Scene::ALL.len() }],
        only: &args.only,
    };
    if !args.no_peers {
        let measured = compare::compare(&plan)?;
        println!("\nMedians, and medians of the ratios to no balancer within a pass");
        for scene in plan.scenes {
            tables::of_scene(&measured, *scene).print(args.markdown);
            tables::of_cpu(&measured, *scene).print(args.markdown);
        }
        if let Some(goals) = goals::table(&measured) {
            goals.print(args.markdown);
        }
    }
    if let Some(orch) = args.orch.as_ref().filter(|_| !args.no_http) {
        http::measure(&orch.canonicalize()?, &plan)?.print(args.markdown);
    }
    match (&args.orch, &args.acts) {
        (Some(orch), Some(acts)) => {
            let programs = controller::Programs {
                orch: orch.canonicalize()?,
                acts: acts.canonicalize()?,
            };
            controller::measure(&programs, 10)?.print(args.markdown);
        }
        _ => println!("\nleft out: the controller (--orch PATH --acts PATH)"),
    }
    Ok(())
}
