//! A controller of its own for a test: own sockets, pins, directories, ports. It goes, with all that
//! it made, when it is dropped.

mod place;
mod programs;
mod remains;
mod settings;
mod watch;

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::Ordering,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use self::place::{CONTROLLERS, LISTEN, NEXT, PLACE, ROOM, SLOTS};
pub use self::{
    programs::{IMAGE, acts, binary, cna, docker, ensure_image},
    settings::{Kind, Settings},
};
use crate::{
    client::{self, Answer},
    wait::until,
};

/// A controller. See the module.
#[derive(Debug)]
pub struct Orch {
    /// What it was set up with.
    pub settings: Settings,
    /// The service's port.
    pub listen: u16,
    /// Slot 0's port.
    pub start_port: u16,
    /// Its own directory.
    pub dir: TempDir,
    number: u16,
    child: Option<Child>,
}

impl Orch {
    /// Ports, directory and file, and nothing that runs.
    pub fn prepare(settings: Settings) -> Self {
        crate::leftovers::once();
        if settings.kind == Kind::Docker {
            ensure_image(IMAGE, "acts", &acts());
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let ports = CONTROLLERS * PLACE.0 + number % CONTROLLERS;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let orch = Self {
            settings,
            number,
            listen: LISTEN + ports,
            start_port: SLOTS + ROOM * ports,
            dir,
            child: None,
        };
        orch.write_file(&orch.text());
        orch
    }

    /// A controller whose copies are all in the ring.
    pub fn start(settings: Settings) -> Self {
        let mut orch = Self::prepare(settings);
        orch.launch();
        orch.wait_ready(orch.settings.copies);
        orch
    }

    /// The file's path.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("orch.toml")
    }

    /// The control socket's path.
    pub fn control(&self) -> PathBuf {
        self.dir.path().join("orch.sock")
    }

    /// The directory of the pins.
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(self.volume())
    }

    /// The volume that the copies share.
    pub fn volume(&self) -> String {
        format!("orch-e2e-{}-{}", std::process::id(), self.number)
    }

    /// Writes the file.
    pub fn write_file(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    /// `orch` with these arguments, told which controller is meant.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).env("ORCH_CONTROL", self.control());
        let env = &self.settings.env;
        command.envs(env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a verb to its end.
    pub fn verb(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a verb prints as JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.verb(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// `orch run`, which is expected to end by itself: its exit code and what it said.
    pub fn refused(&self) -> (i32, String) {
        let file = self.file();
        let output = self.verb(&["run", "--quiet", "-f", file.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap_or(-1), text)
    }

    /// Starts `orch run`.
    pub fn launch(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let file = self.file();
        let mut command = self.command(&["run", "-f", file.to_str().unwrap()]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().unwrap().id() as i32)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        until("the controller ends", || child.try_wait().unwrap())
    }

    /// Sends it a signal and waits for its end.
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.ended()
    }

    /// `orch scale`.
    pub fn scale(&self, copies: u16) {
        let output = self.verb(&["scale", &format!("acts={copies}")]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
    }

    /// Where local clients connect.
    pub fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.listen).into()
    }

    /// A slot's own port.
    pub fn slot_address(&self, slot: u16) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.start_port + slot).into()
    }

    /// Asks the service once.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        client::once(self.address(), method, path, body).unwrap()
    }

    /// `orch down`.
    pub fn down(&self) -> Output {
        let file = self.file();
        self.verb(&["down", "-f", file.to_str().unwrap()])
    }
}

impl Drop for Orch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of the controller\n{}----", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            let _ = child.wait();
        }
        // A test may have broken the file, or cut the way to the engine.
        self.write_file(&self.text());
        self.settings.env.clear();
        let _ = self.down();
        let _ = Command::new("docker")
            .args(["volume", "rm", "-f", &self.volume()])
            .output();
    }
}
