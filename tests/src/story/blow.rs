//! What may befall a copy, and what its clients may notice of it.

use std::{
    fs,
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use orch::view::SlotRow;

use crate::{
    client::{self, Client, head},
    orch::{Orch, docker},
};

/// What is done to a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL of its first process.
    Sigkill,
    /// `docker kill`.
    Kill,
    /// `docker stop`.
    Stop,
    /// `docker rm -f`.
    Remove,
    /// It answers 500 from then on.
    Crash,
    /// `docker pause`.
    Pause,
    /// It closes its listener, and lives: the demo service does on SIGTERM, while it finishes a
    /// request. Neither the engine nor the controller is told.
    Close,
    /// One copy fewer is wanted.
    ScaleDown,
    /// SIGKILL of the process that takes the connections, while its parent holds the listener.
    Worker,
}

impl Blow {
    /// All that there is for containers.
    pub const ALL: [Self; 8] = [
        Self::Sigkill,
        Self::Kill,
        Self::Stop,
        Self::Remove,
        Self::Crash,
        Self::Pause,
        Self::Close,
        Self::ScaleDown,
    ];

    /// Its name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sigkill => "SIGKILL",
            Self::Kill => "docker kill",
            Self::Stop => "docker stop",
            Self::Remove => "docker rm -f",
            Self::Crash => "_crash",
            Self::Pause => "docker pause",
            Self::Close => "listener closed",
            Self::ScaleDown => "scale-down",
            Self::Worker => "worker killed",
        }
    }

    /// Strikes the copy, of `copies`, and waits until as many are ready. Gives the moment of the
    /// blow.
    pub fn strike(self, orch: &Orch, row: &SlotRow, copies: u16) -> Instant {
        let id = row.backend.as_str();
        let pid = match self {
            Self::Worker => only_child(id),
            _ => first_process(id),
        };
        let held = (self == Self::Close).then(|| hold(orch, row.slot));
        let struck = Instant::now();
        let client = match self {
            Self::Sigkill | Self::Worker => signal(pid, Signal::SIGKILL),
            Self::Close => signal(pid, Signal::SIGTERM),
            Self::Kill => Some(engine(&["kill", id])),
            Self::Stop => Some(engine(&["stop", id])),
            Self::Remove => Some(engine(&["rm", "-f", id])),
            Self::Pause => Some(engine(&["pause", id])),
            Self::Crash => {
                let address = orch.slot_address(row.slot);
                let answer = client::once(address, "POST", "/api/v1/_crash", "").unwrap();
                assert_eq!(answer.status, 200);
                None
            }
            Self::ScaleDown => {
                orch.scale(copies - 1);
                orch.wait_ready(copies - 1);
                orch.scale(copies);
                None
            }
        };
        if held.is_some() {
            orch.until("the deaf copy is out of the ring", || {
                let now = orch.slot(row.slot)?;
                (now.state != "ready" || now.backend != id).then_some(())
            });
        }
        drop(held);
        orch.until(&format!("another copy after {}", self.name()), || {
            let now = orch.slot(row.slot)?;
            (now.backend != id && now.state == "ready" && now.healthy).then_some(())
        });
        // One that was paused may have been removed under the engine's client: it says so.
        client.map(|mut client| client.wait());
        struck
    }
}

/// Asks the copy for something that lasts until the connection is dropped: its body never ends.
fn hold(orch: &Orch, slot: u16) -> Client<TcpStream> {
    let mut client = Client::connect(orch.slot_address(slot)).unwrap();
    let head = head("POST", "/api/v1/categories", 100, "");
    client.send(format!("{head}[").as_bytes()).unwrap();
    // The request must be inside before the blow. Nothing shows it, so it gets the time.
    std::thread::sleep(Duration::from_millis(50));
    client
}

fn first_process(id: &str) -> Pid {
    let printed = docker(&["inspect", "--format={{.State.Pid}}", id]);
    Pid::from_raw(printed.trim().parse().unwrap())
}

/// The one child of a backend that is a process: its id begins with its pid.
fn only_child(id: &str) -> Pid {
    let pid: String = id.chars().take_while(char::is_ascii_digit).collect();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    Pid::from_raw(children.trim().parse().unwrap())
}

fn signal(pid: Pid, signal: Signal) -> Option<Child> {
    kill(pid, signal).unwrap();
    None
}

/// The engine's client takes its time to end, so nobody waits for it here.
fn engine(args: &[&str]) -> Child {
    let mut client = Command::new("docker");
    client.args(args).stdout(Stdio::null());
    client.stderr(Stdio::null()).spawn().unwrap()
}
