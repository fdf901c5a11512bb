//! Why can the controller not run?

use crate::{dataplane::DataplaneError, runtime::RuntimeError};

/// Why the controller cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data plane cannot be used.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// A service's backends cannot be made.
    #[error("service {service} cannot run")]
    Runtime {
        /// The service.
        service: String,
        /// Why.
        #[source]
        source: RuntimeError,
    },
    /// What runs already cannot be listed.
    #[error("cannot see what {runtime} backends run already")]
    List {
        /// Which runtime.
        runtime: &'static str,
        /// Why.
        #[source]
        source: RuntimeError,
    },
    /// The end came before every backend could be stopped.
    #[error(
        "{backends} could not be stopped and is left behind: once its runtime answers, run `orch down`"
    )]
    LeftBehind {
        /// Their ids, separated by commas.
        backends: String,
    },
    /// A service's connections cannot go straight to its containers, as the file demands.
    #[error(
        "service {service} cannot have delivery = \"direct\" here: {reason}; write \"auto\" in [dataplane]"
    )]
    Delivery {
        /// The service.
        service: String,
        /// Why not.
        reason: String,
    },
    /// A service's spares could not be reached.
    #[error(
        "service {service} cannot have spares here: they need direct delivery, and {reason}; write spares = 0"
    )]
    Spares {
        /// The service.
        service: String,
        /// Why not.
        reason: String,
    },
    /// A service needs a runtime that is not there.
    #[error("service {service} needs the {runtime} runtime, which is not available here")]
    NoRuntime {
        /// The service.
        service: String,
        /// The runtime.
        runtime: &'static str,
    },
}
