//! What can happen to the controller?

use orch_common::slot::SlotKey;

use super::{consult::ConsultError, error::RunError, outcome::Done};
use crate::{
    config::{Config, ConfigError},
    control::{Command, Reply},
    health::Answer,
    runtime::{Backend, BackendId, RuntimeError, RuntimeEvent, RuntimeKind},
    state::Moment,
};

/// Everything that can happen to the controller.
#[derive(Debug)]
pub(super) enum Event {
    /// Time has passed.
    Tick,
    /// The kernel has seen a backend die or refuse.
    Kernel,
    /// Interfaces have come or gone.
    Links,
    /// The kernel holds SYNs.
    Held,
    /// A request waits at the gateway, or a copy has refused it.
    Gateway,
    /// A connection of this host waits for this service.
    Waits(u16),
    /// The next held SYNs may go.
    Pace,
    /// A backend has died a moment ago: SYNs on their way to it have had no answer.
    Replay,
    /// A backend's interface may have gone by now: sockets of this host wait for that.
    Orphans,
    /// A runtime noticed something.
    Runtime(RuntimeEvent),
    /// A backend was probed.
    Probe {
        key: SlotKey,
        id: BackendId,
        answer: Answer,
    },
    /// A runtime has finished what it was asked for.
    Done(Done),
    /// A runtime has said what runs. `asked_at` tells which changes it may not know yet.
    Listed {
        runtime: RuntimeKind,
        asked_at: Moment,
        result: Result<Vec<Backend>, RuntimeError>,
    },
    /// A service's program was asked how many copies there should be.
    Consulted {
        service: String,
        result: Result<i32, ConsultError>,
    },
    /// Somebody asks for a change.
    Command(Command),
    /// A new configuration was checked against the runtimes.
    Checked {
        result: Result<Box<Config>, RunError>,
        answer: Option<Reply>,
    },
    /// The outside world wants something.
    Signal(Signal),
}

/// What the controller is told from outside.
#[derive(Debug)]
pub enum Signal {
    /// SIGHUP, with the file's new contents.
    Reload(Box<Config>),
    /// SIGHUP, and the file cannot be used.
    Unreadable(ConfigError),
    /// The end. A second one without `keep` ends at once.
    Shutdown {
        /// SIGTERM: backends and data plane stay, for the next controller. Else, SIGINT: drains
        /// and stops everything, and detaches.
        keep: bool,
    },
}
