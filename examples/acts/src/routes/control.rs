//! What the outside asks about this copy.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};

use crate::{app::App, identity::Identity, store};

/// 200 while the database can be written and read.
pub(super) async fn health(State(app): State<Arc<App>>) -> StatusCode {
    match app.store.write(store::probe).await {
        Ok(()) => StatusCode::OK,
        Err(error) => {
            eprintln!("acts: unhealthy: {error}");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// The last request that this copy answers well.
pub(super) async fn crash(State(app): State<Arc<App>>) {
    eprintln!("acts: crashed on request");
    app.crash();
}

/// Which copy answers.
pub(super) async fn whoami(State(app): State<Arc<App>>) -> Json<Identity> {
    Json(app.identity.clone())
}
