//! Requests that change state; on the control socket only.

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::problem::Problem;
use crate::control::{Command, CommandError, Control, Recording};

/// How many copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scale {
    pub(crate) replicas: Replicas,
}

/// A number, or the policy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Replicas {
    /// So many.
    Fixed(u16),
    /// As many as the policy decides.
    Policy(Auto),
}

/// The word `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Auto {
    Auto,
}

/// What was done, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) message: String,
}

pub(super) async fn scale(
    State(control): State<Control>,
    Path(service): Path<String>,
    body: Result<Json<Scale>, JsonRejection>,
) -> Result<Json<Done>, Problem> {
    let Json(Scale { replicas }) = body.map_err(|error| {
        let detail = format!(
            "the body must be {{\"replicas\": N}} or {{\"replicas\": \"auto\"}}: {}",
            error.body_text()
        );
        Problem::new(error.status(), detail)
    })?;
    let to = match replicas {
        Replicas::Fixed(count) => Some(count),
        Replicas::Policy(Auto::Auto) => None,
    };
    let command = |answer| Command::Scale {
        service,
        to,
        answer,
    };
    ask(&control, command).await
}

pub(super) async fn reset(
    State(control): State<Control>,
    Path(service): Path<String>,
) -> Result<Json<Done>, Problem> {
    ask(&control, |answer| Command::Reset { service, answer }).await
}

/// Changes nothing, but only the owner of the state has it.
pub(super) async fn recording(
    State(control): State<Control>,
    Path(service): Path<String>,
) -> Result<Json<Box<Recording>>, Problem> {
    let command = |answer| Command::Record { service, answer };
    Ok(Json(answer(&control, command).await?))
}

async fn ask(
    control: &Control,
    command: impl FnOnce(oneshot::Sender<Result<String, CommandError>>) -> Command,
) -> Result<Json<Done>, Problem> {
    let message = answer(control, command).await?;
    Ok(Json(Done { message }))
}

async fn answer<T>(
    control: &Control,
    command: impl FnOnce(oneshot::Sender<Result<T, CommandError>>) -> Command,
) -> Result<T, Problem> {
    let ending = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the controller is ending");
    let (answer, done) = oneshot::channel();
    let sent = control.commands.send(command(answer)).await;
    sent.map_err(|_| ending())?;
    Ok(done.await.map_err(|_| ending())??)
}
