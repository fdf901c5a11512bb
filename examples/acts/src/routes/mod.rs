//! The addresses, one file per family.

mod acts;
mod categories;
mod control;

use std::sync::Arc;

use axum::{
    Router, middleware,
    routing::{delete, get, post},
};
use serde::Deserialize;

use crate::{
    app::{self, App},
    error::Error,
};

/// Every address of the service.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/api/v1/_health", get(control::health))
        .route("/api/v1/_crash", post(control::crash))
        .route("/api/v1/whoami", get(control::whoami))
        .route("/api/v1/acts", get(acts::list).post(acts::create))
        .route("/api/v1/acts/count", get(acts::count))
        .route("/api/v1/acts/upvote", post(acts::upvote))
        .route("/api/v1/acts/{id}", delete(acts::remove))
        .route(
            "/api/v1/categories",
            get(categories::list).post(categories::create),
        )
        .route("/api/v1/categories/{name}", delete(categories::remove))
        .route("/api/v1/categories/{name}/acts", get(acts::list_category))
        .fallback(async || Error::NoRoute)
        .method_not_allowed_fallback(async || Error::NoMethod)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            app::around,
        ))
        .with_state(app)
}

/// The value in a JSON body. The content type does not matter: clients often leave it out.
fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(Error::Json)
}

/// The only element of a JSON array.
fn parse_one<'a, T: Deserialize<'a>>(body: &'a [u8], item: &'static str) -> Result<T, Error> {
    let [one] = <[T; 1]>::try_from(parse::<Vec<T>>(body)?).map_err(|_| Error::NotOne { item })?;
    Ok(one)
}
