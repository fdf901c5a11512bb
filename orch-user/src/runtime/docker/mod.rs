//! Backends that are containers of a Docker engine. Only this module and what is below it know
//! bollard.

mod body;
mod connect;
mod events;
mod failure;
mod labels;

use std::{
    future::Future,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bollard::{
    Docker,
    errors::Error,
    models::{
        ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum, EndpointSettings,
    },
    query_parameters::{
        CreateContainerOptions, InspectContainerOptions, ListContainersOptions, LogsOptions,
        RemoveContainerOptions, StartContainerOptions, StopContainerOptions,
    },
};
use futures_util::{StreamExt, future::BoxFuture};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use self::labels::Labels;
use super::{
    Answer, Backend, BackendId, Order, Prepared, Runtime, RuntimeError, RuntimeEvent, RuntimeKind,
};
use crate::config::BackendConfig;

/// Limit of calls that only ask.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// Limit of calls that make, start or remove something, on a busy engine.
const ACT_LIMIT: Duration = Duration::from_mins(1);
/// The engine frees a port some time after it has removed the container: tries of a start, and
/// the pause between them.
const START_TRIES: u32 = 15;
const START_PAUSE: Duration = Duration::from_millis(40);
/// Between two looks at a container that somebody else is removing.
const GONE_PAUSE: Duration = Duration::from_millis(20);

/// The runtime of containers.
#[derive(Debug)]
pub struct DockerRuntime {
    docker: Docker,
    endpoint: String,
    instance: String,
}

impl DockerRuntime {
    /// Connects to the engine at `DOCKER_HOST`, or else to the usual socket. `instance` marks the
    /// containers of this instance of orch; it sees no others.
    pub async fn connect(instance: &str) -> Result<Self, RuntimeError> {
        let endpoint = connect::endpoint();
        match connect::connect(&endpoint).await {
            Ok(docker) => Ok(Self {
                docker,
                endpoint,
                instance: instance.to_owned(),
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

    async fn find_image(&self, image: &str) -> Result<(), RuntimeError> {
        match within(ASK_LIMIT, self.docker.inspect_image(image)).await {
            Ok(_) => Ok(()),
            Err(error) if failure::status(&error) == Some(404) => Err(RuntimeError::ImageMissing {
                image: image.to_owned(),
            }),
            Err(error) => Err(self.failed("inspect image", image, error)),
        }
    }

    async fn make(&self, order: &Order) -> Result<Prepared, RuntimeError> {
        let options = CreateContainerOptions {
            name: Some(body::name(order)),
            ..CreateContainerOptions::default()
        };
        let body = body::of(order, &self.instance, body::host_has_ipv6());
        let call = self.docker.create_container(Some(options), body);
        let created = within(ACT_LIMIT, call).await.map_err(|error| {
            let image = order.backend.image.clone().unwrap_or_default();
            match failure::status(&error) {
                Some(404) => RuntimeError::ImageMissing { image },
                _ => self.failed("create", &body::name(order), error),
            }
        })?;
        for warning in created.warnings {
            log::debug!("docker create for service {}: {warning}", order.service);
        }
        Ok(Prepared {
            order: order.clone(),
            id: BackendId(created.id),
        })
    }

    /// Starts a container, or removes it.
    async fn run(&self, prepared: Prepared) -> Result<Backend, RuntimeError> {
        let result = match self.run_on_port(&prepared).await {
            Ok(()) => self.look(&prepared).await,
            Err(error) => Err(error),
        };
        if result.is_err()
            && let Err(error) = self.remove(&prepared.id).await
        {
            log::warn!("container {} is left over: {error}", prepared.id);
        }
        result
    }

    async fn run_on_port(&self, prepared: &Prepared) -> Result<(), RuntimeError> {
        let id = &prepared.id.0;
        for _ in 0..START_TRIES {
            let call = self
                .docker
                .start_container(id, None::<StartContainerOptions>);
            match within(ACT_LIMIT, call).await {
                Ok(()) => return Ok(()),
                Err(error) if failure::is_port_in_use(&error) => sleep(START_PAUSE).await,
                Err(error) => return Err(self.failed("start", id, error)),
            }
        }
        Err(RuntimeError::PortTaken {
            port: prepared.order.slot_port,
            service: prepared.order.service.clone(),
        })
    }

    /// What was started. Its address is told only now: a connection to it before its interface
    /// exists would cost the next one a second.
    async fn look(&self, prepared: &Prepared) -> Result<Backend, RuntimeError> {
        let found = self.inspect(&prepared.id).await;
        let found = found.map_err(|error| self.failed("inspect", &prepared.id.0, error))?;
        let labels = Labels::of_order(&prepared.order);
        let networks = found.network_settings.and_then(|network| network.networks);
        let running = found.state.and_then(|state| state.running);
        Ok(Backend {
            id: prepared.id.clone(),
            address: labels.address(networks.into_iter().flat_map(own_address).min()),
            running: running.unwrap_or_default(),
            age: Duration::ZERO,
            service: labels.service,
            slot: labels.slot,
            spec: labels.spec,
        })
    }

    async fn inspect(&self, id: &BackendId) -> Result<ContainerInspectResponse, Error> {
        let call = self
            .docker
            .inspect_container(&id.0, None::<InspectContainerOptions>);
        within(ASK_LIMIT, call).await
    }

    async fn end(&self, id: &BackendId, grace: Duration) -> Result<(), RuntimeError> {
        if !grace.is_zero() {
            let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
            let options = StopContainerOptions {
                t: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
                ..StopContainerOptions::default()
            };
            let limit = grace.saturating_add(ACT_LIMIT);
            let patient = self.docker.clone().with_timeout(limit);
            match within(limit, patient.stop_container(&id.0, Some(options))).await {
                Ok(()) => {}
                Err(error) if failure::status(&error) == Some(404) => return Ok(()),
                Err(error) if failure::is_engine_gone(&error) => {
                    return Err(self.failed("stop", &id.0, error));
                }
                // Whatever it is, the removal goes on by force.
                Err(error) => log::debug!("docker stop {id}: {error}"),
            }
        }
        self.remove(id).await
    }

    async fn remove(&self, id: &BackendId) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptions {
            force: true,
            v: true,
            ..RemoveContainerOptions::default()
        };
        let call = self.docker.remove_container(&id.0, Some(options));
        match within(ACT_LIMIT, call).await {
            Ok(()) => Ok(()),
            Err(error) => match failure::status(&error) {
                Some(404) => Ok(()),
                Some(409) => self.until_gone(id).await,
                _ => Err(self.failed("remove", &id.0, error)),
            },
        }
    }

    /// Waits for a removal that is in progress.
    async fn until_gone(&self, id: &BackendId) -> Result<(), RuntimeError> {
        let gone = async {
            loop {
                match self.inspect(id).await {
                    Ok(_) => sleep(GONE_PAUSE).await,
                    Err(error) if failure::status(&error) == Some(404) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        within(ACT_LIMIT, gone)
            .await
            .map_err(|error| self.failed("remove", &id.0, error))
    }

    async fn all(&self) -> Result<Vec<Backend>, RuntimeError> {
        let options = ListContainersOptions {
            all: true,
            filters: Some([("label".to_owned(), vec![labels::selector(&self.instance)])].into()),
            ..ListContainersOptions::default()
        };
        let found = within(ASK_LIMIT, self.docker.list_containers(Some(options))).await;
        let found = found.map_err(|error| self.failed("list", "containers", error))?;
        Ok(found.into_iter().filter_map(backend).collect())
    }

    async fn tail(&self, id: &BackendId, lines: usize) -> Result<String, RuntimeError> {
        let options = LogsOptions {
            stdout: true,
            stderr: true,
            tail: lines.to_string(),
            ..LogsOptions::default()
        };
        let mut chunks = self.docker.logs(&id.0, Some(options));
        let all = async {
            let mut bytes = Vec::new();
            while let Some(chunk) = chunks.next().await {
                bytes.extend_from_slice(chunk?.as_ref());
            }
            Ok(bytes)
        };
        match within(ASK_LIMIT, all).await {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned()),
            Err(error) if failure::status(&error) == Some(404) => Ok(String::new()),
            Err(error) => Err(self.failed("read the log of", &id.0, error)),
        }
    }
}

impl Runtime for DockerRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Docker
    }

    fn check<'a>(&'a self, _service: &'a str, backend: &'a BackendConfig) -> Answer<'a, ()> {
        Box::pin(async move {
            self.find_image(backend.image.as_deref().unwrap_or_default())
                .await
        })
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

    fn list(&self) -> Answer<'_, Vec<Backend>> {
        Box::pin(self.all())
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

/// `None` for a container that is being removed, or whose labels are not ours.
fn backend(found: ContainerSummary) -> Option<Backend> {
    if found.state == Some(ContainerSummaryStateEnum::REMOVING) {
        return None;
    }
    let id = BackendId(found.id?);
    let Some(labels) = Labels::parse(&found.labels?) else {
        log::warn!("container {id} has our label but not all of them: ignored");
        return None;
    };
    let networks = found.network_settings.and_then(|network| network.networks);
    Some(Backend {
        id,
        address: labels.address(networks.into_iter().flat_map(own_address).min()),
        running: found.state == Some(ContainerSummaryStateEnum::RUNNING),
        age: since(found.created.unwrap_or_default()),
        service: labels.service,
        slot: labels.slot,
        spec: labels.spec,
    })
}

/// The addresses a container has of its own: none on the host's network, or when it is dead.
fn own_address(
    networks: std::collections::HashMap<String, EndpointSettings>,
) -> impl Iterator<Item = IpAddr> {
    networks
        .into_values()
        .filter_map(|endpoint| endpoint.ip_address?.parse().ok())
}

/// Time since a Unix time in seconds.
fn since(seconds: i64) -> Duration {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs());
    then.elapsed().unwrap_or_default()
}
