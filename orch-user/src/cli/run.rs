//! `orch run`: the controller in the foreground.

use std::path::PathBuf;

use nix::unistd::geteuid;

use super::{CliError, Seat, Session, Target, logger, signals, target::Socket};
use crate::{
    capabilities,
    config::{ConfigError, DEFAULT_FILE, Source},
    descriptors, http,
    ports::{self, Claims},
};

/// Files that the controller may have open: connections that have waited are two each. What it starts
/// may have as many, so it is no more than that.
const FILES: u64 = 65_536;

/// Runs the controller in the foreground
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    orch run                                      orch.toml of this directory\n  \
    orch run -f /etc/orch.toml\n  \
    orch run --image NAME                         containers that serve on port 8080, with defaults\n  \
    orch run -- /usr/bin/server --port {port}     processes, with defaults\n\n\
    Signals:\n  \
    SIGINT (Ctrl-C)  finishes open connections, stops every backend, detaches: leaves nothing\n  \
    SIGTERM          ends the controller alone; traffic goes on, the next `orch run` takes over\n  \
    SIGHUP           reads the file again; a bad file is refused and the old one kept")]
pub(super) struct Args {
    /// Configuration file [default: orch.toml]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Where to answer the other verbs, unless a file is named [default: /run/orch/orch.sock]
    #[arg(
        long,
        value_name = "PATH",
        env = "ORCH_CONTROL",
        hide_env_values = true
    )]
    control: Option<PathBuf>,
    /// Runs containers of this image, with defaults for all else
    #[arg(long, value_name = "NAME", conflicts_with_all = ["file", "program"])]
    image: Option<String>,
    /// Runs this program, with defaults for all else; {port} is replaced by each copy's port
    #[arg(last = true, value_name = "PROGRAM", conflicts_with = "file")]
    program: Vec<String>,
    /// Logs more; twice: much more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Logs warnings and errors only
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
}

pub(super) async fn run(args: Args, before: Target) -> Result<(), CliError> {
    logger::init(args.verbose, args.quiet)?;
    let target = Target {
        file: args.file,
        socket: Socket {
            control: args.control,
        },
    };
    let target = target.or(before);
    let source = source(&target, args.image, args.program)?;
    let mut config = source.load()?;
    // A file that was named speaks for itself; else flag and environment do.
    if let (None, Some(control)) = (target.file, target.socket.control) {
        config.control = control;
    }
    if !geteuid().is_root() {
        return Err(CliError::NotRoot { verb: "run" });
    }
    let missing = capabilities::missing();
    if !missing.is_empty() {
        return Err(CliError::Capabilities { missing });
    }
    descriptors::raise(FILES);
    let signals = signals::listen()?;
    let seat = Seat::take(&config)?;
    ports::free(&config, http::pid(&config.control))?;
    let mut claims = Claims::new();
    claims.add(&config.services)?;
    let session = Session {
        source,
        config,
        seat,
        signals,
        claims,
    };
    // The whole data plane is in it, and would be in every future above.
    Box::pin(session.run()).await
}

fn source(
    target: &Target,
    image: Option<String>,
    program: Vec<String>,
) -> Result<Source, ConfigError> {
    if let Some(image) = image {
        return Ok(Source::Image(image));
    }
    if !program.is_empty() {
        return Ok(Source::Program(program));
    }
    if let Some(file) = &target.file {
        return Ok(Source::File(file.clone()));
    }
    let path = std::path::PathBuf::from(DEFAULT_FILE);
    if path.exists() {
        Ok(Source::File(path))
    } else {
        Err(ConfigError::Missing { path })
    }
}
