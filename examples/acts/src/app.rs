//! What all requests share.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{body, identity::Identity, store::Store};

/// This copy.
pub(crate) struct App {
    /// Its name.
    pub(crate) identity: Identity,
    /// Its way to the database.
    pub(crate) store: Arc<Store>,
    backend: HeaderValue,
    crashed: AtomicBool,
    stopping: AtomicBool,
}

impl App {
    /// A copy that serves.
    pub(crate) fn new(identity: Identity, store: Store) -> Self {
        Self {
            // A host name that is no header value is none that an engine gives.
            backend: HeaderValue::from_str(&identity.backend())
                .unwrap_or(HeaderValue::from_static("unknown")),
            identity,
            store: Arc::new(store),
            crashed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    /// From now on every request but those that are running fails.
    pub(crate) fn crash(&self) {
        self.crashed.store(true, Ordering::Relaxed);
    }

    /// From now on every response asks its client to connect anew.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

/// Around every request: the crashed state, the name of the copy, the end of keep-alive.
pub(crate) async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = if app.crashed.load(Ordering::Relaxed) {
        body::discard(request.into_body()).await;
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert("x-backend", app.backend.clone());
    if app.stopping.load(Ordering::Relaxed) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
