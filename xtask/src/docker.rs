//! The Docker engine, through its own client.

use std::{fs, path::Path, process::Command};

use crate::{error::Error, paths, shell};

/// The image of the demo service.
pub(crate) const ACTS_IMAGE: &str = "acts:demo";

/// Whether there is a client and an engine answers it.
pub(crate) fn answers() -> bool {
    shell::succeeds(docker().args(["version", "--format", "{{.Server.Version}}"]))
}

/// Builds the demo service's image from its static binary.
pub(crate) fn build_acts_image() -> Result<(), Error> {
    let context = tempfile::tempdir().map_err(|source| Error::File {
        path: std::env::temp_dir(),
        source,
    })?;
    let dockerfile = paths::root().join("examples/acts/Dockerfile");
    for (from, name) in [(dockerfile, "Dockerfile"), (paths::acts(), "acts")] {
        fs::copy(&from, context.path().join(name))
            .map_err(|source| Error::File { path: from, source })?;
    }
    build(context.path())
}

fn build(context: &Path) -> Result<(), Error> {
    let mut build = docker();
    // The old builder is in every client; the new one is a plug-in that may be missing.
    build.env("DOCKER_BUILDKIT", "0");
    build.args(["build", "--quiet", "--force-rm", "--tag", ACTS_IMAGE]);
    shell::output(build.arg(context)).map(drop)
}

fn docker() -> Command {
    shell::command("docker")
}
