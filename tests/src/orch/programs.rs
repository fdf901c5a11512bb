//! Which programs and images do the tests run?

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::netns::run;

/// The demo service's image.
pub const IMAGE: &str = "acts:demo";

/// Runs `docker`, and gives what it prints.
pub fn docker(args: &[&str]) -> String {
    let output = run("docker", args);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The binary under test.
pub fn binary() -> PathBuf {
    program("ORCH_BIN", &["release/orch", "debug/orch"])
}

/// The demo service's static binary.
pub fn acts() -> PathBuf {
    program("ACTS_BIN", &["acts/acts", "release/acts", "debug/acts"])
}

/// The static binary of the example `cna`.
pub fn cna() -> PathBuf {
    program("CNA_BIN", &["cna/cna", "release/cna", "debug/cna"])
}

fn program(variable: &str, usual: &[&str]) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let mut paths = usual.iter().map(|path| target.join(path));
    let found = paths.find(|path| path.is_file());
    let found = found.unwrap_or_else(|| panic!("build {usual:?} first, or set {variable}"));
    found.canonicalize().unwrap()
}

/// Builds an example's image of its binary if it is not there.
pub fn ensure_image(image: &str, example: &str, binary: &Path) {
    let there = Command::new("docker")
        .args(["image", "inspect", image])
        .output();
    if there.unwrap().status.success() {
        return;
    }
    let context = tempfile::tempdir().unwrap();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let recipe = examples.join(example).join("Dockerfile");
    fs::copy(recipe, context.path().join("Dockerfile")).unwrap();
    fs::copy(binary, context.path().join(example)).unwrap();
    let built = Command::new("docker")
        .env("DOCKER_BUILDKIT", "0")
        .args(["build", "--quiet", "--force-rm", "--tag", image])
        .arg(context.path())
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
}
