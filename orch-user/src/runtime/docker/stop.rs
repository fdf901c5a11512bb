//! Ending containers and removing what they leave.

use std::time::Duration;

use bollard::query_parameters::{RemoveContainerOptions, StopContainerOptions};
use tokio::time::sleep;

use super::{ACT_LIMIT, DockerRuntime, failure, freezer, list::first_process, within};
use crate::runtime::{BackendId, RuntimeError};

/// Between two looks at a container that somebody else is removing.
const GONE_PAUSE: Duration = Duration::from_millis(20);

impl DockerRuntime {
    pub(super) async fn end(&self, id: &BackendId, grace: Duration) -> Result<(), RuntimeError> {
        self.thaw(id).await;
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

    /// A frozen process hears no signal, not even SIGKILL where cgroups are of version 1.
    async fn thaw(&self, id: &BackendId) {
        let found = self.inspect(id).await.ok();
        if let Some(pid) = found.and_then(|found| first_process(found.state))
            && let Err(error) = freezer::set(id, pid, false)
        {
            log::debug!("cannot thaw container {id}: {error}");
        }
    }

    pub(super) async fn remove(&self, id: &BackendId) -> Result<(), RuntimeError> {
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
}
