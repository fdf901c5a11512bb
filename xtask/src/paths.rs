//! Where things are.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Cargo's directory for what it builds.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The release build of the controller.
pub(crate) fn orch() -> PathBuf {
    target().join("release/orch")
}

/// The static build of the demo service.
pub(crate) fn acts() -> PathBuf {
    example("acts")
}

/// The static build of an example. Its `orch-process.toml` names this path, so it does not follow
/// Cargo's directory.
pub(crate) fn example(name: &str) -> PathBuf {
    root().join("target").join(name).join(name)
}

/// Cargo's home, which holds the sources of dependencies and the tools it installed.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
}

/// The path as the repository's own files write it, for messages.
pub(crate) fn short(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}
