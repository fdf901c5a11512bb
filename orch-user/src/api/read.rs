//! Requests that change nothing.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{problem::Problem, stream};
use crate::{
    control::Control,
    metrics, overview,
    view::{DecisionRow, ServiceRow, SlotRow},
};

pub(super) async fn overview(State(control): State<Control>) -> String {
    let snapshot = control.snapshot.borrow().clone();
    let plain = |_: &str, cell: &str| cell.to_owned();
    format!(
        "orch {}\n\n{}\n{}\n/v1/services /v1/slots /v1/events /v1/decisions /metrics\n",
        env!("CARGO_PKG_VERSION"),
        overview::services(&snapshot.services).render(plain),
        overview::slots(&snapshot.slots, false).render(plain)
            + &overview::without_copies(&snapshot.services),
    )
}

pub(super) async fn services(State(control): State<Control>) -> Json<Vec<ServiceRow>> {
    Json(control.snapshot.borrow().services.clone())
}

pub(super) async fn slots(State(control): State<Control>) -> Json<Vec<SlotRow>> {
    Json(control.snapshot.borrow().slots.clone())
}

pub(super) async fn metrics(State(control): State<Control>) -> Response {
    let snapshot = control.snapshot.borrow().clone();
    let kind = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    (kind, metrics::render(&snapshot)).into_response()
}

/// Which decisions.
#[derive(Deserialize)]
pub(super) struct Decisions {
    service: Option<String>,
}

pub(super) async fn decisions(
    State(control): State<Control>,
    query: Result<Query<Decisions>, QueryRejection>,
) -> Result<Json<Vec<DecisionRow>>, Problem> {
    let Query(query) =
        query.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let service = query.service.as_deref();
    if let Some(name) = service {
        known(&control, name)?;
    }
    Ok(Json(control.journal.decisions(service)))
}

fn known(control: &Control, name: &str) -> Result<(), Problem> {
    let snapshot = control.snapshot.borrow();
    let mut names = snapshot.services.iter().map(|row| row.service.as_str());
    if names.clone().any(|known| known == name) {
        return Ok(());
    }
    let error = crate::control::CommandError::UnknownService {
        name: name.to_owned(),
        known: names.by_ref().collect::<Vec<_>>().join(", "),
    };
    Err(error.into())
}

pub(super) async fn events(State(control): State<Control>, headers: HeaderMap) -> Response {
    let text = |name: header::HeaderName| headers.get(name)?.to_str().ok();
    if !text(header::ACCEPT).is_some_and(|accept| accept.contains("text/event-stream")) {
        return Json(control.journal.events_since(0)).into_response();
    }
    let last = headers.get("last-event-id");
    let last = last.and_then(|id| id.to_str().ok()?.trim().parse().ok());
    stream::events(&control, last)
}
