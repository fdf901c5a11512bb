//! What `/proc` says about processes.

use std::{fs, path::PathBuf, time::Duration};

use nix::unistd::{SysconfVar, sysconf};

/// The fields of `/proc/<pid>/stat` that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// `Z` for a zombie.
    pub(super) state: char,
    /// The process group.
    pub(super) group: i32,
    /// Start, in clock ticks since boot: with the pid, an identity that is never used twice.
    pub(super) start_ticks: u64,
}

impl Stat {
    /// Dead, whether or not somebody has reaped it.
    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// The directory of a process.
pub(super) fn dir(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// `None` if there is no such process.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    parse(&fs::read_to_string(dir(pid).join("stat")).ok()?)
}

fn parse(line: &str) -> Option<Stat> {
    // The command comes second, in parentheses, and may hold anything, even ") R".
    let (_, fields) = line.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    Some(Stat {
        state: fields.next()?.chars().next()?,
        group: fields.nth(1)?.parse().ok()?,
        start_ticks: fields.nth(16)?.parse().ok()?,
    })
}

/// Living members of a process group.
pub(super) fn members(group: i32) -> Vec<i32> {
    let members = living().filter(|(_, stat)| stat.group == group);
    members.map(|(pid, _)| pid).collect()
}

/// Living leaders of process groups.
pub(super) fn leaders() -> Vec<(i32, Stat)> {
    living().filter(|(pid, stat)| stat.group == *pid).collect()
}

fn living() -> impl Iterator<Item = (i32, Stat)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?)))
        .filter(|(_, stat)| !stat.is_dead())
}

/// Time since the process started, 0 if it cannot be told.
pub(super) fn age(start_ticks: u64) -> Duration {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let started = start_ticks as f64 / per_second.max(1) as f64;
    uptime()
        .and_then(|uptime| Duration::try_from_secs_f64(uptime - started).ok())
        .unwrap_or_default()
}

fn uptime() -> Option<f64> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Changes with every boot; empty if it cannot be told.
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_hostile_command_name() {
        let line = "42 (a) Z 9 (b) S 1 42 42 0 -1 4194560 98 0 0 0 0 1 2 3 20 0 1 0 777 1 2";
        let expected = Stat {
            state: 'S',
            group: 42,
            start_ticks: 777,
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("42 (a) S 1"), None);
    }

    #[test]
    fn this_process_lives() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let stat = stat(pid).unwrap();
        assert!(!stat.is_dead());
        assert!(members(stat.group).contains(&pid));
        assert!(age(stat.start_ticks) < Duration::from_hours(1));
    }
}
