//! Which of the copies this is.

use std::{fs, process};

use serde::Serialize;

/// The name of this copy, as its clients see it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Identity {
    /// The container's id where there is one, else the process id.
    pub(crate) id: String,
    /// The port that it listens on.
    pub(crate) port: u16,
}

impl Identity {
    /// Finds out. An engine gives a container the first twelve digits of its id as host name, and
    /// its program the process id 1; elsewhere all copies share the host's name, even where that
    /// host is a container, so the process id tells them apart.
    pub(crate) fn find(port: u16) -> Self {
        let pid = process::id();
        let name = (pid == 1)
            .then(|| fs::read_to_string("/proc/sys/kernel/hostname").ok())
            .flatten()
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty());
        Self {
            id: name.unwrap_or_else(|| pid.to_string()),
            port,
        }
    }

    /// The value of the `X-Backend` header.
    pub(crate) fn backend(&self) -> String {
        format!("{}:{}", self.id, self.port)
    }
}
