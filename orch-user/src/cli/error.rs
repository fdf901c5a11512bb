//! Errors of the verbs, and their exit codes.

use std::{io, path::PathBuf};

use super::{lock::LockError, seat::SeatError};
use crate::{
    api::client::ClientError, chart::ChartError, config::ConfigError, dataplane::DataplaneError,
    http::GatewayError, load::error::LoadError, ports::PortTaken, reconcile::RunError,
    runtime::RuntimeError,
};

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is missing or bad.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The controller does not answer, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The controller's place is taken or cannot be prepared.
    #[error(transparent)]
    Seat(#[from] SeatError),
    /// The controller's lock cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Another program listens where a service is to listen.
    #[error(transparent)]
    Port(#[from] PortTaken),
    /// The user may not do this.
    #[error(
        "`orch {verb}` needs root, for the kernel programs and the backends: run `sudo orch {verb}`"
    )]
    NotRoot {
        /// The verb.
        verb: &'static str,
    },
    /// Root may not do this here.
    #[error(
        "root lacks {} here, which kernel programs need: run orch on the host itself, or give its container these capabilities",
        missing.join(", ")
    )]
    Capabilities {
        /// What it lacks.
        missing: Vec<&'static str>,
    },
    /// The logger could not be set.
    #[error("cannot set up the log")]
    Logger(#[source] log::SetLoggerError),
    /// The asynchronous runtime could not be made.
    #[error("cannot start: no event loop")]
    Runtime(#[source] io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// A file cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is no recording.
    #[error("{} holds no decisions: write one with `orch record SERVICE --decisions`", path.display())]
    Recording {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A replay came to other decisions.
    #[error("{count} of {all} decisions differ from those of the recording")]
    Differs {
        /// How many.
        count: usize,
        /// Of how many.
        all: usize,
    },
    /// A simulation cannot be done as asked for.
    #[error("{what}")]
    Simulation {
        /// What is wrong, and what to write.
        what: String,
    },
    /// There is no picture.
    #[error(transparent)]
    Chart(#[from] ChartError),
    /// Output could not be written.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// What fills a screen needs one.
    #[error(
        "`orch top` needs a terminal: use `orch status`, `orch ps` or `orch events -f` in a script"
    )]
    NoTerminal,
    /// The controller ended while somebody followed it.
    #[error("the controller has ended")]
    Ended,
    /// A controller did not end when it was told to.
    #[error(
        "the controller (pid {pid}) did not end within {seconds}s: end it yourself, then try again"
    )]
    StillRuns {
        /// Its pid.
        pid: i32,
        /// How long it was given.
        seconds: u64,
    },
    /// Nobody could say whether there are containers.
    #[error(
        "containers of orch may be left, and all else is removed: start the Docker engine, then run `orch down` again"
    )]
    ContainersLeft(#[source] RuntimeError),
    /// A file that is ours cannot be removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `orch doctor` found what keeps orch from working.
    #[error("{count} of these must be mended before `orch run` can work")]
    Unwell {
        /// How many.
        count: usize,
    },
    /// No load could be made.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The controller failed.
    #[error(transparent)]
    Control(#[from] RunError),
    /// A runtime failed.
    #[error(transparent)]
    Backends(#[from] RuntimeError),
    /// The gateway cannot run.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The data plane failed.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
}

impl CliError {
    /// 0 done, 1 error, 2 usage or configuration.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Simulation { .. } | Self::Chart(ChartError::Ending { .. }) => 2,
            Self::Load(error) if error.is_usage() => 2,
            _ if self.is_silent() => 0,
            _ => 1,
        }
    }

    /// Whoever read the output stopped reading: no failure, and nobody to tell.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
