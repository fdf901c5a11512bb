//! The Docker engine, through its own client.

use std::{fs, process::Command};

use crate::{error::Error, paths, shell};

/// The image of an example.
pub(crate) fn image(name: &str) -> String {
    format!("{name}:demo")
}

/// Whether there is a client and an engine answers it.
pub(crate) fn answers() -> bool {
    shell::succeeds(docker().args(["version", "--format", "{{.Server.Version}}"]))
}

/// Builds an example's image from its static binary.
pub(crate) fn build_image(name: &str) -> Result<(), Error> {
    let context = tempfile::tempdir().map_err(|source| Error::File {
        path: std::env::temp_dir(),
        source,
    })?;
    let dockerfile = paths::root().join("examples").join(name).join("Dockerfile");
    for (from, name) in [(dockerfile, "Dockerfile"), (paths::example(name), name)] {
        fs::copy(&from, context.path().join(name))
            .map_err(|source| Error::File { path: from, source })?;
    }
    let mut build = docker();
    // The old builder is in every client; the new one is a plug-in that may be missing.
    build.env("DOCKER_BUILDKIT", "0");
    build.args(["build", "--quiet", "--force-rm", "--tag", &image(name)]);
    shell::output(build.arg(context.path())).map(drop)
}

fn docker() -> Command {
    shell::command("docker")
}
