//! One controller at a time: a locked file beside the control socket. It says who holds it and
//! what that controller set up, so that `orch down` finds it after a crash, too.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::config::Config;

/// The lock, held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
    /// What the file said before it was signed.
    before: Option<String>,
}

/// What the file says of who holds it, or held it last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its pid.
    pub pid: Option<i32>,
    /// Its `state_dir`.
    pub state_dir: Option<PathBuf>,
    /// Its `dataplane.pin_dir`.
    pub pin_dir: Option<PathBuf>,
}

/// Why the lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A controller runs.
    #[error(
        "another controller runs already{}: end it first, or give this one its own control, status and pin_dir",
        pid_of(holder)
    )]
    Held {
        /// What it said of itself.
        holder: Holder,
    },
    /// The file cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn pid_of(holder: &Holder) -> String {
    holder
        .pid
        .map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

impl Lock {
    /// Where the lock of this control socket is.
    pub fn path_for(control: &Path) -> PathBuf {
        let mut path = control.as_os_str().to_owned();
        path.push(".lock");
        path.into()
    }

    /// Takes the lock of this control socket, whose directory exists, without waiting.
    pub fn take(control: &Path) -> Result<Self, LockError> {
        let path = Self::path_for(control);
        loop {
            let lock = Self::open(&path)?;
            match lock.file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(LockError::Held {
                        holder: Holder::read(control),
                    });
                }
                Err(TryLockError::Error(source)) => return Err(lock.error(source)),
            }
            // Whoever held it may have removed the file between opening and locking.
            if lock.is_in_place()? {
                return Ok(lock);
            }
        }
    }

    /// Writes down who holds the lock, and what it sets up.
    pub fn sign(&mut self, config: &Config) -> Result<(), LockError> {
        let text = format!(
            "pid={}\nstate_dir={}\npin_dir={}\n",
            std::process::id(),
            config.state_dir.display(),
            config.dataplane.pin_dir.display(),
        );
        let mut before = String::new();
        let read = self.file.rewind();
        read.and_then(|()| self.file.read_to_string(&mut before))
            .map_err(|source| self.error(source))?;
        self.before = Some(before);
        self.write(&text)
    }

    /// Takes the signature back, for a controller that could not begin: what an earlier one wrote
    /// down is still true; where there was none, the file goes.
    pub fn unsign(mut self) -> Result<(), LockError> {
        match self.before.take() {
            Some(before) if !before.is_empty() => self.write(&before),
            _ => self.remove(),
        }
    }

    fn write(&mut self, text: &str) -> Result<(), LockError> {
        let mut write = || {
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(text.as_bytes())
        };
        write().map_err(|source| self.error(source))
    }

    /// Removes the file and gives up the lock.
    pub fn remove(self) -> Result<(), LockError> {
        fs::remove_file(&self.path).map_err(|source| self.error(source))
    }

    fn open(path: &Path) -> Result<Self, LockError> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path);
        let file = opened.map_err(|source| LockError::File {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            file,
            path: path.to_owned(),
            before: None,
        })
    }

    fn is_in_place(&self) -> Result<bool, LockError> {
        let ours = self.file.metadata().map_err(|source| self.error(source))?;
        let there = fs::metadata(&self.path);
        Ok(there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())))
    }

    fn error(&self, source: io::Error) -> LockError {
        LockError::File {
            path: self.path.clone(),
            source,
        }
    }
}

impl Holder {
    /// What the file beside this control socket says; nothing where there is none.
    pub fn read(control: &Path) -> Self {
        let mut text = String::new();
        let file = File::open(Lock::path_for(control));
        let read = file.and_then(|mut file| file.read_to_string(&mut text));
        if read.is_err() {
            return Self::default();
        }
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line?.strip_prefix('=').map(str::to_owned)
        };
        Self {
            pid: value("pid").and_then(|pid| pid.parse().ok()),
            state_dir: value("state_dir").map(PathBuf::from),
            pin_dir: value("pin_dir").map(PathBuf::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    #[test]
    fn two_cannot_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let control = dir.path().join("orch.sock");
        let config = Source::Image("a".to_owned()).load().unwrap();
        let mut lock = Lock::take(&control).unwrap();
        lock.sign(&config).unwrap();
        let error = Lock::take(&control).unwrap_err().to_string();
        let pid = std::process::id();
        assert!(error.contains(&format!("(pid {pid})")), "{error}");
        assert_eq!(
            Holder::read(&control).pin_dir,
            Some(config.dataplane.pin_dir.clone())
        );
        drop(lock);
        let mut next = Lock::take(&control).unwrap();
        let mut other = config.clone();
        other.dataplane.pin_dir = "/elsewhere".into();
        next.sign(&other).unwrap();
        next.unsign().unwrap();
        assert_eq!(
            Holder::read(&control).pin_dir,
            Some(config.dataplane.pin_dir.clone()),
            "one that could not begin takes its signature back"
        );
        Lock::take(&control).unwrap().remove().unwrap();
        let mut first = Lock::take(&control).unwrap();
        first.sign(&config).unwrap();
        first.unsign().unwrap();
        assert!(!Lock::path_for(&control).exists());
        assert_eq!(Holder::read(&control), Holder::default());
    }
}
