//! The door between the API and the task that owns the state.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{events::Journal, scale::Log, view::Snapshot};

/// What the API holds of the controller.
#[derive(Clone, Debug)]
pub struct Control {
    /// The latest snapshot.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// Events and decisions.
    pub journal: Journal,
    /// Requests for change.
    pub commands: mpsc::Sender<Command>,
}

/// A request for change, with the place for its answer: a sentence for the person who asked.
#[derive(Debug)]
pub enum Command {
    /// Overrides the policy of a service.
    Scale {
        /// Name of the service.
        service: String,
        /// How many copies; `None` hands back to the policy.
        to: Option<u16>,
        /// The answer.
        answer: oneshot::Sender<Result<String, CommandError>>,
    },
    /// Asks what a service's policy was told.
    Record {
        /// Name of the service.
        service: String,
        /// The answer.
        answer: oneshot::Sender<Result<Box<Recording>, CommandError>>,
    },
    /// Zeroes the window of a service.
    Reset {
        /// Name of the service.
        service: String,
        /// The answer.
        answer: oneshot::Sender<Result<String, CommandError>>,
    },
}

/// What `orch record` shows of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// Requests in each second, the oldest first.
    pub seconds: Vec<u64>,
    /// What the policy was told, and what it decided.
    pub log: Log,
}

/// Why a request for change was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no such service.
    #[error("there is no service {name}; there is: {known}")]
    UnknownService {
        /// What was asked for.
        name: String,
        /// What there is, separated by commas.
        known: String,
    },
    /// The number is outside what the file allows.
    #[error("{to} copies of {service} are outside its limits {min}..{max}")]
    OutOfRange {
        /// The service.
        service: String,
        /// What was asked for.
        to: u16,
        /// `scale.min`.
        min: u16,
        /// `scale.max`.
        max: u16,
    },
}
