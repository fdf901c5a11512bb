//! The gate, seen from the host: the program that a gated spare runs until it is needed (`gate/` in
//! this crate). It waits for a signal and then becomes the spare's program, as the same process.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{self, Path, PathBuf},
    time::Duration,
};

use nix::sys::statvfs::{FsFlags, statvfs};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{Instant, sleep};

use super::RuntimeError;

/// Its bytes; none where no static program could be linked.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/gate"));
/// Where a container finds it: an image has no reason to use this name.
pub(super) const INSIDE: &str = "/.orch-gate";
/// What opens it. Until it waits for that, it could be lost.
const OPEN: Signal = Signal::IO;
/// How long one that was started may take until it waits, and the pause between two looks.
const WAIT_LIMIT: Duration = Duration::from_secs(10);
const WAIT_PAUSE: Duration = Duration::from_millis(1);

/// The gate's file on this host.
#[derive(Debug)]
pub(super) struct Gate {
    path: PathBuf,
}

impl Gate {
    /// It will be in this directory, and of this instance alone: another one that shares the directory
    /// may end, and remove its own. Containers are told an absolute path.
    pub(super) fn in_dir(state_dir: &Path, instance: &str) -> Self {
        let dir = path::absolute(state_dir).unwrap_or_else(|_| state_dir.to_owned());
        // A colon ends a path where Docker is told what to mount.
        let instance = instance.replace(['/', ':'], "-");
        Self {
            path: dir.join(format!("gate{instance}")),
        }
    }

    /// Writes the file where it is not what it should be, and gives its path. Containers that have
    /// an older one keep theirs.
    pub(super) fn install(&self) -> Result<&Path, RuntimeError> {
        if PROGRAM.is_empty() {
            return Err(RuntimeError::NoGate);
        }
        if fs::read(&self.path).is_ok_and(|bytes| bytes == PROGRAM) {
            return Ok(&self.path);
        }
        let in_file = |source| RuntimeError::File {
            path: self.path.clone(),
            source,
        };
        let draft = self.path.with_extension("tmp");
        fs::create_dir_all(self.path.parent().unwrap_or(&self.path)).map_err(in_file)?;
        fs::write(&draft, PROGRAM).map_err(in_file)?;
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).map_err(in_file)?;
        fs::rename(&draft, &self.path).map_err(in_file)?;
        Ok(&self.path)
    }

    /// Where it is, or will be.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file: nobody waits any more.
    pub(super) fn remove(&self) {
        // Most often there never was one, nor one half written.
        for path in [&self.path, &self.path.with_extension("tmp")] {
            let _ = fs::remove_file(path);
        }
    }

    /// Whether it can be run from where it is.
    pub(super) fn check(&self) -> Result<(), RuntimeError> {
        let path = self.install()?;
        let flags = statvfs(path).map(|found| found.flags());
        if flags.is_ok_and(|flags| flags.contains(FsFlags::ST_NOEXEC)) {
            return Err(RuntimeError::GateNotExecutable {
                path: path.to_owned(),
            });
        }
        Ok(())
    }
}

/// Whether this process waits at a gate, which has this path for it.
pub(super) fn is_closed(pid: u32, gate: &Path) -> bool {
    runs(pid, gate) && waits(pid)
}

/// Waits until the process waits at its gate: only then can that be opened.
pub(super) async fn until_closed(pid: u32, gate: &Path) -> io::Result<()> {
    let begin = Instant::now();
    while !is_closed(pid, gate) {
        if !Path::new(&format!("/proc/{pid}")).exists() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it has ended"));
        }
        if begin.elapsed() > WAIT_LIMIT {
            return Err(io::ErrorKind::TimedOut.into());
        }
        sleep(WAIT_PAUSE).await;
    }
    Ok(())
}

/// Lets the process become its program. One that has done so already is left alone.
pub(super) fn open(pid: u32, gate: &Path) -> io::Result<()> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid_or_none = number.ok_or(io::ErrorKind::InvalidInput)?;
    // First the descriptor, then the look: the signal goes to what was looked at.
    let pidfd = pidfd_open(pid_or_none, PidfdFlags::empty())?;
    if runs(pid, gate) {
        pidfd_send_signal(&pidfd, OPEN)?;
    }
    Ok(())
}

fn runs(pid: u32, gate: &Path) -> bool {
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let program = program.to_string_lossy();
    // Of another version, its file is gone from this host.
    Path::new(program.trim_end_matches(" (deleted)")) == resolved(gate)
}

/// As the kernel names it: a state directory may be a link to another.
fn resolved(gate: &Path) -> PathBuf {
    let (dir, name) = (gate.parent(), gate.file_name());
    let dir = dir.and_then(|dir| fs::canonicalize(dir).ok());
    let path = dir.zip(name).map(|(dir, name)| dir.join(name));
    path.unwrap_or_else(|| gate.to_owned())
}

fn waits(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut lines = status.lines();
    let blocked = lines.find_map(|line| line.strip_prefix("SigBlk:"));
    let mask = blocked.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (OPEN.as_raw() - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn it_is_written_once_and_again_where_it_differs() {
        let dir = tempfile::tempdir().unwrap();
        let gate = Gate::in_dir(&dir.path().join("state"), "/run/a");
        let other = Gate::in_dir(&dir.path().join("state"), "/run/b");
        other.check().unwrap();
        gate.check().unwrap();
        let path = gate.install().unwrap();
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        fs::write(path, "of another version").unwrap();
        assert_eq!(fs::read(gate.install().unwrap()).unwrap(), PROGRAM);
        gate.remove();
        assert!(!gate.path().exists() && other.path().exists());
    }

    #[test]
    fn what_runs_something_else_is_no_gate_and_is_not_signalled() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let gate = Path::new(INSIDE);
        assert!(!is_closed(child.id(), gate));
        open(child.id(), gate).unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
        let error = open(child.id(), gate).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ESRCH));
    }

    /// A gate of this host rather than of a container: its path is another.
    fn start(gate: &Gate, words: &[&str]) -> std::process::Child {
        let child = Command::new(gate.install().unwrap())
            .arg("--")
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let begin = std::time::Instant::now();
        while !waits(child.id()) {
            assert!(begin.elapsed() < WAIT_LIMIT, "it does not wait");
            std::thread::sleep(WAIT_PAUSE);
        }
        child
    }

    #[test]
    fn it_becomes_its_program_with_a_clean_signal_mask() {
        let dir = tempfile::tempdir().unwrap();
        let gate = Gate::in_dir(dir.path(), "/run/a:b");
        let child = start(
            &gate,
            &["grep", "-E", "^(Name|SigBlk|Pid)", "/proc/self/status"],
        );
        let pid = child.id();
        signal(pid, nix::sys::signal::Signal::SIGCONT);
        signal(pid, nix::sys::signal::Signal::SIGIO);
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let fields: Vec<_> = text.split_whitespace().collect();
        let pid = pid.to_string();
        assert_eq!(
            fields,
            ["Name:", "grep", "Pid:", &pid, "SigBlk:", "0000000000000000"]
        );
    }

    #[test]
    fn it_ends_at_once_when_it_is_told_to_and_says_what_cannot_be_run() {
        let dir = tempfile::tempdir().unwrap();
        let gate = Gate::in_dir(dir.path(), "/run/a:b");
        let mut child = start(&gate, &["grep"]);
        signal(child.id(), nix::sys::signal::Signal::SIGTERM);
        assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
        let child = start(&gate, &["/no/such/program"]);
        signal(child.id(), nix::sys::signal::Signal::SIGIO);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(127));
        assert!(said.contains("cannot run /no/such/program"), "{said}");
    }

    fn signal(pid: u32, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal).unwrap();
    }
}
