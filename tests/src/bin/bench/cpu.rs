//! CPU time that a measurement has used up: what a rate would be made of on a machine that does
//! nothing else. Compilers beside the benchmark halve its rates, but hardly change this.

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt, path::Path};

use crate::{Result, topology::Topology};

/// Clock ticks per second in `/proc/PID/stat`: `USER_HZ`, 100 on every architecture with eBPF JIT.
const TICKS: f64 = 100.0;
/// Fields of `/proc/PID/stat` behind the name (`proc_pid_stat(5)`): user and system time.
const OWN: usize = 11;
/// The same of children that have ended and were waited for.
const CHILDREN: usize = 13;

/// Seconds of CPU time that the threads of a process have used, by the scheduler's clock: the ticks
/// of `/proc/PID/stat` are coarse for one that mostly sleeps, and wakes with them.
pub(crate) fn of_process(id: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for entry in fs::read_dir(format!("/proc/{id}/task"))?.flatten() {
        // It may have ended meanwhile.
        let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
        let ran = text.split(' ').next().and_then(|word| word.parse().ok());
        nanoseconds += ran.unwrap_or(0.0);
    }
    Ok(nanoseconds / 1e9)
}

/// Seconds of CPU time so far of everything that runs in the namespaces of a measurement, of the
/// programs that have ended, and of the kernel's threads for packets. Packets are mostly moved at
/// the expense of the one who sends, so that little is missing.
pub(crate) fn of_measurement(topology: &Topology) -> Result<f64> {
    let inode = |name: &str| Ok(fs::metadata(format!("/run/netns/{name}"))?.ino());
    let inside = topology
        .names()
        .map(inode)
        .collect::<Result<HashSet<u64>>>()?;
    let mut sum = seconds("self", CHILDREN)?;
    for entry in fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let Some(id) = name.to_str().filter(|id| id.parse::<u32>().is_ok()) else {
            continue;
        };
        let is_inside =
            fs::metadata(path.join("ns/net")).is_ok_and(|ns| inside.contains(&ns.ino()));
        if is_inside || moves_packets(&path) {
            // It may have ended meanwhile.
            sum += seconds(id, OWN).unwrap_or(0.0);
        }
    }
    Ok(sum)
}

fn moves_packets(process: &Path) -> bool {
    fs::read_to_string(process.join("comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"))
}

fn seconds(id: &str, first: usize) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name in parentheses may hold spaces.
    let (_, rest) = text.rsplit_once(')').ok_or("no name in stat")?;
    let mut fields = rest.split_whitespace().skip(first);
    let mut next = || -> Result<f64> { Ok(fields.next().ok_or("stat is short")?.parse()?) };
    Ok((next()? + next()?) / TICKS)
}
