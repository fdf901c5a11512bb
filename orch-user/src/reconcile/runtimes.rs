//! Which runtime runs what.

use std::{collections::BTreeMap, sync::Arc};

use super::RunError;
use crate::{
    config::{BackendConfig, Config},
    runtime::{Runtime, RuntimeKind},
};

/// The runtimes at hand, one of a kind at the most.
#[derive(Clone, Default)]
pub struct Runtimes {
    by_kind: BTreeMap<RuntimeKind, Arc<dyn Runtime>>,
}

impl Runtimes {
    /// None at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// These, and one more.
    #[must_use]
    pub fn with(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.by_kind.insert(runtime.kind(), runtime);
        self
    }

    /// The one of this kind.
    pub fn get(&self, kind: RuntimeKind) -> Option<&Arc<dyn Runtime>> {
        self.by_kind.get(&kind)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Runtime>> {
        self.by_kind.values()
    }

    /// The kind that a service's backends need.
    pub fn kind_for(backend: &BackendConfig) -> RuntimeKind {
        if backend.is_process() {
            RuntimeKind::Process
        } else {
            RuntimeKind::Docker
        }
    }

    /// Whether every service of this configuration can be run at all. Call it before the data
    /// plane is opened, so that nothing is half done where it cannot.
    pub async fn check(&self, config: &Config) -> Result<(), RunError> {
        for service in &config.services {
            let kind = Self::kind_for(&service.backend);
            let runtime = self.get(kind).ok_or_else(|| RunError::NoRuntime {
                service: service.name.clone(),
                runtime: kind.name(),
            })?;
            let failed = |source| RunError::Runtime {
                service: service.name.clone(),
                source,
            };
            let check = runtime.check(&service.name, &service.backend);
            check.await.map_err(failed)?;
            if service.scale.spares > 0 {
                runtime.check_spares(&service.scale).map_err(failed)?;
            }
        }
        Ok(())
    }
}
