//! Where maps and links are pinned, and the lock that keeps a second controller away.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use orch_common::layout::LAYOUT_VERSION;

use super::DataplaneError;

/// The directory of the pins, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Pins {
    root: PathBuf,
    base: PathBuf,
    lock: Flock<File>,
}

impl Pins {
    /// Creates `<pin_dir>/v<LAYOUT_VERSION>` and locks it. Mounts the BPF file system if nobody has.
    pub(super) fn open(pin_dir: &Path) -> Result<Self, DataplaneError> {
        ensure_bpffs(pin_dir)?;
        Self::lock(pin_dir, pin_dir.join(format!("v{LAYOUT_VERSION}")))
    }

    /// The pins of every other layout in the directory, left by another version of this program.
    pub(super) fn others(pin_dir: &Path) -> Result<Vec<Self>, DataplaneError> {
        let Ok(entries) = fs::read_dir(pin_dir) else {
            return Ok(Vec::new());
        };
        let own = format!("v{LAYOUT_VERSION}");
        entries
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                let version = name.to_str().and_then(|name| name.strip_prefix('v'));
                name != *own && version.is_some_and(|version| version.parse::<u32>().is_ok())
            })
            .map(|entry| Self::lock(pin_dir, entry.path()))
            .collect()
    }

    fn lock(pin_dir: &Path, base: PathBuf) -> Result<Self, DataplaneError> {
        ensure(pin_dir, &base)?;
        Ok(Self {
            root: pin_dir.to_owned(),
            lock: lock(&base)?,
            base,
        })
    }

    /// Makes those directories again that somebody has removed, and locks the new one.
    ///
    /// # Errors
    /// Another controller has been quicker.
    pub(super) fn restore(&mut self) -> Result<(), DataplaneError> {
        ensure(&self.root, &self.base)?;
        let id = |file: io::Result<Metadata>| file.map(|file| (file.dev(), file.ino())).ok();
        if id(fs::metadata(&self.base)) != id(self.lock.metadata()) {
            self.lock = lock(&self.base)?;
        }
        Ok(())
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.base.join("maps").join(name)
    }

    /// Where they are.
    pub(super) fn path(&self) -> &Path {
        &self.base
    }

    pub(super) fn link(&self, name: &str) -> PathBuf {
        self.base.join("links").join(name)
    }

    /// Names of all pinned links.
    pub(super) fn links(&self) -> Result<Vec<String>, DataplaneError> {
        let dir = self.base.join("links");
        let entries = fs::read_dir(&dir).map_err(|source| DataplaneError::file(&dir, source))?;
        Ok(entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect())
    }

    /// Removes every pin and the directories. Links go first: a program must not run on after its
    /// maps have been forgotten.
    pub(super) fn remove(self) -> Result<(), DataplaneError> {
        for dir in [self.base.join("links"), self.base.join("maps")] {
            let entries =
                fs::read_dir(&dir).map_err(|source| DataplaneError::file(&dir, source))?;
            for entry in entries.flatten() {
                remove_pin(&entry.path())?;
            }
            fs::remove_dir(&dir).map_err(|source| DataplaneError::file(&dir, source))?;
        }
        fs::remove_dir(&self.base).map_err(|source| DataplaneError::file(&self.base, source))?;
        // Pins of another layout may remain beside ours; then the directory stays.
        let _ = fs::remove_dir(&self.root);
        Ok(())
    }
}

/// Keeps other controllers from the pins in this directory.
fn lock(base: &Path) -> Result<Flock<File>, DataplaneError> {
    let file = File::open(base).map_err(|source| DataplaneError::file(base, source))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == Errno::EWOULDBLOCK {
            DataplaneError::Held {
                path: base.to_owned(),
            }
        } else {
            DataplaneError::file(base, errno)
        }
    })
}

/// Makes the directories that are missing.
fn ensure(pin_dir: &Path, base: &Path) -> Result<(), DataplaneError> {
    for dir in [pin_dir, base, &base.join("maps"), &base.join("links")] {
        if dir == pin_dir && dir.exists() {
            // It may be somebody's mount point: what is ours lies deeper.
            continue;
        }
        fs::create_dir_all(dir).map_err(|source| unmade(dir, source))?;
        // Whoever may read the maps may also write them: nobody but root.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
            .map_err(|source| DataplaneError::file(dir, source))?;
    }
    Ok(())
}

/// Why a directory cannot be made.
fn unmade(dir: &Path, source: io::Error) -> DataplaneError {
    let dotted = dir.to_string_lossy().contains('.');
    if dotted && source.raw_os_error() == Some(Errno::EPERM as i32) {
        return DataplaneError::Dotted {
            path: dir.to_owned(),
        };
    }
    DataplaneError::file(dir, source)
}

/// Removes a pin; one that is gone already is no error.
pub(super) fn remove_pin(path: &Path) -> Result<(), DataplaneError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DataplaneError::file(path, source))
        }
        _ => Ok(()),
    }
}

/// Whether this directory has pins of this layout.
pub(super) fn exist(pin_dir: &Path) -> bool {
    pin_dir.join(format!("v{LAYOUT_VERSION}")).is_dir()
}

/// Whether a link of this name is pinned there.
pub(super) fn has_link(pin_dir: &Path, name: &str) -> bool {
    let links = pin_dir.join(format!("v{LAYOUT_VERSION}")).join("links");
    links.join(name).exists()
}

/// systemd mounts it at boot; a container or a bare init does not.
fn ensure_bpffs(pin_dir: &Path) -> Result<(), DataplaneError> {
    let mount_point = Path::new("/sys/fs/bpf");
    let existing = pin_dir
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(mount_point);
    let is_bpf = |path: &Path| statfs(path).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC);
    if is_bpf(existing) {
        return Ok(());
    }
    let bpffs = |errno: Errno| DataplaneError::Bpffs {
        path: mount_point.to_owned(),
        source: errno.into(),
    };
    if !pin_dir.starts_with(mount_point) {
        return Err(DataplaneError::NotBpffs {
            path: pin_dir.to_owned(),
        });
    }
    mount(
        Some("bpf"),
        mount_point,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        None::<&str>,
    )
    .map_err(bpffs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_in_a_name_is_told_from_missing_rights() {
        let why = |dir: &str, errno: Errno| unmade(Path::new(dir), errno.into()).to_string();
        let text = why("/sys/fs/bpf/orch.d", Errno::EPERM);
        assert!(text.contains("with a dot"), "{text}");
        let text = why("/sys/fs/bpf/orch", Errno::EPERM);
        assert!(!text.contains("dot"), "{text}");
        let text = why("/sys/fs/bpf/orch.d", Errno::ENOSPC);
        assert!(!text.contains("dot"), "{text}");
    }
}
