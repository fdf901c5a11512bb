//! Everything that goes wrong, and the status that says so.

use std::{io, path::PathBuf};

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;
use thiserror::Error;

/// Why the copy does not start.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// The data directory is not usable.
    #[error("cannot create the data directory {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The database is not usable.
    #[error("cannot open the database {}: {source}", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// What it said.
        source: Error,
    },
    /// The port cannot be had.
    #[error("cannot listen on port {port}: {source}")]
    Listen {
        /// The port.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
    /// The runtime or a signal handler cannot be had.
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
}

/// Why a request fails. The text is the `error` of the JSON answer.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("the body ends early: {0}")]
    Body(axum::Error),
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("the body is not the JSON that is expected here: {0}")]
    Json(serde_json::Error),
    #[error("imgB64 is not base64: {0}")]
    Image(base64::DecodeError),
    #[error("{field} must not be empty")]
    Empty { field: &'static str },
    #[error("exactly one {item} is expected")]
    NotOne { item: &'static str },
    #[error("start and end are both given or both left out, and 1 <= start <= end")]
    Range,
    #[error("more than {limit} acts at once: ask for less with start and end")]
    TooManyActs { limit: u32 },
    #[error("more than {limit} bytes of pictures at once: ask for less with start and end")]
    TooManyBytes { limit: u64 },
    #[error("there is no category {name:?}: POST [{name:?}] to /api/v1/categories creates it")]
    UnknownCategory { name: String },
    #[error("there is no category {name:?}")]
    NoCategory { name: String },
    #[error("there is a category {name:?} already")]
    CategoryExists { name: String },
    #[error("there is no act {id}")]
    NoAct { id: i64 },
    #[error("there is an act {id} already")]
    ActExists { id: i64 },
    #[error("there is nothing at this address")]
    NoRoute,
    #[error("this address does not know the method")]
    NoMethod,
    #[error("the database: {0}")]
    Store(#[from] rusqlite::Error),
    #[error("the database file {} is not there: {source}", path.display())]
    StoreGone { path: PathBuf, source: io::Error },
    #[error("the database does not return what was written to it")]
    StoreForgets,
    #[error("the query was given up")]
    QueryLost,
}

impl Error {
    fn status(&self) -> StatusCode {
        match self {
            Self::BodyTooLarge { .. } | Self::TooManyActs { .. } | Self::TooManyBytes { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::Body(_)
            | Self::Json(_)
            | Self::Image(_)
            | Self::Empty { .. }
            | Self::NotOne { .. }
            | Self::Range
            | Self::UnknownCategory { .. }
            | Self::CategoryExists { .. }
            | Self::ActExists { .. } => StatusCode::BAD_REQUEST,
            Self::NoCategory { .. } | Self::NoAct { .. } | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::Store(_) | Self::StoreGone { .. } | Self::StoreForgets | Self::QueryLost => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            eprintln!("acts: {self}");
        }
        (status, Json(json!({ "error": self.to_string() }))).into_response()
    }
}
