//! Network namespaces of containers on this host. A connection that starts in one of them is
//! balanced where it starts; from any other namespace it arrives as an outsider's. The set must be
//! right before a container's program runs, so a thread follows the engine's directory.

use std::{
    collections::HashMap as Known,
    ffi::OsString,
    fs::File,
    net::UdpSocket,
    os::fd::AsFd,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, MapData};
use nix::{
    sched::{CloneFlags, setns},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use orch_common::{layout::map, netns, service::NetnsKind};

use super::DataplaneError;

/// Where a Docker engine keeps a file per network namespace that it made.
const DIRECTORY: &str = "/var/run/docker/netns";
/// The engine creates a file first and mounts the namespace over it afterwards; at the end it
/// unmounts it first and removes the file afterwards. For so long a file is tried again.
const MOUNT_TIME: Duration = Duration::from_millis(500);
/// How often.
const RETRY: Duration = Duration::from_millis(1);
/// How often a directory that does not exist is looked for.
const RESYNC: Duration = Duration::from_secs(2);

type Table = HashMap<MapData, u64, NetnsKind>;

/// The files of the directory.
#[derive(Default)]
struct Files {
    /// The cookie of each namespace that was entered.
    known: Known<OsString, u64>,
    /// Those that could not be entered, and since when.
    barred: Known<OsString, Instant>,
}

/// Enters the controller's own namespace into the map and follows those of containers until the
/// process ends.
pub(super) fn follow(mut table: Table) -> Result<(), DataplaneError> {
    let host = own_cookie().map_err(|source| DataplaneError::file("/proc/self/ns/net", source))?;
    table
        .insert(host, NetnsKind::Host, 0)
        .map_err(DataplaneError::map(map::NETNS))?;
    let mut files = Files::default();
    resync(&mut table, &mut files, host);
    let start = thread::Builder::new().name("netns".to_owned());
    start
        .spawn(move || {
            loop {
                match watch() {
                    Ok(inotify) => while_there(&inotify, || resync(&mut table, &mut files, host)),
                    Err(_) => thread::park_timeout(RESYNC),
                }
            }
        })
        .map_err(|source| DataplaneError::file("/proc/self/task", source))?;
    Ok(())
}

/// Starts to watch the directory; an error if there is none.
fn watch() -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    let changes = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE;
    inotify.add_watch(DIRECTORY, changes | AddWatchFlags::IN_DELETE_SELF)?;
    Ok(inotify)
}

/// Calls `changed` now, after every change and again as long as it says so, until the directory
/// itself goes.
fn while_there(inotify: &Inotify, mut changed: impl FnMut() -> bool) {
    loop {
        while changed() {
            thread::park_timeout(RETRY);
        }
        match inotify.read_events() {
            Ok(events)
                if events
                    .iter()
                    .all(|e| !e.mask.contains(AddWatchFlags::IN_IGNORED)) => {}
            _ => return,
        }
    }
}

/// Makes the map equal to the directory, and says whether to try again soon: then there is a file
/// that cannot be entered yet. None holds up the others, for their containers are about to start.
fn resync(table: &mut Table, files: &mut Files, host: u64) -> bool {
    let Ok(entries) = std::fs::read_dir(DIRECTORY) else {
        return false;
    };
    let names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
    for name in &names {
        if files.known.contains_key(name) {
            continue;
        }
        // `default` is the host's own; a container on the host's network has no file.
        match cookie_of(&Path::new(DIRECTORY).join(name)) {
            Some(cookie)
                if cookie == host || table.insert(cookie, NetnsKind::Container, 0).is_ok() =>
            {
                files.known.insert(name.clone(), cookie);
            }
            _ => {
                let since = files.barred.entry(name.clone());
                since.or_insert_with(Instant::now);
            }
        }
    }
    let Files { known, barred } = files;
    known.retain(|name, cookie| {
        let stays = names.contains(name);
        if !stays && *cookie != host {
            // It may have been removed by a resync that failed half-way.
            let _ = table.remove(cookie);
        }
        stays
    });
    barred.retain(|name, _| names.contains(name) && !known.contains_key(name));
    barred.values().any(|since| since.elapsed() < MOUNT_TIME)
}

/// The cookie of the namespace in a file. A thread of its own enters it, and ends there.
fn cookie_of(path: &Path) -> Option<u64> {
    let file = File::open(path).ok()?;
    let enter = move || {
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET).ok()?;
        own_cookie().ok()
    };
    thread::spawn(enter).join().ok().flatten()
}

/// The cookie of the namespace that the calling thread is in.
fn own_cookie() -> std::io::Result<u64> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    netns::cookie(UdpSocket::from(socket).as_fd())
}
