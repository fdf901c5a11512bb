//! Freezing a container by its cgroup. Not by the engine's pause: that takes 8 ms to undo, and a
//! container thawed behind the engine's back is "paused" to it for ever.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::runtime::BackendId;

/// Where a container is frozen: the file, and what is written to it.
#[derive(Debug, PartialEq, Eq)]
struct Switch {
    file: PathBuf,
    frozen: &'static str,
    thawed: &'static str,
}

impl Switch {
    /// Whether its file says that they are frozen, or about to be.
    fn is_on(&self, state: &str) -> bool {
        state.trim() != self.thawed
    }
}

/// Takes the processor from all processes of a container, or gives it back. `pid` is its first.
pub(super) fn set(id: &BackendId, pid: u32, frozen: bool) -> io::Result<()> {
    let switch = find(id, pid)?;
    fs::write(
        switch.file,
        if frozen { switch.frozen } else { switch.thawed },
    )
}

/// Whether they have none now, be it by the engine's pause. Where that cannot be seen, they are
/// thought to run.
pub(super) fn is_frozen(id: &BackendId, pid: u32) -> bool {
    let switch = find(id, pid);
    switch.is_ok_and(|switch| {
        let state = fs::read_to_string(&switch.file);
        state.is_ok_and(|state| switch.is_on(&state))
    })
}

fn find(id: &BackendId, pid: u32) -> io::Result<Switch> {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    switch(&cgroups, &mounts, &id.0).ok_or_else(|| {
        let text = "its cgroup is not where this host mounts them, or is not its own";
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}

/// The hierarchy of version 1 that has the freezer, or else version 2. The cgroup must be the
/// container's own: its pid may be somebody else's by now.
fn switch(cgroups: &str, mounts: &str, id: &str) -> Option<Switch> {
    let (v1, path) = ["freezer", ""].iter().find_map(|wanted| {
        let path = path_in(cgroups, wanted).filter(|path| path.contains(id))?;
        Some((!wanted.is_empty(), path))
    })?;
    let mount = mount_of(mounts, v1)?;
    let dir = Path::new(mount).join(path.trim_start_matches('/'));
    Some(if v1 {
        Switch {
            file: dir.join("freezer.state"),
            frozen: "FROZEN",
            thawed: "THAWED",
        }
    } else {
        Switch {
            file: dir.join("cgroup.freeze"),
            frozen: "1",
            thawed: "0",
        }
    })
}

/// The path in the hierarchy that has this controller; version 2 names none.
fn path_in<'a>(cgroups: &'a str, wanted: &str) -> Option<&'a str> {
    cgroups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let found = controllers.split(',').any(|name| name == wanted);
        found.then_some(path)
    })
}

fn mount_of(mounts: &str, v1: bool) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (mount, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let found = if v1 {
            kind == "cgroup" && options.split(',').any(|option| option == "freezer")
        } else {
            kind == "cgroup2"
        };
        found.then_some(mount)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "cgroup /c/freezer cgroup rw,relatime,freezer 0 0\n\
        cgroup2 /c/unified cgroup2 rw,relatime 0 0\n";

    #[test]
    fn finds_the_container_s_own_switch_in_both_versions() {
        let v1 = "5:cpu,freezer:/docker/abc\n0::/\n";
        let v2 = "0::/system.slice/docker-abc.scope\n";
        for (cgroups, file, frozen) in [
            (v1, "/c/freezer/docker/abc/freezer.state", "FROZEN"),
            (
                v2,
                "/c/unified/system.slice/docker-abc.scope/cgroup.freeze",
                "1",
            ),
            // Both are there, and version 1 has nothing to freeze.
            (
                "0::/docker/abc\n5:cpu:/docker/abc\n",
                "/c/unified/docker/abc/cgroup.freeze",
                "1",
            ),
        ] {
            let switch = switch(cgroups, MOUNTS, "abc").unwrap();
            assert_eq!(switch.file, Path::new(file));
            assert_eq!(switch.frozen, frozen);
        }
    }

    #[test]
    fn what_the_switch_says_is_understood_in_both_versions() {
        let on = |cgroups, state| switch(cgroups, MOUNTS, "abc").unwrap().is_on(state);
        let (v1, v2) = ("5:freezer:/docker/abc\n", "0::/docker/abc\n");
        assert!(on(v1, "FROZEN\n") && on(v1, "FREEZING\n") && on(v2, "1\n"));
        assert!(!on(v1, "THAWED\n") && !on(v2, "0\n"));
        let nobody = BackendId("abc".to_owned());
        assert!(!is_frozen(&nobody, std::process::id()), "not seen");
    }

    #[test]
    fn never_freezes_another_cgroup_than_the_container_s() {
        for cgroups in [
            "",
            "5:freezer:/\n0::/\n",
            "5:freezer:/docker/other\n",
            "0::/user.slice\n",
        ] {
            assert_eq!(switch(cgroups, MOUNTS, "abc"), None, "{cgroups}");
        }
        assert_eq!(switch("5:freezer:/docker/abc\n", "", "abc"), None);
    }
}
