//! Creating containers and starting them on their port.

use std::{path::Path, time::Duration};

use bollard::query_parameters::{CreateContainerOptions, StartContainerOptions};
use tokio::time::{Instant, sleep};

use super::{ACT_LIMIT, DockerRuntime, body, failure, within};
use crate::{
    listeners,
    runtime::{Backend, BackendId, Order, Prepared, PublishOn, RuntimeError, gate, mark},
};

/// The engine frees a port some time after it has removed the container: how long a start is tried
/// again, and the pause between two tries.
const PORT_LIMIT: Duration = Duration::from_secs(1);
const PORT_PAUSE: Duration = Duration::from_millis(40);

impl DockerRuntime {
    pub(super) async fn make(&self, order: &Order) -> Result<Prepared, RuntimeError> {
        let options = CreateContainerOptions {
            name: Some(body::name(order)),
            ..CreateContainerOptions::default()
        };
        let mut body = body::of(order, &self.instance, body::host_has_ipv6());
        if order.gated {
            body = body::behind(self.gate.install()?, self.words(order).await?, body);
        }
        mark::set(&self.state_dir, &self.instance)?;
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

    /// The program that a container would run, and its arguments: an image's entry point stays, as
    /// long as nobody says otherwise, and its command gives way to the file's.
    async fn words(&self, order: &Order) -> Result<Vec<String>, RuntimeError> {
        let image = order.backend.image.as_deref().unwrap_or_default();
        let config = self.look_at_image(image).await?.config.unwrap_or_default();
        let command = match order.backend.command.as_slice() {
            [] => config.cmd.unwrap_or_default(),
            own => own.to_vec(),
        };
        let words = [config.entrypoint.unwrap_or_default(), command].concat();
        if words.is_empty() {
            return Err(RuntimeError::NoProgram {
                image: image.to_owned(),
            });
        }
        Ok(words)
    }

    /// Starts a container, or removes it.
    pub(super) async fn run(&self, prepared: Prepared) -> Result<Backend, RuntimeError> {
        let result = match self.run_on_port(&prepared).await {
            Ok(()) => self.see(&prepared).await,
            Err(error) => Err(error),
        };
        if result.is_err()
            && let Err(error) = self.remove(&prepared.id).await
        {
            log::warn!("container {} is left over: {error}", prepared.id);
        }
        result
    }

    /// What was started. One with a gate is there once it waits at it.
    async fn see(&self, prepared: &Prepared) -> Result<Backend, RuntimeError> {
        let mut backend = self.look(prepared).await?;
        if let Some(pid) = backend.pid.filter(|_| prepared.order.gated) {
            let closed = gate::until_closed(pid, Path::new(gate::INSIDE)).await;
            closed.map_err(|source| RuntimeError::Gate {
                id: backend.id.clone(),
                source,
            })?;
            backend.gated = true;
        }
        Ok(backend)
    }

    async fn run_on_port(&self, prepared: &Prepared) -> Result<(), RuntimeError> {
        let id = &prepared.id.0;
        let begin = Instant::now();
        while begin.elapsed() <= PORT_LIMIT {
            if !takes_clients(&prepared.order) {
                let call = self
                    .docker
                    .start_container(id, None::<StartContainerOptions>);
                match within(ACT_LIMIT, call).await {
                    Ok(()) => return Ok(()),
                    Err(error) if !failure::is_port_in_use(&error) => {
                        return Err(self.failed("start", id, error));
                    }
                    Err(error) => log::debug!("container {id}: {error}"),
                }
            }
            sleep(PORT_PAUSE).await;
        }
        Err(RuntimeError::PortTaken {
            port: prepared.order.slot_port,
            service: prepared.order.service.clone(),
            holder: listeners::holder_of(prepared.order.slot_port),
        })
    }
}

/// Whether a program that listens on the slot's port would lose its local clients to the container.
/// Where the port is published the engine notices.
fn takes_clients(order: &Order) -> bool {
    let unseen = order.publish == PublishOn::Nowhere && order.slot.is_some();
    let port = order.slot_port;
    unseen && listeners::all().iter().any(|one| one.port == port)
}
