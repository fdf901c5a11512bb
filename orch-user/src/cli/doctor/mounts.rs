//! The file systems that programs and hooks need.

use std::fs;

use super::Finding;
use crate::config::{Config, Local};

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    vec![
        bpffs(&mounts, config),
        cgroup2(&mounts, config.dataplane.local),
    ]
}

fn bpffs(mounts: &str, config: &Config) -> Finding {
    let pins = config.dataplane.pin_dir.display();
    match mount_point(mounts, "bpf") {
        Some(at) if config.dataplane.pin_dir.starts_with(at) => Finding::ok(
            "bpffs",
            format!("at {at}: maps and links are pinned at {pins}"),
        ),
        Some(at) => {
            let meaning = format!("at {at}, but pin_dir is {pins}, which is not below it");
            Finding::fail(
                "bpffs",
                meaning,
                format!("set dataplane.pin_dir below {at}"),
            )
        }
        None => Finding::ok("bpffs", "not mounted; `orch run` mounts it at /sys/fs/bpf"),
    }
}

fn cgroup2(mounts: &str, local: Local) -> Finding {
    if local == Local::Off {
        return Finding::ok("cgroup2", "not needed: local = \"off\"");
    }
    let cure = "mount -t cgroup2 none /sys/fs/cgroup/unified, or set dataplane.local = \"off\"";
    match (mount_point(mounts, "cgroup2"), local) {
        (Some(at), _) => {
            let meaning = format!("at {at}: clients on this host are balanced when they connect");
            Finding::ok("cgroup2", meaning)
        }
        (None, Local::Connect) => Finding::fail(
            "cgroup2",
            "not mounted, and local = \"connect\" needs it",
            cure,
        ),
        (None, _) => {
            let meaning = "not mounted: clients on this host are not balanced, only those outside";
            Finding::warn("cgroup2", meaning, cure)
        }
    }
}

/// Where the first file system of a kind is mounted.
fn mount_point<'a>(mounts: &'a str, kind: &str) -> Option<&'a str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let at = fields.next()?;
        (fields.next()? == kind).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn cgroup2_matters_as_far_as_the_file_says() {
        let hybrid = "none /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2(hybrid, Local::Connect).level, Level::Ok);
        assert_eq!(cgroup2("", Local::Connect).level, Level::Fail);
        assert_eq!(cgroup2("", Local::Auto).level, Level::Warn);
        assert_eq!(cgroup2("", Local::Off).level, Level::Ok);
    }
}
