//! `/api/v1/categories`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
};
use serde_json::{Value, json};

use super::parse_one;
use crate::{app::App, body, error::Error, store::categories};

/// A map from name to number of acts.
pub(super) async fn list(
    State(app): State<Arc<App>>,
) -> Result<Json<BTreeMap<String, u64>>, Error> {
    Ok(Json(app.store.read(categories::list).await?))
}

/// Creates the category `["name"]`.
pub(super) async fn create(
    State(app): State<Arc<App>>,
    request: Body,
) -> Result<(StatusCode, Json<Value>), Error> {
    let name: String = parse_one(&body::read(request).await?, "name")?;
    if name.trim().is_empty() {
        return Err(Error::Empty { field: "the name" });
    }
    app.store
        .write(move |transaction| categories::create(transaction, &name))
        .await?;
    Ok((StatusCode::CREATED, Json(json!({}))))
}

/// Removes a category with its acts.
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Error> {
    app.store
        .write(move |transaction| categories::remove(transaction, &name))
        .await?;
    Ok(Json(json!({})))
}
