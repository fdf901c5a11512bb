//! Backends that are containers of a Docker engine. Only this module and what is below it know
//! bollard.

mod body;
mod connect;
mod events;
mod failure;
mod freezer;
mod labels;
mod list;
mod start;
mod stop;

use std::{
    collections::HashMap,
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bollard::{Docker, errors::Error};
use futures_util::future::BoxFuture;
use tokio::{sync::mpsc, time::timeout};

use super::{
    Answer, Backend, BackendId, Order, Prepared, Runtime, RuntimeError, RuntimeEvent, RuntimeKind,
    gate::{self, Gate},
    mark,
};
use crate::config::{BackendConfig, ScaleConfig, SpareKind};

/// Limit of calls that only ask.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// Limit of calls that make, start or remove something, on a busy engine.
const ACT_LIMIT: Duration = Duration::from_mins(1);

/// The runtime of containers.
#[derive(Debug)]
pub struct DockerRuntime {
    docker: Docker,
    endpoint: String,
    instance: String,
    state_dir: PathBuf,
    gate: Gate,
    /// Containers that were looked at while they ran.
    insides: Mutex<HashMap<BackendId, list::Inside>>,
}

impl DockerRuntime {
    /// Connects to the engine at `DOCKER_HOST`, or else to the usual socket. `instance` marks the
    /// containers of this instance of orch; it sees no others. What containers need of this host is
    /// kept in `state_dir`.
    pub async fn connect(instance: &str, state_dir: &Path) -> Result<Self, RuntimeError> {
        Self::connect_to(&connect::endpoint(), instance, state_dir).await
    }

    /// Connects to the engine at an endpoint: `unix://`, `tcp://` or `http://`.
    pub async fn connect_to(
        endpoint: &str,
        instance: &str,
        state_dir: &Path,
    ) -> Result<Self, RuntimeError> {
        let endpoint = endpoint.to_owned();
        match connect::connect(&endpoint).await {
            Ok(docker) => Ok(Self {
                docker,
                endpoint,
                instance: instance.to_owned(),
                state_dir: state_dir.to_owned(),
                gate: Gate::in_dir(state_dir, instance),
                insides: Mutex::default(),
            }),
            Err(source) => Err(RuntimeError::EngineGone {
                endpoint,
                source: source.into(),
            }),
        }
    }

    /// The error of a call, in our words.
    fn failed(&self, verb: &'static str, object: &str, error: Error) -> RuntimeError {
        if failure::is_engine_gone(&error) {
            return RuntimeError::EngineGone {
                endpoint: self.endpoint.clone(),
                source: error.into(),
            };
        }
        RuntimeError::Engine {
            verb,
            object: object.to_owned(),
            source: error.into(),
        }
    }
}

impl Runtime for DockerRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Docker
    }

    fn check<'a>(&'a self, _service: &'a str, backend: &'a BackendConfig) -> Answer<'a, ()> {
        Box::pin(async move {
            let image = backend.image.as_deref().unwrap_or_default();
            self.look_at_image(image).await.map(drop)
        })
    }

    fn check_spares(&self, scale: &ScaleConfig) -> Result<(), RuntimeError> {
        match scale.spare_kind {
            SpareKind::Gated => self.gate.check(),
            SpareKind::Running | SpareKind::Frozen => Ok(()),
        }
    }

    fn create<'a>(&'a self, order: &'a Order) -> Answer<'a, Prepared> {
        Box::pin(self.make(order))
    }

    fn start(&self, prepared: Prepared) -> Answer<'_, Backend> {
        Box::pin(self.run(prepared))
    }

    fn stop<'a>(&'a self, id: &'a BackendId, grace: Duration) -> Answer<'a, ()> {
        Box::pin(self.end(id, grace))
    }

    fn set_frozen(&self, id: &BackendId, pid: u32, frozen: bool) -> Result<(), RuntimeError> {
        freezer::set(id, pid, frozen).map_err(|source| RuntimeError::Freezer {
            id: id.clone(),
            source,
        })
    }

    fn open(&self, id: &BackendId, pid: u32, _: &Order) -> Result<(), RuntimeError> {
        // It would begin when somebody lets it, so another spare is the better one.
        let opened = if freezer::is_frozen(id, pid) {
            Err(io::Error::other("somebody has paused it"))
        } else {
            gate::open(pid, Path::new(gate::INSIDE))
        };
        opened.map_err(|source| RuntimeError::Gate {
            id: id.clone(),
            source,
        })
    }

    fn list(&self) -> Answer<'_, Vec<Backend>> {
        Box::pin(async move {
            let backends = self.all().await?;
            if !backends.is_empty() {
                // They may be an earlier version's, which left no mark.
                mark::set(&self.state_dir, &self.instance)?;
            }
            Ok(backends)
        })
    }

    fn log_tail<'a>(&'a self, id: &'a BackendId, lines: usize) -> Answer<'a, String> {
        Box::pin(self.tail(id, lines))
    }

    fn watch(self: Arc<Self>, events: mpsc::Sender<RuntimeEvent>) -> BoxFuture<'static, ()> {
        Box::pin(async move { events::watch(&self.docker, &self.instance, &events).await })
    }
}

/// A call with a limit of its own: bollard's covers the time to the answer's header only.
async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(limit, call)
        .await
        .unwrap_or(Err(Error::RequestTimeoutError))
}
