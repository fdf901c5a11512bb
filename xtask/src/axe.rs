//! axe-core, the checker of accessibility that the browser's rung runs in the page: a tool, got when it
//! is first needed and kept below `target/`.

use std::{fs, io, path::PathBuf, process::Command};

use sha2::{Digest, Sha256};

use crate::{error::Error, paths, shell};

/// A Python package that has axe-core 4.12.1 in it, and its digest: pip refuses any other.
const PACKAGE: &str = "axe-playwright-python==0.1.8 \
    --hash=sha256:fdd263c998388f1a8e67cad02677e612d946248bd44d163be5e8650ea31f95f8\n";
const WHEEL: &str = "axe_playwright_python-0.1.8-py3-none-any.whl";
const SCRIPT: &str = "axe_playwright_python/axe.min.js";
/// SHA-256 of the script, for one that was kept.
const DIGEST: &str = "84494fec757e4710dc751c8d7a636e457f4532f08f85c86dc9070133fbff53bc";

/// The script.
pub(crate) fn script() -> Result<PathBuf, Error> {
    let place = paths::target().join("axe");
    let script = place.join(SCRIPT);
    if is_right(&script) {
        return Ok(script);
    }
    let file = |source: io::Error| Error::File {
        path: place.clone(),
        source,
    };
    fs::create_dir_all(&place).map_err(file)?;
    let wanted = place.join("requirements.txt");
    fs::write(&wanted, PACKAGE).map_err(file)?;
    // Debian's Python has pip in virtual environments alone.
    shell::output(
        Command::new("python3")
            .args(["-m", "venv", "venv"])
            .current_dir(&place),
    )?;
    let mut pip = Command::new(place.join("venv/bin/pip"));
    pip.args([
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
    ]);
    shell::output(pip.args(["-r", "requirements.txt"]).current_dir(&place))?;
    let mut unpack = Command::new("python3");
    unpack.args(["-m", "zipfile", "-e", WHEEL, "."]);
    shell::output(unpack.current_dir(&place))?;
    if is_right(&script) {
        return Ok(script);
    }
    Err(Error::NoFile(script))
}

fn is_right(script: &PathBuf) -> bool {
    fs::read(script).is_ok_and(|bytes| {
        let digest = Sha256::digest(bytes);
        format!("{digest:x}") == DIGEST
    })
}
