//! Seeing containers: one that was started, all of them, what one wrote.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bollard::{
    errors::Error,
    models::{
        ContainerInspectResponse, ContainerState, ContainerSummary, ContainerSummaryStateEnum,
        EndpointSettings, ImageInspect,
    },
    query_parameters::{InspectContainerOptions, ListContainersOptions, LogsOptions},
};
use futures_util::{StreamExt, future::join_all};

use super::{ASK_LIMIT, DockerRuntime, failure, labels, labels::Labels, within};
use crate::runtime::{Backend, BackendId, Prepared, RuntimeError, gate};

impl DockerRuntime {
    pub(super) async fn look_at_image(&self, image: &str) -> Result<ImageInspect, RuntimeError> {
        match within(ASK_LIMIT, self.docker.inspect_image(image)).await {
            Ok(found) => Ok(found),
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
        let inside = Inside::of(found, labels.direct);
        let (pid, netns) = (inside.pid, inside.netns.clone());
        let address = labels.address(inside.address);
        self.insides().insert(prepared.id.clone(), inside);
        Ok(Backend {
            id: prepared.id.clone(),
            address,
            running: pid.is_some(),
            gated: false,
            pid,
            netns,
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
        let found: Vec<_> = found.into_iter().filter_map(backend).collect();
        let runs = |id: &BackendId| found.iter().any(|(one, _)| one.running && one.id == *id);
        self.insides().retain(|id, _| runs(id));
        let backends = found.into_iter().map(|found| self.look_inside(found));
        Ok(join_all(backends).await)
    }

    /// The list has neither the first process nor the network namespace: each container is looked at
    /// once.
    async fn look_inside(&self, (mut backend, labels): (Backend, Labels)) -> Backend {
        if !backend.running {
            return backend;
        }
        let known = self.insides().get(&backend.id).cloned();
        let inside = match known {
            Some(inside) => inside,
            // One that is gone since will be missing from the next list.
            None => match self.inspect(&backend.id).await {
                Ok(found) => Inside::of(found, labels.direct),
                Err(_) => return backend,
            },
        };
        backend.address = labels.address(inside.address);
        (backend.pid, backend.netns) = (inside.pid, inside.netns.clone());
        // Once it is open it is open: not to be remembered.
        backend.gated = labels.slot.is_none() && inside.pid.is_some_and(is_closed);
        self.insides().insert(backend.id.clone(), inside);
        backend
    }

    fn insides(&self) -> MutexGuard<'_, HashMap<BackendId, Inside>> {
        self.insides.lock().unwrap_or_else(PoisonError::into_inner)
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

fn is_closed(pid: u32) -> bool {
    gate::is_closed(pid, Path::new(gate::INSIDE))
}

/// `None` for a container that is being removed, or whose labels are not ours.
fn backend(found: ContainerSummary) -> Option<(Backend, Labels)> {
    if found.state == Some(ContainerSummaryStateEnum::REMOVING) {
        return None;
    }
    let id = BackendId(found.id?);
    let Some(labels) = Labels::parse(&found.labels?) else {
        log::warn!("container {id} has our label but not all of them: ignored");
        return None;
    };
    let networks = found.network_settings.and_then(|network| network.networks);
    let backend = Backend {
        id,
        address: labels.address(networks.and_then(own_address)),
        // A paused one holds its port and has not ended.
        running: matches!(
            found.state,
            Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::PAUSED)
        ),
        gated: false,
        pid: None,
        netns: None,
        age: since(found.created.unwrap_or_default()),
        service: labels.service.clone(),
        slot: labels.slot,
        spec: labels.spec.clone(),
    };
    Some((backend, labels))
}

/// What only a look at the single container tells.
#[derive(Clone, Debug)]
pub(super) struct Inside {
    address: Option<IpAddr>,
    pid: Option<u32>,
    netns: Option<PathBuf>,
}

impl Inside {
    fn of(found: ContainerInspectResponse, direct: bool) -> Self {
        let (networks, sandbox) = found.network_settings.map_or((None, None), |network| {
            (network.networks, network.sandbox_key)
        });
        let address = networks.and_then(own_address);
        // Without an address of its own it is on somebody else's network: the namespace is not its.
        let netns = sandbox.filter(|path| direct && address.is_some() && !path.is_empty());
        Self {
            address,
            pid: first_process(found.state),
            netns: netns.map(PathBuf::from),
        }
    }
}

/// The first process of a container that runs, as the host numbers it.
pub(super) fn first_process(state: Option<ContainerState>) -> Option<u32> {
    let state = state.filter(|state| state.running == Some(true))?;
    u32::try_from(state.pid?).ok().filter(|pid| *pid > 0)
}

/// The address a container has of its own, IPv4 first: none on the host's network, or when it is
/// dead.
fn own_address(networks: HashMap<String, EndpointSettings>) -> Option<IpAddr> {
    let of_both = |endpoint: EndpointSettings| [endpoint.ip_address, endpoint.global_ipv6_address];
    let addresses = networks.into_values().flat_map(of_both).flatten();
    addresses.filter_map(|address| address.parse().ok()).min()
}

/// Time since a Unix time in seconds.
fn since(seconds: i64) -> Duration {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs());
    then.elapsed().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bollard::models::NetworkSettings;

    use super::*;

    fn container(addresses: &[(&str, &str)], running: bool) -> ContainerInspectResponse {
        let endpoint = |(v4, v6): &(&str, &str)| EndpointSettings {
            ip_address: Some((*v4).to_owned()),
            global_ipv6_address: Some((*v6).to_owned()),
            ..EndpointSettings::default()
        };
        let networks = addresses.iter().enumerate();
        ContainerInspectResponse {
            state: Some(ContainerState {
                running: Some(running),
                pid: Some(if running { 7 } else { 0 }),
                ..ContainerState::default()
            }),
            network_settings: Some(NetworkSettings {
                sandbox_key: Some("/var/run/docker/netns/1".to_owned()),
                networks: Some(
                    networks
                        .map(|(at, both)| (at.to_string(), endpoint(both)))
                        .collect(),
                ),
                ..NetworkSettings::default()
            }),
            ..ContainerInspectResponse::default()
        }
    }

    #[test]
    fn what_a_container_is_reached_by() {
        let netns = Some("/var/run/docker/netns/1");
        for (addresses, direct, address, in_netns) in [
            (&[("172.17.0.2", "")][..], true, "172.17.0.2", netns),
            (&[("172.17.0.2", "")][..], false, "172.17.0.2", None),
            (&[("10.1.0.2", "fd00::2")][..], true, "10.1.0.2", netns),
            (&[("", "fd00::2")][..], true, "fd00::2", netns),
            (&[("", "")][..], true, "", None),
            (&[][..], true, "", None),
        ] {
            let inside = Inside::of(container(addresses, true), direct);
            assert_eq!(inside.address, address.parse().ok(), "{addresses:?}");
            assert_eq!(inside.netns, in_netns.map(PathBuf::from), "{addresses:?}");
            assert_eq!(inside.pid, Some(7));
        }
        assert_eq!(Inside::of(container(&[], false), true).pid, None);
    }
}
