//! Why no load can be made.

use std::{io, path::PathBuf};

use super::trace::TraceError;

/// Why no load can be made. What becomes of single requests is no error: it is counted.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The arguments do not fit together.
    #[error("{what}")]
    Usage {
        /// A sentence that says what to do.
        what: String,
    },
    /// The URL is none, or not one that this can ask.
    #[error("`{url}` cannot be asked: {why}; as in http://localhost:80/path")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A header is none.
    #[error("`{text}` is no header: write it as 'Name: value'")]
    Header {
        /// As it was given.
        text: String,
    },
    /// A file that is to be read cannot be.
    #[error("cannot read {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A trace is no trace.
    #[error("{} is no trace", path.display())]
    Trace {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: TraceError,
    },
    /// A file that is to be written cannot be.
    #[error("cannot write {}", path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The chart could not be drawn.
    #[error("cannot draw {}: {why}", path.display())]
    Draw {
        /// Its path.
        path: PathBuf,
        /// What the drawing library says.
        why: String,
    },
    /// The URL's host has no address.
    #[error("cannot find the host `{host}`")]
    Host {
        /// Its name.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A part of this process could not be had.
    #[error("cannot prepare {what}")]
    Prepare {
        /// Which part.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl LoadError {
    /// Whether the command line is to blame: exit code 2.
    pub const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Usage { .. }
                | Self::Url { .. }
                | Self::Header { .. }
                | Self::Read { .. }
                | Self::Trace { .. }
        )
    }
}
