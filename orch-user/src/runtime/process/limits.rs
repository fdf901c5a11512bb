//! Limits of processes: a cgroup per backend, `orch/<pid>`, in whichever hierarchy has the
//! controller. Where none does, one warning says that limits are not enforced.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Once,
};

/// Length of a scheduling period in microseconds, the kernel's default.
const PERIOD: f64 = 100_000.0;
/// The smallest share of a period that the kernel accepts.
const LEAST_QUOTA: f64 = 1_000.0;
/// The cgroup that holds those of all backends.
const PARENT: &str = "orch";

/// Enforces limits and says once if it cannot.
#[derive(Debug)]
pub(super) struct Limits {
    warned: Once,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            warned: Once::new(),
        }
    }
}

impl Limits {
    /// Limits a process that has just started; 0 is no limit.
    pub(super) fn apply(&self, pid: i32, memory: u64, cpus: f64) {
        let mut wanted = Vec::new();
        if memory > 0 {
            wanted.push(Limit::Memory(memory));
        }
        if cpus > 0.0 {
            wanted.push(Limit::Cpu((cpus * PERIOD).max(LEAST_QUOTA) as u64));
        }
        for limit in wanted {
            if let Err(error) = limit.apply(&hierarchies(), pid) {
                self.warned.call_once(|| {
                    log::warn!(
                        "limits of processes are not enforced: {}: {error}",
                        limit.controller()
                    );
                });
            }
        }
    }
}

/// Removes the cgroups of a process that is gone.
pub(super) fn remove(pid: i32) {
    for hierarchy in hierarchies() {
        let parent = hierarchy.mount.join(PARENT);
        // Both may be absent, and the parent may be in use.
        if fs::remove_dir(parent.join(pid.to_string())).is_ok() {
            let _ = fs::remove_dir(parent);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    Memory(u64),
    Cpu(u64),
}

impl Limit {
    const fn controller(self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Cpu(_) => "cpu",
        }
    }

    fn setting(self, unified: bool) -> (&'static str, String) {
        match (self, unified) {
            (Self::Memory(bytes), true) => ("memory.max", bytes.to_string()),
            (Self::Memory(bytes), false) => ("memory.limit_in_bytes", bytes.to_string()),
            (Self::Cpu(quota), true) => ("cpu.max", format!("{quota} {PERIOD}")),
            (Self::Cpu(quota), false) => ("cpu.cfs_quota_us", quota.to_string()),
        }
    }

    fn apply(self, hierarchies: &[Hierarchy], pid: i32) -> io::Result<()> {
        let controller = self.controller();
        let hierarchy = hierarchies
            .iter()
            .find(|hierarchy| hierarchy.has(controller))
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    "no cgroup hierarchy has the controller",
                )
            })?;
        let parent = hierarchy.mount.join(PARENT);
        let own = parent.join(pid.to_string());
        fs::create_dir_all(&own)?;
        if hierarchy.unified {
            hand_down(&hierarchy.mount, controller)?;
            hand_down(&parent, controller)?;
        }
        let (file, value) = self.setting(hierarchy.unified);
        fs::write(own.join(file), value)?;
        fs::write(own.join("cgroup.procs"), pid.to_string())
    }
}

/// Gives the children of a cgroup2 directory a controller.
fn hand_down(dir: &Path, controller: &str) -> io::Result<()> {
    let file = dir.join("cgroup.subtree_control");
    let given = fs::read_to_string(&file)?;
    if given.split_whitespace().any(|name| name == controller) {
        return Ok(());
    }
    fs::write(file, format!("+{controller}"))
}

/// A mounted cgroup hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    unified: bool,
    /// Version 1: what it was mounted with.
    options: Vec<String>,
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        if !self.unified {
            return self.options.iter().any(|option| option == controller);
        }
        fs::read_to_string(self.mount.join("cgroup.controllers"))
            .is_ok_and(|names| names.split_whitespace().any(|name| name == controller))
    }
}

fn hierarchies() -> Vec<Hierarchy> {
    parse(&fs::read_to_string("/proc/mounts").unwrap_or_default())
}

fn parse(mounts: &str) -> Vec<Hierarchy> {
    let line = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let mount = PathBuf::from(fields.next()?);
        let unified = match fields.next()? {
            "cgroup2" => true,
            "cgroup" => false,
            _ => return None,
        };
        let options = fields.next()?.split(',').map(str::to_owned).collect();
        Some(Hierarchy {
            mount,
            unified,
            options,
        })
    };
    mounts.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_both_versions_of_cgroups() {
        let mounts = "proc /proc proc rw 0 0\n\
            cgroup /c/memory cgroup rw,memory 0 0\n\
            cgroup2 /c/unified cgroup2 rw,nsdelegate 0 0\n";
        let found = parse(mounts);
        assert_eq!(found.len(), 2);
        assert!(found[0].has("memory") && !found[0].has("cpu") && !found[0].unified);
        assert!(found[1].unified && !found[1].has("memory"));
    }

    #[test]
    fn settings_of_both_versions() {
        assert_eq!(Limit::Cpu(50_000).setting(true).1, "50000 100000");
        assert_eq!(Limit::Memory(1).setting(false).0, "memory.limit_in_bytes");
    }
}
