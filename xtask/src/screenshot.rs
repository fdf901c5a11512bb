//! `cargo xtask screenshot`: the pictures of the status page in `docs/`.

use std::fs;

use crate::{build, error::Error, host::Need, paths, rung, shell};

/// Runs the test that takes them, as long as the charts need to have something to show.
pub(crate) fn screenshot() -> Result<(), Error> {
    for need in [Need::Root, Need::Browser] {
        if let Some(missing) = need.missing() {
            return Err(Error::Missing(missing));
        }
    }
    build::orch()?;
    build::acts()?;
    let docs = paths::root().join("docs");
    fs::create_dir_all(&docs).map_err(|source| Error::File {
        path: docs.clone(),
        source,
    })?;
    let mut cargo = shell::cargo("test");
    cargo.args(["--package", "orch-tests", "--test", "browser"]);
    cargo.env("ORCH_BIN", paths::orch());
    cargo.env("ACTS_BIN", paths::acts());
    cargo.env("ORCH_SCREENSHOTS", docs);
    rung::as_root(&mut cargo);
    shell::run(cargo.args(["--", "pictures_of_the_page"]))
}
