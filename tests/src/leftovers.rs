//! What a killed run of tests left. Pinned programs stay attached to the whole host: the connections
//! of the next run would go to copies that are gone.

use std::{fs, path::Path, process::Command, sync::Once};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait::until;

static SWEPT: Once = Once::new();

/// Sweeps, once in a process. Whatever makes such things calls this first.
pub fn once() {
    SWEPT.call_once(sweep);
}

/// Removes pins, namespaces, containers and volumes of test processes that are no more, and ends the
/// copies that their controllers left running. Other processes may do the same meanwhile.
pub fn sweep() {
    for copy in copies() {
        let _ = kill(copy, Signal::SIGKILL);
    }
    for name in orphans("/sys/fs/bpf") {
        let pins = Path::new("/sys/fs/bpf").join(&name);
        until("old pins go", || {
            let _ = fs::remove_dir_all(&pins);
            (!pins.exists()).then_some(())
        });
        remove_containers(&name);
    }
    for name in orphans("/run/netns") {
        until("an old namespace goes", || {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
            (!Path::new("/run/netns").join(&name).exists()).then_some(())
        });
    }
}

/// Names in a directory that tests gave, and whose process has ended.
fn orphans(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| is_gone(name)).collect()
}

/// Processes that were started with a volume of a controller of a test that is no more: they have
/// ports that others want.
fn copies() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| is_left(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()))
        .map(Pid::from_raw)
        .collect()
}

/// Whether an argument ends with the name of such a volume.
fn is_left(arguments: &[u8]) -> bool {
    let arguments = String::from_utf8_lossy(arguments);
    arguments.split('\0').any(|argument| {
        let name = argument.rsplit('/').next().unwrap_or_default();
        argument.contains("/volumes/orch-e2e-") && is_gone(name)
    })
}

/// Whether the process that gave such a name has ended.
fn is_gone(name: &str) -> bool {
    maker(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// The process in a name such as `orch-e2e-4711-0`, `orch-test-4711-3` or `orch-flood-4711`.
fn maker(name: &str) -> Option<u32> {
    let mut words = name.strip_prefix("orch-")?.split('-');
    words.find_map(|word| word.parse().ok())
}

/// Containers that share the volume of a controller of a test, and the volume.
fn remove_containers(volume: &str) {
    let docker = |args: &[&str]| Command::new("docker").args(args).output();
    let filter = format!("volume={volume}");
    let Ok(found) = docker(&["ps", "-aq", "--filter", &filter]) else {
        return; // No engine, and so no containers.
    };
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    for id in found.lines() {
        let _ = docker(&["rm", "-f", id]);
    }
    let _ = docker(&["volume", "rm", "-f", volume]);
}
