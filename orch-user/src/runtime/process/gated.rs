//! Spares that are processes. What one is to become depends on its slot, whose port is in its words
//! and its environment: its gate reads them from a file when it is opened.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tokio::time::sleep;

use super::{in_file, launch::Text, start::Start};
use crate::runtime::{Order, RuntimeError};

/// How often the gate's file may be found open for writing, and the pause between two tries.
const BUSY_LIMIT: u32 = 1000;
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// Starts the gate. Gives its pid. The file has just been written, perhaps: a child that another thread
/// forked meanwhile holds it open until it executes its own program, and so long it is "busy"
/// (ETXTBSY, execve(2)).
pub(super) async fn spawn(
    order: &Order,
    gate: &Path,
    dir: &Path,
    start: &Start,
) -> Result<i32, RuntimeError> {
    for _ in 0..BUSY_LIMIT {
        match spawn_once(order, gate, dir, start) {
            Err(RuntimeError::Spawn { source, .. })
                if source.kind() == io::ErrorKind::ExecutableFileBusy => {}
            result => return result,
        }
        sleep(BUSY_PAUSE).await;
    }
    spawn_once(order, gate, dir, start)
}

/// Starts it as the leader of a process group of its own, as a program would be.
fn spawn_once(order: &Order, gate: &Path, dir: &Path, start: &Start) -> Result<i32, RuntimeError> {
    let failed = |source| RuntimeError::Spawn {
        program: gate.display().to_string(),
        service: order.service.clone(),
        source,
    };
    let child = Command::new(gate)
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(start.output().map_err(failed)?)
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    i32::try_from(child.id()).map_err(|_| failed(io::ErrorKind::InvalidData.into()))
}

/// Writes what the gate with this pid is to become, for it alone to read.
pub(super) fn tell(dir: &Path, pid: u32, text: &Text, log: &Path) -> Result<(), RuntimeError> {
    let path = path(dir, pid);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&path).map_err(in_file(&path))?;
    file.write_all(&words(text, log)).map_err(in_file(&path))
}

/// Removes what one that was never opened has not.
pub(super) fn forget(dir: &Path, pid: i32) {
    // Most often it is gone.
    let _ = fs::remove_file(path(dir, pid.unsigned_abs()));
}

fn path(dir: &Path, pid: u32) -> PathBuf {
    dir.join(format!("{pid}.words"))
}

/// The log, the number of variables, these, the program and its arguments, each ended by a zero
/// byte.
fn words(text: &Text, log: &Path) -> Vec<u8> {
    let log = log.as_os_str().as_encoded_bytes().to_vec();
    let count = text.env.len().to_string().into_bytes();
    let variables = text.env.iter();
    let variables = variables.map(|(name, value)| format!("{name}={value}").into_bytes());
    let command = text.command.iter().map(|word| word.clone().into_bytes());
    let fields = [log, count].into_iter().chain(variables).chain(command);
    fields
        .flat_map(|mut field| {
            field.push(0);
            field
        })
        .collect()
}
