//! What a later controller has to know and nobody else can tell it, by the service's name:
//! `<state_dir>/<what><instance>.json`. An instance is a control socket; those that share a directory
//! have files of their own.

use std::{
    collections::BTreeMap,
    fs, io,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// A kind of such a file.
#[derive(Debug)]
pub struct Kept<V> {
    name: &'static str,
    values: PhantomData<V>,
}

/// Numbers of copies that were set by hand. They hold until somebody hands back to the policy.
pub const HELD: Kept<u16> = Kept::new("held");
/// Which backends are in which slots, by their identity, written when a spare is put into one: it is still
/// labelled as a spare, and the kernel's table of slots may be gone.
pub const PLACES: Kept<BTreeMap<String, u16>> = Kept::new("places");
/// What slots had counted that are no more, by what was counted.
pub const RETIRED: Kept<BTreeMap<String, u64>> = Kept::new("retired");

impl<V> Kept<V> {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            values: PhantomData,
        }
    }

    fn path(&self, state_dir: &Path, instance: &str) -> PathBuf {
        state_dir.join(format!("{}{}.json", self.name, instance.replace('/', "-")))
    }
}

impl<V: Serialize + DeserializeOwned> Kept<V> {
    /// What an earlier controller has kept. A file that cannot be read is as none, and is told.
    #[must_use]
    pub fn read(&self, state_dir: &Path, instance: &str) -> BTreeMap<String, V> {
        let path = self.path(state_dir, instance);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
            Err(error) => {
                log::warn!("cannot read {}: {error}", path.display());
                return BTreeMap::new();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            log::warn!("{} is not what orch writes: {error}", path.display());
            BTreeMap::new()
        })
    }

    /// Keeps it for the next controller.
    ///
    /// # Errors
    ///
    /// The file, or the one that is to take its place, cannot be written.
    pub fn write(
        &self,
        state_dir: &Path,
        instance: &str,
        values: &BTreeMap<String, V>,
    ) -> io::Result<()> {
        let path = self.path(state_dir, instance);
        if values.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let draft = path.with_extension("tmp");
        fs::write(&draft, serde_json::to_vec(values)?)?;
        fs::rename(&draft, &path)
    }

    fn clear(&self, state_dir: &Path, instance: &str) {
        if let Err(error) = self.write(state_dir, instance, &BTreeMap::new()) {
            let path = self.path(state_dir, instance);
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

/// Forgets it all: nothing of orch is left.
pub fn clear(state_dir: &Path, instance: &str) {
    HELD.clear(state_dir, instance);
    PLACES.clear(state_dir, instance);
    RETIRED.clear(state_dir, instance);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_until_it_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(HELD.read(dir.path(), "/run/a"), BTreeMap::new());
        let held = BTreeMap::from([("acts".to_owned(), 3), ("b".to_owned(), 0)]);
        HELD.write(dir.path(), "/run/a", &held).unwrap();
        let places = BTreeMap::from([("acts".to_owned(), BTreeMap::from([("1f".to_owned(), 2)]))]);
        PLACES.write(dir.path(), "/run/a", &places).unwrap();
        assert_eq!(HELD.read(dir.path(), "/run/a"), held);
        assert_eq!(PLACES.read(dir.path(), "/run/a"), places);
        assert_eq!(
            HELD.read(dir.path(), "/run/b"),
            BTreeMap::new(),
            "another's"
        );
        clear(dir.path(), "/run/a");
        assert_eq!(HELD.read(dir.path(), "/run/a"), BTreeMap::new());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        clear(dir.path(), "/run/a");
    }

    #[test]
    fn rubbish_is_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(HELD.path(dir.path(), "/run/a"), b"{\"acts\": -1}").unwrap();
        assert_eq!(HELD.read(dir.path(), "/run/a"), BTreeMap::new());
    }
}
