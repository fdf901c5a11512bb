//! A mark in the state directory that an instance may have containers, from before the first is made
//! until all are gone: so `orch down` knows of them while the engine does not answer.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::RuntimeError;

/// Says that there may be containers from now on.
pub(super) fn set(state_dir: &Path, instance: &str) -> Result<(), RuntimeError> {
    let path = path(state_dir, instance);
    if path.exists() {
        return Ok(());
    }
    let made = fs::create_dir_all(state_dir).and_then(|()| fs::write(&path, ""));
    made.map_err(|source| RuntimeError::File { path, source })
}

/// Whether there may be any.
pub fn may_have_containers(state_dir: &Path, instance: &str) -> bool {
    path(state_dir, instance).exists()
}

/// Says that there are none.
pub(super) fn remove(state_dir: &Path, instance: &str) {
    // Most often there never was one.
    let _ = fs::remove_file(path(state_dir, instance));
}

/// Instances that share a directory have marks of their own.
fn path(state_dir: &Path, instance: &str) -> PathBuf {
    state_dir.join(format!("containers{}", instance.replace('/', "-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_of_one_instance_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let has = |instance| may_have_containers(&state, instance);
        assert!(!has("/run/a"));
        set(&state, "/run/a").unwrap();
        set(&state, "/run/a").unwrap();
        assert!(has("/run/a") && !has("/run/b"));
        remove(&state, "/run/a");
        assert!(!has("/run/a"));
    }
}
