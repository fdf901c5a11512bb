//! Which controller a verb means.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::{
    api::client::Client,
    config::{Config, ConfigError, DEFAULT_CONTROL, DEFAULT_FILE, Source},
};

/// Which controller: that of a file, or the one behind a socket.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Target {
    /// Configuration file; the controller is the one behind its `control` socket
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) socket: Socket,
}

/// The socket alone, for verbs that use `-f` for something else.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Socket {
    // The environment is read by hand: what stands there must not go before what is said before the verb.
    #[arg(
        long,
        value_name = "PATH",
        help = "Control socket of the controller [env: ORCH_CONTROL] [default: /run/orch/orch.sock]"
    )]
    pub(super) control: Option<PathBuf>,
}

fn from_environment() -> Option<PathBuf> {
    let path = env::var_os("ORCH_CONTROL")?;
    (!path.is_empty()).then(|| path.into())
}

impl Target {
    /// What stands behind the verb, or else before it.
    pub(super) fn or(self, before: Self) -> Self {
        Self {
            file: self.file.or(before.file),
            socket: Socket {
                control: self.socket.control.or(before.socket.control),
            },
        }
    }

    /// The control socket's path.
    pub(super) fn control(&self) -> Result<PathBuf, ConfigError> {
        if let Some(file) = &self.file {
            return Ok(Source::File(file.clone()).load()?.control);
        }
        let named = self.socket.control.clone().or_else(from_environment);
        Ok(named.unwrap_or_else(|| DEFAULT_CONTROL.into()))
    }

    /// A client of the controller.
    pub(super) fn client(&self) -> Result<Client, ConfigError> {
        Ok(Client::new(&self.control()?))
    }

    /// The configuration of the file that is named, if one is.
    pub(super) fn config(&self) -> Result<Option<Config>, ConfigError> {
        let source = self.file.clone().map(Source::File);
        source.map(|source| source.load()).transpose()
    }

    /// The same, or the configuration of the file that lies here.
    pub(super) fn config_or_here(&self) -> Result<Option<Config>, ConfigError> {
        if self.file.is_none() && Path::new(DEFAULT_FILE).exists() {
            return Source::File(DEFAULT_FILE.into()).load().map(Some);
        }
        self.config()
    }
}
