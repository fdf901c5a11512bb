//! What this host lets us do.

use std::{fs, process::Command};

use crate::{docker, shell};

/// Capability bits, as in `/proc/self/status`.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// Something that a test needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Root,
    Bpf,
    Namespaces,
    Cgroup2,
    Docker,
    Browser,
}

impl Need {
    /// Why the need is not met, or nothing.
    pub(crate) fn missing(self) -> Option<&'static str> {
        let (met, otherwise) = match self {
            Self::Root => (
                is_root() || sudo_is_silent(),
                "needs root, and sudo would ask for a password: run it as root",
            ),
            Self::Bpf => (has_bpf(), "this host does not permit the bpf() system call"),
            Self::Namespaces => (
                shell::find("ip").is_some(),
                "needs the program `ip` (package iproute2) to make network namespaces",
            ),
            Self::Cgroup2 => (has_cgroup2(), "no cgroup2 hierarchy is mounted"),
            Self::Docker => (docker::answers(), "no Docker engine answers"),
            Self::Browser => (
                shell::find("chromedriver").is_some() && shell::find("chromium").is_some(),
                "needs Chromium and its driver (packages chromium, chromium-driver)",
            ),
        };
        (!met).then_some(otherwise)
    }
}

/// Whether this process is root's.
pub(crate) fn is_root() -> bool {
    // "Uid:" is followed by the real and then the effective user.
    status_field("Uid:").and_then(|ids| ids.split_whitespace().nth(1).map(|id| id == "0"))
        == Some(true)
}

/// Whether sudo works without asking.
pub(crate) fn sudo_is_silent() -> bool {
    shell::succeeds(Command::new("sudo").args(["-n", "true"]))
}

fn has_bpf() -> bool {
    if !is_root() {
        // Only root's attempt means anything; sudo's is made by the tests themselves.
        return fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false);
    }
    match shell::find("bpftool") {
        Some(bpftool) => shell::succeeds(Command::new(bpftool).args(["prog", "list"])),
        None => has_capability(CAP_BPF) || has_capability(CAP_SYS_ADMIN),
    }
}

fn has_capability(bit: u32) -> bool {
    status_field("CapEff:")
        .and_then(|bits| u64::from_str_radix(&bits, 16).ok())
        .is_some_and(|bits| bits >> bit & 1 == 1)
}

fn has_cgroup2() -> bool {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts
        .lines()
        .any(|mount| mount.split(' ').nth(2) == Some("cgroup2"))
}

fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}
