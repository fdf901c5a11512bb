//! Requests that change nothing.

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{problem::Problem, stream, write::ask};
use crate::{
    control::{Command, CommandError, Control},
    live::{Live, Viewer},
    metrics,
    view::{DecisionRow, EventRow, ServiceRow, SlotRow},
};

/// The most lines of a log that are asked for at a time.
const LOG_LINES: usize = 1000;

/// A row per service.
#[utoipa::path(
    get,
    path = "/v1/services",
    tag = "read",
    responses((status = 200, description = "As `orch status -o json`", body = Vec<ServiceRow>))
)]
pub(super) async fn services(State(control): State<Control>) -> Json<Vec<ServiceRow>> {
    Json(control.snapshot.borrow().services.clone())
}

/// A row per slot.
#[utoipa::path(
    get,
    path = "/v1/slots",
    tag = "read",
    responses((status = 200, description = "As `orch ps -o json`", body = Vec<SlotRow>))
)]
pub(super) async fn slots(State(control): State<Control>) -> Json<Vec<SlotRow>> {
    Json(control.snapshot.borrow().slots.clone())
}

/// Metrics for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "read",
    responses((status = 200, description = "Text format 0.0.4", body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(control): State<Control>) -> Response {
    let snapshot = control.snapshot.borrow().clone();
    let kind = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    (kind, metrics::render(&snapshot)).into_response()
}

/// Which decisions.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Decisions {
    /// Name of a service; all of them if left out.
    #[param(nullable = false)]
    service: Option<String>,
}

/// The last decisions about numbers of copies, each with its cause.
#[utoipa::path(
    get,
    path = "/v1/decisions",
    tag = "read",
    params(Decisions),
    responses(
        (status = 200, description = "Oldest first", body = Vec<DecisionRow>),
        (status = 400, description = "Not a query", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such service", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn decisions(
    State(control): State<Control>,
    query: Result<Query<Decisions>, QueryRejection>,
) -> Result<Json<Vec<DecisionRow>>, Problem> {
    let Query(query) = query.map_err(|error| Problem::of_query(&error))?;
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
    let error = CommandError::UnknownService {
        name: name.to_owned(),
        known: names.by_ref().collect::<Vec<_>>().join(", "),
    };
    Err(error.into())
}

/// What happened; with `Accept: text/event-stream`, what happens from now on.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "read",
    responses(
        (status = 200, description = "Oldest first. As a stream: an event per row, named after its kind, whose data is the row; `Last-Event-ID` begins with the one after it", body = Vec<EventRow>),
        (status = 503, description = "Too many follow already", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn events(State(control): State<Control>, headers: HeaderMap) -> Response {
    if !wants_stream(&headers) {
        return Json(control.journal.events_since(0)).into_response();
    }
    let last = headers.get("last-event-id");
    let last = last.and_then(|id| id.to_str().ok()?.trim().parse().ok());
    stream::events(&control, last)
}

/// All there is to see; with `Accept: text/event-stream`, from now on.
#[utoipa::path(
    get,
    path = "/v1/live",
    tag = "read",
    responses(
        (status = 200, description = "Everything at once. As a stream: first the same as an event `whole`, then at least once a second an event `step`, whose samples, events and decisions are the new ones alone", body = Live),
        (status = 503, description = "Too many follow already", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn live(State(control): State<Control>, headers: HeaderMap) -> Response {
    let mut viewer = Viewer::new(control.clone());
    if !wants_stream(&headers) {
        return Json(viewer.look()).into_response();
    }
    stream::live(&control, viewer)
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/event-stream"))
}

/// How much of a log.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Lines {
    /// So many lines at the most.
    #[param(minimum = 1, maximum = 1000, default = 100, nullable = false)]
    lines: Option<usize>,
}

/// The last lines of what the backend of a slot has written.
#[utoipa::path(
    get,
    path = "/v1/slots/{service}/{slot}/log",
    tag = "read",
    params(
        ("service" = String, Path, description = "Name of the service"),
        ("slot" = u16, Path, description = "Number of the slot", maximum = 65535),
        Lines,
    ),
    security(("token" = [])),
    responses(
        (status = 200, description = "As it was written", body = String, content_type = "text/plain"),
        (status = 400, description = "Not a number", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Without the token", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not from here", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such service, or nothing runs in the slot", body = Problem, content_type = "application/problem+json"),
        (status = 502, description = "The runtime does not answer", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The controller is ending", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn log(
    State(control): State<Control>,
    place: Result<Path<(String, u16)>, PathRejection>,
    query: Result<Query<Lines>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path((service, slot)) = place.map_err(|error| Problem::of_path(&error))?;
    let Query(Lines { lines }) = query.map_err(|error| Problem::of_query(&error))?;
    let lines = lines.unwrap_or(100);
    if !(1..=LOG_LINES).contains(&lines) {
        let text = format!("lines must be from 1 to {LOG_LINES}, not {lines}");
        return Err(Problem::new(StatusCode::BAD_REQUEST, text));
    }
    let command = |answer| Command::Log {
        service,
        slot,
        lines,
        answer,
    };
    let text = ask(&control, command).await?;
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((kind, text).into_response())
}
