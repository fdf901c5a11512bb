//! Requests that change state; on the control socket, or with the token.

use axum::{
    Json,
    extract::{
        Path, State,
        rejection::{JsonRejection, PathRejection},
    },
    http::StatusCode,
};
use orch_common::layout::SLOTS_PER_SERVICE;
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use tokio::sync::oneshot;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema, Type},
};

use super::problem::Problem;
use crate::control::{Command, CommandError, Control, Recording, Reply};

/// How many copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scale {
    pub(crate) replicas: Replicas,
}

/// A number, or the policy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Replicas {
    /// So many.
    Fixed(#[serde(deserialize_with = "whole")] u16),
    /// As many as the policy decides.
    Policy(Auto),
}

/// To JSON 3.0 is a whole number, too.
fn whole<'de, D: Deserializer<'de>>(source: D) -> Result<u16, D::Error> {
    let number = f64::deserialize(source)?;
    let fits = number.fract() == 0.0 && (0.0..=f64::from(u16::MAX)).contains(&number);
    fits.then_some(number as u16)
        .ok_or_else(|| D::Error::custom("not a whole number from 0 to 65535"))
}

/// By hand: a derived schema has no greatest number.
impl PartialSchema for Replicas {
    fn schema() -> RefOr<Schema> {
        let fixed = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(0))
            .maximum(Some(SLOTS_PER_SERVICE));
        let word = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["auto"]));
        OneOfBuilder::new().item(fixed).item(word).into()
    }
}

impl ToSchema for Replicas {}

/// The word `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Auto {
    Auto,
}

/// What was done, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Done {
    pub(crate) message: String,
}

/// Overrides the policy of a service, or hands back to it.
#[utoipa::path(
    post,
    path = "/v1/services/{name}/scale",
    tag = "change",
    params(("name" = String, Path, description = "Name of the service")),
    request_body = Scale,
    security(("token" = [])),
    responses(
        (status = 200, description = "Done", body = Done),
        (status = 400, description = "Not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Without the token", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not from here", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such service", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Outside the limits of the file", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not declared as JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not a number of copies", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The controller is ending", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn scale(
    State(control): State<Control>,
    service: Result<Path<String>, PathRejection>,
    body: Result<Json<Scale>, JsonRejection>,
) -> Result<Json<Done>, Problem> {
    let Path(service) = service.map_err(|error| Problem::of_path(&error))?;
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
    done(&control, command).await
}

/// Zeroes the window of a service: the policy goes back to the fewest copies.
#[utoipa::path(
    post,
    path = "/v1/services/{name}/reset",
    tag = "change",
    params(("name" = String, Path, description = "Name of the service")),
    security(("token" = [])),
    responses(
        (status = 200, description = "Done", body = Done),
        (status = 400, description = "Not a name", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Without the token", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not from here", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such service", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The controller is ending", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn reset(
    State(control): State<Control>,
    service: Result<Path<String>, PathRejection>,
) -> Result<Json<Done>, Problem> {
    let Path(service) = service.map_err(|error| Problem::of_path(&error))?;
    done(&control, |answer| Command::Reset { service, answer }).await
}

/// Stops the backend of a slot once its connections have ended; another comes in its place.
#[utoipa::path(
    post,
    path = "/v1/slots/{service}/{slot}/stop",
    tag = "change",
    params(
        ("service" = String, Path, description = "Name of the service"),
        ("slot" = u16, Path, description = "Number of the slot", maximum = 65535),
    ),
    security(("token" = [])),
    responses(
        (status = 200, description = "Begun", body = Done),
        (status = 400, description = "Not a number", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Without the token", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not from here", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such service, or nothing runs in the slot", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The controller is ending", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn stop(
    State(control): State<Control>,
    place: Result<Path<(String, u16)>, PathRejection>,
) -> Result<Json<Done>, Problem> {
    let Path((service, slot)) = place.map_err(|error| Problem::of_path(&error))?;
    let command = |answer| Command::Stop {
        service,
        slot,
        answer,
    };
    done(&control, command).await
}

/// Reads the configuration again, as SIGHUP does.
#[utoipa::path(
    post,
    path = "/v1/reload",
    tag = "change",
    security(("token" = [])),
    responses(
        (status = 200, description = "The new configuration holds", body = Done),
        (status = 401, description = "Without the token", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not from here", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It is refused, the old one stays", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The controller is ending", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn reload(State(control): State<Control>) -> Result<Json<Done>, Problem> {
    let refused = |why: String| Problem::from(CommandError::Refused { why });
    let Some(source) = control.source.as_deref() else {
        return Err(refused("it came from no file".to_owned()));
    };
    let loaded = source
        .load_aside()
        .await
        .map_err(|error| refused(error.to_string()))?;
    let config = Box::new(loaded);
    done(&control, |answer| Command::Reload { config, answer }).await
}

/// What a service's policy was told and has decided. Changes nothing, but only the owner of the
/// state has it.
#[utoipa::path(
    get,
    path = "/v1/services/{name}/recording",
    tag = "read",
    params(("name" = String, Path, description = "Name of the service")),
    security(("token" = [])),
    responses(
        (status = 200, description = "As `orch record --decisions`", body = Object),
        (status = 400, description = "Not a name", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Without the token", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not from here", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such service", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The controller is ending", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn recording(
    State(control): State<Control>,
    service: Result<Path<String>, PathRejection>,
) -> Result<Json<Box<Recording>>, Problem> {
    let Path(service) = service.map_err(|error| Problem::of_path(&error))?;
    let command = |answer| Command::Record { service, answer };
    Ok(Json(ask(&control, command).await?))
}

async fn done(
    control: &Control,
    command: impl FnOnce(Reply) -> Command,
) -> Result<Json<Done>, Problem> {
    let message = ask(control, command).await?;
    Ok(Json(Done { message }))
}

/// Has the owner of the state do it.
pub(super) async fn ask<T>(
    control: &Control,
    command: impl FnOnce(oneshot::Sender<Result<T, CommandError>>) -> Command,
) -> Result<T, Problem> {
    let ending = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the controller is ending");
    let (answer, done) = oneshot::channel();
    let sent = control.commands.send(command(answer)).await;
    sent.map_err(|_| ending())?;
    Ok(done.await.map_err(|_| ending())??)
}
