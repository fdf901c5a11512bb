//! The HTTP interface: what the verbs and other programs ask of a running controller. Reading is
//! open to whoever reaches the status address; what changes state needs the control socket.

pub mod client;
mod problem;
mod read;
mod serve;
mod stream;
mod write;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};

use crate::control::Control;

pub(crate) use write::{Auto, Replicas, Scale};

pub use serve::{serve_control, serve_status};

/// Largest body of a request.
const BODY_BYTES: usize = 4096;

/// What everybody may ask.
pub fn read_only(control: Control) -> Router {
    routes().with_state(control)
}

/// That, and what changes state.
pub fn full(control: Control) -> Router {
    routes()
        .route("/v1/services/{name}/scale", post(write::scale))
        .route("/v1/services/{name}/reset", post(write::reset))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(control)
}

fn routes() -> Router<Control> {
    Router::new()
        .route("/", get(read::overview))
        .route("/v1/services", get(read::services))
        .route("/v1/services/{name}/recording", get(write::recording))
        .route("/v1/slots", get(read::slots))
        .route("/v1/events", get(read::events))
        .route("/v1/decisions", get(read::decisions))
        .route("/metrics", get(read::metrics))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::wrong_method)
}

#[cfg(test)]
mod tests;
