//! The door between the API and the task that owns the state.

use std::sync::Arc;

use orch_common::layout::SLOTS_PER_SERVICE;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    config::{Config, Source},
    events::Journal,
    history::History,
    scale::Log,
    view::Snapshot,
};

/// What the API holds of the controller.
#[derive(Clone, Debug)]
pub struct Control {
    /// The latest snapshot.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// Events and decisions.
    pub journal: Journal,
    /// The last ten minutes.
    pub history: History,
    /// Requests for change.
    pub commands: mpsc::Sender<Command>,
    /// Where the configuration came from, for whoever asks for it to be read again.
    pub source: Option<Arc<Source>>,
}

/// The answer to a command: a sentence, or what was asked for, or why not.
pub type Reply = oneshot::Sender<Result<String, CommandError>>;

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
        answer: Reply,
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
        answer: Reply,
    },
    /// Stops the backend of a slot once its connections have ended; another comes in its place.
    Stop {
        /// Name of the service.
        service: String,
        /// Number of the slot.
        slot: u16,
        /// The answer.
        answer: Reply,
    },
    /// Takes a new configuration.
    Reload {
        /// The configuration.
        config: Box<Config>,
        /// The answer.
        answer: Reply,
    },
    /// The last lines of what the backend of a slot has written.
    Log {
        /// Name of the service.
        service: String,
        /// Number of the slot.
        slot: u16,
        /// So many lines at the most.
        lines: usize,
        /// The answer.
        answer: Reply,
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
    /// Nothing runs in the slot.
    #[error("slot {slot} of {service} has no backend now; slots are from 0 to {}", SLOTS_PER_SERVICE - 1)]
    NoBackend {
        /// The service.
        service: String,
        /// The slot.
        slot: u16,
    },
    /// The file cannot be used, or what it says cannot be done.
    #[error("the new configuration is refused, the old one stays: {why}")]
    Refused {
        /// Why.
        why: String,
    },
    /// Nothing is started or changed any more.
    #[error("the controller is ending: start it again first")]
    Ends,
    /// The runtime could not do its part.
    #[error("{why}")]
    Runtime {
        /// What it said.
        why: String,
    },
}
