//! The HTTP interface: what the verbs and other programs ask of a running controller. Reading is
//! open to whoever reaches the status address; what changes state, and what backends have written,
//! needs the control socket or the token.

pub mod access;
pub mod client;
mod document;
mod page;
mod problem;
mod read;
mod serve;
mod stream;
mod write;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderValue, header},
    middleware::{from_fn_with_state, map_response},
    response::Response,
    routing::get,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::access::Access;
use crate::control::Control;

pub(crate) use write::{Auto, Replicas, Scale};

pub use document::document;
pub use serve::{serve_control, serve_status};

/// Largest body of a request.
const BODY_BYTES: usize = 4096;

/// For the status address without a token: reading alone.
pub fn read_only(control: Control) -> Router {
    router(control, Access::ReadOnly)
}

/// For the control socket: everything.
pub fn full(control: Control) -> Router {
    router(control, Access::Root)
}

/// For either, with what whoever asks has to show.
pub fn router(control: Control, access: Access) -> Router {
    let (guarded, _) = guarded().split_for_parts();
    let (open, _) = open().split_for_parts();
    let guarded = guarded.layer(from_fn_with_state(access, access::check));
    let all = open
        .merge(guarded)
        .route("/page/style.css", get(page::style))
        .route("/page/app.js", get(page::script))
        .route("/page/icon.svg", get(page::icon));
    // A gateway forwards any path to the service but those below the second place.
    let both = all.clone().nest("/_orch", all);
    both.route("/", get(page::page))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(map_response(cautious))
        .with_state(control)
}

/// What everybody may ask.
fn open() -> OpenApiRouter<Control> {
    OpenApiRouter::new()
        .routes(routes!(read::services))
        .routes(routes!(read::slots))
        .routes(routes!(read::events))
        .routes(routes!(read::decisions))
        .routes(routes!(read::live))
        .routes(routes!(read::metrics))
        .routes(routes!(document::serve))
}

/// What changes state, and what a backend may have written that is not for everybody.
fn guarded() -> OpenApiRouter<Control> {
    OpenApiRouter::new()
        .routes(routes!(write::scale))
        .routes(routes!(write::reset))
        .routes(routes!(write::stop))
        .routes(routes!(write::reload))
        .routes(routes!(write::recording))
        .routes(routes!(read::log))
}

/// Nothing here is to be kept, guessed at, or shown inside another site's page.
async fn cautious(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests;
