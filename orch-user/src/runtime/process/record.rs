//! A record per backend, `<state_dir>/backends/<pid>.json`: how the next controller finds it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{in_file, proc};
use crate::runtime::{Order, RuntimeError};

/// What must be known of a backend to adopt or remove it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) pid: i32,
    /// Start time and boot tell this process from a later one with the same pid.
    pub(super) start_ticks: u64,
    boot: String,
    instance: String,
    pub(super) service: String,
    pub(super) slot: Option<u16>,
    pub(super) port: u16,
    pub(super) spec: String,
    pub(super) log: PathBuf,
}

impl Record {
    /// The record of a child that was not reaped yet.
    pub(super) fn of_child(
        instance: &str,
        order: &Order,
        pid: i32,
        log: PathBuf,
    ) -> io::Result<Self> {
        let stat = proc::stat(pid).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self {
            pid,
            start_ticks: stat.start_ticks,
            boot: proc::boot_id(),
            instance: instance.to_owned(),
            service: order.service.clone(),
            slot: order.slot,
            port: order.slot_port,
            spec: order.spec.clone(),
            log,
        })
    }

    #[cfg(test)]
    pub(super) fn example(instance: &str, pid: i32) -> Self {
        Self {
            pid,
            start_ticks: proc::stat(pid).unwrap().start_ticks,
            boot: proc::boot_id(),
            instance: instance.to_owned(),
            service: "web".to_owned(),
            slot: Some(0),
            port: 8000,
            spec: String::new(),
            log: PathBuf::new(),
        }
    }

    /// Notes that it is in the slot of this order now, and writes there.
    pub(super) fn place(&mut self, order: &Order, log: PathBuf) {
        (self.slot, self.port, self.log) = (order.slot, order.slot_port, log);
    }

    /// Whether the process of this record runs.
    pub(super) fn is_alive(&self) -> bool {
        self.boot == proc::boot_id()
            && proc::stat(self.pid)
                .is_some_and(|stat| stat.start_ticks == self.start_ticks && !stat.is_dead())
    }

    pub(super) fn age(&self) -> Duration {
        proc::age(self.start_ticks)
    }

    /// Writes it so that a reader sees all of it or nothing.
    pub(super) fn write(&self, state_dir: &Path) -> Result<(), RuntimeError> {
        let path = path(state_dir, self.pid);
        let dir = dir(state_dir);
        fs::create_dir_all(&dir).map_err(in_file(&dir))?;
        let text = serde_json::to_vec_pretty(self)
            .map_err(io::Error::from)
            .map_err(in_file(&path))?;
        let draft = path.with_extension("tmp");
        let written = fs::write(&draft, text).map_err(in_file(&draft));
        let placed = written.and_then(|()| fs::rename(&draft, &path).map_err(in_file(&path)));
        placed.inspect_err(|_| {
            // On a full disk an empty one would stay.
            let _ = fs::remove_file(&draft);
        })
    }

    pub(super) fn remove(&self, state_dir: &Path) -> Result<(), RuntimeError> {
        let path = path(state_dir, self.pid);
        // A controller that is killed while it writes leaves one.
        let _ = fs::remove_file(path.with_extension("tmp"));
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RuntimeError::File { path, source })
            }
            _ => Ok(()),
        }
    }
}

/// Every record of an instance.
pub(super) fn all(state_dir: &Path, instance: &str) -> Result<Vec<Record>, RuntimeError> {
    let dir = dir(state_dir);
    let entries = match fs::read_dir(&dir) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(in_file(&dir))?,
    };
    let mut records = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            records.extend(load(&path)?.filter(|record| record.instance == instance));
        }
    }
    records.sort_by_key(|record| (record.port, record.start_ticks));
    Ok(records)
}

/// The record of one pid, if this instance has it.
pub(super) fn read(
    state_dir: &Path,
    instance: &str,
    pid: i32,
) -> Result<Option<Record>, RuntimeError> {
    let record = load(&path(state_dir, pid))?;
    Ok(record.filter(|record| record.instance == instance))
}

fn load(path: &Path) -> Result<Option<Record>, RuntimeError> {
    let text = match fs::read(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(in_file(path))?,
    };
    let record = serde_json::from_slice(&text).inspect_err(|error| {
        log::warn!("ignoring {}: {error}", path.display());
    });
    Ok(record.ok())
}

/// Where records are.
pub(super) fn dir(state_dir: &Path) -> PathBuf {
    state_dir.join("backends")
}

fn path(state_dir: &Path, pid: i32) -> PathBuf {
    dir(state_dir).join(format!("{pid}.json"))
}
