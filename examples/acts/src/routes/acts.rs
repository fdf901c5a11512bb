//! `/api/v1/acts`.

use std::{borrow::Cow, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{parse, parse_one};
use crate::{
    app::App,
    body,
    error::Error,
    store::acts::{self, Act, NewAct, Range},
};

/// Clients disagree about padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Posted<'a> {
    act_id: Option<i64>,
    username: String,
    timestamp: Option<String>,
    caption: String,
    category_name: String,
    #[serde(rename = "imgB64", borrow)]
    image: Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    act_id: i64,
    username: String,
    timestamp: String,
    caption: String,
    category_name: &'a str,
    upvotes: u64,
    #[serde(rename = "imgB64")]
    image: String,
}

/// Which acts are asked for.
#[derive(Deserialize)]
pub(super) struct Wanted {
    category: Option<String>,
    start: Option<u32>,
    end: Option<u32>,
}

type Asked = Result<Query<Wanted>, QueryRejection>;

impl Wanted {
    fn range(&self) -> Result<Option<Range>, Error> {
        match (self.start, self.end) {
            (None, None) => Ok(None),
            (Some(start), Some(end)) if 1 <= start && start <= end => {
                Ok(Some(Range { start, end }))
            }
            _ => Err(Error::Range),
        }
    }
}

/// Stores an act.
pub(super) async fn create(
    State(app): State<Arc<App>>,
    request: Body,
) -> Result<(StatusCode, Json<Value>), Error> {
    let act = check(&body::read(request).await?)?;
    let id = app
        .store
        .write(move |transaction| acts::create(transaction, act))
        .await?;
    Ok((StatusCode::CREATED, Json(json!({ "actId": id }))))
}

fn check(body: &[u8]) -> Result<NewAct, Error> {
    let posted: Posted<'_> = parse(body)?;
    for (field, text) in [
        ("username", &posted.username),
        ("categoryName", &posted.category_name),
    ] {
        if text.trim().is_empty() {
            return Err(Error::Empty { field });
        }
    }
    Ok(NewAct {
        id: posted.act_id,
        username: posted.username,
        timestamp: posted.timestamp,
        caption: posted.caption,
        category: posted.category_name,
        image: BASE64
            .decode(posted.image.as_bytes())
            .map_err(Error::Image)?,
    })
}

/// The acts of `?category=`.
pub(super) async fn list(State(app): State<Arc<App>>, wanted: Asked) -> Result<Response, Error> {
    let Query(wanted) = wanted.map_err(|_| Error::Range)?;
    let range = wanted.range()?;
    let name = wanted.category.unwrap_or_default();
    if name.is_empty() {
        return Err(Error::Empty { field: "category" });
    }
    answer(&app, name, range).await
}

/// The acts of `/api/v1/categories/{name}/acts`.
pub(super) async fn list_category(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    wanted: Asked,
) -> Result<Response, Error> {
    let Query(wanted) = wanted.map_err(|_| Error::Range)?;
    answer(&app, name, wanted.range()?).await
}

async fn answer(app: &App, name: String, range: Option<Range>) -> Result<Response, Error> {
    let category = name.clone();
    let found = app
        .store
        .read(move |connection| acts::list(connection, &category, range))
        .await?;
    if found.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let listed: Vec<_> = found.into_iter().map(|act| show(act, &name)).collect();
    Ok(Json(listed).into_response())
}

fn show(act: Act, category: &str) -> Listed<'_> {
    Listed {
        act_id: act.id,
        username: act.username,
        timestamp: act.timestamp,
        caption: act.caption,
        category_name: category,
        upvotes: act.upvotes,
        image: BASE64.encode(act.image),
    }
}

/// `[n]`, the number of acts.
pub(super) async fn count(State(app): State<Arc<App>>) -> Result<Json<[u64; 1]>, Error> {
    Ok(Json([app.store.read(acts::count).await?]))
}

/// Counts a vote for the act `[id]`.
pub(super) async fn upvote(
    State(app): State<Arc<App>>,
    request: Body,
) -> Result<Json<Value>, Error> {
    let id: i64 = parse_one(&body::read(request).await?, "act id")?;
    app.store
        .write(move |transaction| acts::upvote(transaction, id))
        .await?;
    Ok(Json(json!({})))
}

/// Removes an act.
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Error> {
    // What is not a number names no act.
    let id: i64 = id.parse().map_err(|_| Error::NoRoute)?;
    app.store
        .write(move |transaction| acts::remove(transaction, id))
        .await?;
    Ok(Json(json!({})))
}
