//! The kernel, and whether it lets us load programs.

use std::{fs, path::Path};

use nix::{sys::utsname::uname, unistd::geteuid};

use super::Finding;
use crate::{
    capabilities,
    dataplane::{SignalHook, signal_hook},
};

/// First with TCX links (Linux 6.6).
const TCX: (u32, u32) = (6, 6);
/// The oldest on which `cargo xtask test vm` runs.
const TESTED: (u32, u32) = (6, 1);
/// First with everything else that is used: `bpf_get_netns_cookie` in TC programs.
const LEAST: (u32, u32) = (5, 15);

pub(super) fn examine() -> Vec<Finding> {
    vec![root(), version(), btf(), signals(), jit(), loading()]
}

fn root() -> Finding {
    if geteuid().is_root() {
        return Finding::ok("user", "root, as `orch run` needs");
    }
    let meaning = "not root: `orch run` will not start, and some checks below see less";
    Finding::warn("user", meaning, "sudo orch doctor")
}

fn version() -> Finding {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned());
    judge(&release.unwrap_or_default())
}

fn judge(release: &str) -> Finding {
    let what = "kernel";
    match parse(release) {
        None => {
            let meaning = format!("{release:?} is a version that cannot be read");
            Finding::warn(what, meaning, "compare it with 6.6 yourself")
        }
        Some(version) if version >= TCX => {
            let meaning = format!("{release}: TCX, so other programs on the uplink do no harm");
            Finding::ok(what, meaning)
        }
        Some(version) if version >= LEAST && version < TESTED => {
            let meaning = format!("{release}: older than 6.1, the oldest kernel that is tested");
            Finding::warn(what, meaning, "use Linux 6.6 or later where you can")
        }
        Some(version) if version >= TESTED => {
            let meaning = format!(
                "{release}: no TCX before 6.6: filters of clsact instead, which others can remove"
            );
            Finding::warn(what, meaning, "use Linux 6.6 or later where you can")
        }
        Some(_) => {
            let meaning = format!("{release} is too old for the kernel programs");
            Finding::fail(what, meaning, "use Linux 6.6 or later (5.15 at the least)")
        }
    }
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn btf() -> Finding {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Finding::ok(
            "btf",
            "the kernel describes its types: maps are readable with bpftool",
        );
    }
    let meaning = "the kernel does not describe its types (no /sys/kernel/btf/vmlinux)";
    Finding::warn("btf", meaning, "use a kernel with CONFIG_DEBUG_INFO_BTF=y")
}

fn signals() -> Finding {
    let what = "signals";
    match signal_hook() {
        SignalHook::Sent => Finding::ok(
            what,
            "seen as they are sent: `docker stop` takes a container out of its turns at once",
        ),
        SignalHook::Taken => Finding::warn(
            what,
            "seen as they are handled: a container that waits for signals (tini, dumb-init) is in \
             its turns until its end",
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y",
        ),
    }
}

fn jit() -> Finding {
    let path = "/proc/sys/net/core/bpf_jit_enable";
    match fs::read_to_string(path).as_deref().map(str::trim) {
        Ok("0") => Finding::warn(
            "bpf jit",
            "off: every packet costs several times more",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Ok(_) => Finding::ok("bpf jit", "on"),
        Err(_) => Finding::warn(
            "bpf jit",
            format!("{path} cannot be read"),
            "run this as root",
        ),
    }
}

fn loading() -> Finding {
    let state = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if state.contains("[confidentiality]") {
        return Finding::fail(
            "bpf",
            "kernel lockdown \"confidentiality\" forbids programs to read packets' memory",
            "boot without lockdown=confidentiality",
        );
    }
    // Who is not root has been told to be.
    let missing = if geteuid().is_root() {
        capabilities::missing()
    } else {
        Vec::new()
    };
    rights(&missing)
}

fn rights(missing: &[&str]) -> Finding {
    if missing.is_empty() {
        return Finding::ok("bpf", "nothing forbids to load programs");
    }
    Finding::fail(
        "bpf",
        format!(
            "root lacks {} here: no program can be loaded",
            missing.join(", ")
        ),
        "run orch on the host itself, or give its container these capabilities",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn root_without_a_capability_cannot_load() {
        assert_eq!(rights(&[]).level, Level::Ok);
        let finding = rights(&["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(finding.level, Level::Fail);
        assert!(finding.meaning.contains("CAP_BPF, CAP_PERFMON"));
    }

    #[test]
    fn versions_are_judged() {
        for (release, level) in [
            ("6.18.4", Level::Ok),
            ("6.6.0-rc1+deb13", Level::Ok),
            ("6.1.0-25-amd64", Level::Warn),
            ("5.15.0-91-generic", Level::Warn),
            ("5.10.0", Level::Fail),
            ("odd", Level::Warn),
        ] {
            assert_eq!(judge(release).level, level, "{release}");
        }
    }
}
