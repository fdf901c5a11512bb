//! Runtimes: what creates, stops and lists backends. One trait; `docker` and `process` implement it.

pub mod docker;
mod gate;
mod mark;
pub mod process;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

pub use self::mark::may_have_containers;
use crate::config::{BackendConfig, ScaleConfig};

/// Identity of a backend: the container's id, or the pid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub String);

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a runtime, as `orch ps` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuntimeKind {
    /// Containers of a Docker engine.
    Docker,
    /// Plain processes of this host.
    Process,
}

impl RuntimeKind {
    /// The word for it, in JSON and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Process => "process",
        }
    }
}

/// What a backend is to be.
#[derive(Clone, Debug)]
pub struct Order {
    /// Name of the service.
    pub service: String,
    /// Number of the slot; `None` for a spare.
    pub slot: Option<u16>,
    /// The slot's port on this host; a spare has none, and none is published for it.
    pub slot_port: u16,
    /// Whether its program is to wait until it is let go on by [`Runtime::open`].
    pub gated: bool,
    /// What to run.
    pub backend: Arc<BackendConfig>,
    /// Whether connections are to go straight to its own address.
    pub direct: bool,
    /// On which addresses of the host the slot port is to be published.
    pub publish: PublishOn,
    /// Digest of what decides whether a running backend still fits the configuration.
    pub spec: String,
}

/// On which addresses of the host a container's port is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishOn {
    /// Nowhere: whoever connects is led to the container's own address.
    Nowhere,
    /// 127.0.0.1 and, where there is IPv6, `::1`.
    Localhost,
    /// All addresses.
    All,
}

/// A backend that runs, or has run and was not removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its identity.
    pub id: BackendId,
    /// Name of its service.
    pub service: String,
    /// Number of the slot it was made for; `None` for a spare, whatever slot it is in by now.
    pub slot: Option<u16>,
    /// Where it listens, seen from the host: what probes connect to.
    pub address: SocketAddr,
    /// Its first process, as this host numbers it; `None` if it does not run.
    pub pid: Option<u32>,
    /// The file of its network namespace, if connections can go straight to `address` in it.
    pub netns: Option<PathBuf>,
    /// Whether it runs now.
    pub running: bool,
    /// Whether it waits at its gate, its program not begun.
    pub gated: bool,
    /// How long it has existed.
    pub age: Duration,
    /// The digest it was ordered with.
    pub spec: String,
}

/// Something a runtime noticed by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// A backend's process ended, by itself or because of `stop`. A backend may be reported that
    /// was removed already.
    Exited {
        /// Which.
        id: BackendId,
        /// How, in words: "exit code 3", "signal 9".
        how: String,
    },
    /// The runtime stopped answering.
    Lost {
        /// Which runtime.
        runtime: RuntimeKind,
        /// What it said last.
        why: String,
    },
    /// It answers again; what it holds must be listed anew.
    Back {
        /// Which runtime.
        runtime: RuntimeKind,
    },
}

/// Why a runtime could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Nothing answers where the engine should be.
    #[error(
        "the Docker engine does not answer at {endpoint}: start it, or set runtime = \"process\""
    )]
    EngineGone {
        /// Socket or URL.
        endpoint: String,
        /// What the client said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The image is not on this host.
    #[error("image {image} is not on this host: build it or run `docker pull {image}`")]
    ImageMissing {
        /// Its name.
        image: String,
    },
    /// The slot port belongs to somebody else.
    #[error("port {port} of service {service} is taken by {holder}: stop it or change start_port")]
    PortTaken {
        /// The port.
        port: u16,
        /// The service.
        service: String,
        /// Who has it.
        holder: String,
    },
    /// The program cannot be run.
    #[error("cannot run {program} for service {service}")]
    Spawn {
        /// Its path.
        program: String,
        /// The service.
        service: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of the runtime cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// Its path.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A backend cannot be frozen, or thawed.
    #[error("cannot freeze or thaw {id}")]
    Freezer {
        /// Which.
        id: BackendId,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A spare cannot become its program.
    #[error("cannot open the gate of {id}")]
    Gate {
        /// Which.
        id: BackendId,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// This build has no gate.
    #[error(
        "this orch was built without gated spares: install the static C library (glibc-static) and build it again, or write spare_kind = \"running\" or \"frozen\""
    )]
    NoGate,
    /// The gate's file is where no program may be run.
    #[error(
        "gated spares run {path}, which is on a file system mounted noexec: set state_dir elsewhere, or write spare_kind = \"running\" or \"frozen\""
    )]
    GateNotExecutable {
        /// Its path.
        path: PathBuf,
    },
    /// An image names no program, and neither does the file.
    #[error("image {image} says nothing of what to run: set command in [service.backend]")]
    NoProgram {
        /// Its name.
        image: String,
    },
    /// The engine refused.
    #[error("the Docker engine could not {verb} {object}")]
    Engine {
        /// `create`, `start`, `stop`, `remove`, `list`.
        verb: &'static str,
        /// Container, image or service.
        object: String,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The answer of a runtime.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, RuntimeError>>;

/// What creates backends.
pub trait Runtime: Send + Sync {
    /// Which one it is.
    fn kind(&self) -> RuntimeKind;

    /// Whether backends of this kind can be made at all: the engine answers, the image is here, the
    /// program can be executed. Called once per service before anything is started.
    fn check<'a>(&'a self, service: &'a str, backend: &'a BackendConfig) -> Answer<'a, ()>;

    /// Whether spares of this kind can be had: called as `check` is, where the file wants some.
    fn check_spares(&self, scale: &ScaleConfig) -> Result<(), RuntimeError> {
        let _ = scale;
        Ok(())
    }

    /// Prepares a backend so far that `start` is short, without holding its port. The Docker
    /// runtime creates the container.
    fn create<'a>(&'a self, order: &'a Order) -> Answer<'a, Prepared>;

    /// Starts it. The port must be free by now.
    fn start(&self, prepared: Prepared) -> Answer<'_, Backend>;

    /// Ends a backend and removes what it leaves: SIGTERM, SIGKILL after `grace`; at once where
    /// `grace` is zero. Removing what is gone already succeeds.
    fn stop<'a>(&'a self, id: &'a BackendId, grace: Duration) -> Answer<'a, ()>;

    /// Takes the processor from a backend that runs, or gives it back: a few files are written.
    fn set_frozen(&self, id: &BackendId, pid: u32, frozen: bool) -> Result<(), RuntimeError> {
        let _ = (pid, frozen);
        Err(RuntimeError::Freezer {
            id: id.clone(),
            source: std::io::ErrorKind::Unsupported.into(),
        })
    }

    /// Lets a gated backend become its program, as `order` has it now that there is a slot for it.
    /// `pid` is its first process, and stays that.
    fn open(&self, id: &BackendId, pid: u32, order: &Order) -> Result<(), RuntimeError> {
        let _ = (pid, order);
        Err(RuntimeError::Gate {
            id: id.clone(),
            source: std::io::ErrorKind::Unsupported.into(),
        })
    }

    /// Every backend of this instance of orch: dead ones, and those that were created and not
    /// started, included. May be some milliseconds behind the events.
    fn list(&self) -> Answer<'_, Vec<Backend>>;

    /// The last lines of what the backend wrote.
    fn log_tail<'a>(&'a self, id: &'a BackendId, lines: usize) -> Answer<'a, String>;

    /// Sends what happens to `events` until the receiver is dropped.
    fn watch(self: Arc<Self>, events: mpsc::Sender<RuntimeEvent>) -> BoxFuture<'static, ()>;
}

/// Removes what backends needed of a state directory, once there are none.
pub fn clear(state_dir: &Path, instance: &str) {
    gate::Gate::in_dir(state_dir, instance).remove();
    mark::remove(state_dir, instance);
}

/// A backend that was created but not started.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Its order.
    pub order: Order,
    /// The container's id; empty for a process, which gets its identity when it starts.
    pub id: BackendId,
}
