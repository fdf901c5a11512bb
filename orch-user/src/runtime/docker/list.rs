//! Seeing containers: one that was started, all of them, what one wrote.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use bollard::{
    errors::Error,
    models::{
        ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum, EndpointSettings,
    },
    query_parameters::{InspectContainerOptions, ListContainersOptions, LogsOptions},
};
use futures_util::StreamExt;

use super::{ASK_LIMIT, DockerRuntime, failure, labels, labels::Labels, within};
use crate::runtime::{Backend, BackendId, Prepared, RuntimeError};

impl DockerRuntime {
    pub(super) async fn find_image(&self, image: &str) -> Result<(), RuntimeError> {
        match within(ASK_LIMIT, self.docker.inspect_image(image)).await {
            Ok(_) => Ok(()),
            Err(error) if failure::status(&error) == Some(404) => Err(RuntimeError::ImageMissing {
                image: image.to_owned(),
            }),
            Err(error) => Err(self.failed("inspect image", image, error)),
        }
    }

    /// What was started. Its address is told only now: a connection to it before its interface
    /// exists would cost the next one a second.
    pub(super) async fn look(&self, prepared: &Prepared) -> Result<Backend, RuntimeError> {
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

    pub(super) async fn inspect(&self, id: &BackendId) -> Result<ContainerInspectResponse, Error> {
        let call = self
            .docker
            .inspect_container(&id.0, None::<InspectContainerOptions>);
        within(ASK_LIMIT, call).await
    }

    pub(super) async fn all(&self) -> Result<Vec<Backend>, RuntimeError> {
        let options = ListContainersOptions {
            all: true,
            filters: Some([("label".to_owned(), vec![labels::selector(&self.instance)])].into()),
            ..ListContainersOptions::default()
        };
        let found = within(ASK_LIMIT, self.docker.list_containers(Some(options))).await;
        let found = found.map_err(|error| self.failed("list", "containers", error))?;
        Ok(found.into_iter().filter_map(backend).collect())
    }

    pub(super) async fn tail(&self, id: &BackendId, lines: usize) -> Result<String, RuntimeError> {
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
        // A paused one holds its port and has not ended.
        running: matches!(
            found.state,
            Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::PAUSED)
        ),
        age: since(found.created.unwrap_or_default()),
        service: labels.service,
        slot: labels.slot,
        spec: labels.spec,
    })
}

/// The addresses a container has of its own: none on the host's network, or when it is dead.
fn own_address(networks: HashMap<String, EndpointSettings>) -> impl Iterator<Item = IpAddr> {
    networks
        .into_values()
        .filter_map(|endpoint| endpoint.ip_address?.parse().ok())
}

/// Time since a Unix time in seconds.
fn since(seconds: i64) -> Duration {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs());
    then.elapsed().unwrap_or_default()
}
