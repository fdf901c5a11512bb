//! Numbers of copies that were set by hand. They hold until somebody hands back to the policy, so that a
//! later controller has to know them: `<state_dir>/held<instance>.json`. An instance is a control socket; those that
//! share a directory have files of their own.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// By the service's name.
pub type Held = BTreeMap<String, u16>;

fn path(state_dir: &Path, instance: &str) -> PathBuf {
    state_dir.join(format!("held{}.json", instance.replace('/', "-")))
}

/// Those that an earlier controller was told. A file that cannot be read is as none, and is told.
#[must_use]
pub fn read(state_dir: &Path, instance: &str) -> Held {
    let path = path(state_dir, instance);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Held::new(),
        Err(error) => {
            log::warn!("cannot read {}: {error}", path.display());
            return Held::new();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        log::warn!("{} is not what orch writes: {error}", path.display());
        Held::new()
    })
}

/// Keeps them for the next controller.
///
/// # Errors
///
/// The file, or the one that is to take its place, cannot be written.
pub fn write(state_dir: &Path, instance: &str, held: &Held) -> io::Result<()> {
    let path = path(state_dir, instance);
    if held.is_empty() {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let draft = path.with_extension("tmp");
    fs::write(&draft, serde_json::to_vec(held)?)?;
    fs::rename(&draft, &path)
}

/// Forgets them all: nothing of orch is left.
pub fn clear(state_dir: &Path, instance: &str) {
    if let Err(error) = write(state_dir, instance, &Held::new()) {
        let path = path(state_dir, instance);
        log::warn!("cannot remove {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_until_it_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path(), "/run/a"), Held::new());
        let held = Held::from([("acts".to_owned(), 3), ("b".to_owned(), 0)]);
        write(dir.path(), "/run/a", &held).unwrap();
        assert_eq!(read(dir.path(), "/run/a"), held);
        assert_eq!(read(dir.path(), "/run/b"), Held::new(), "another's");
        clear(dir.path(), "/run/a");
        assert_eq!(read(dir.path(), "/run/a"), Held::new());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        clear(dir.path(), "/run/a");
    }

    #[test]
    fn rubbish_is_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(path(dir.path(), "/run/a"), b"{\"acts\": -1}").unwrap();
        assert_eq!(read(dir.path(), "/run/a"), Held::new());
    }
}
