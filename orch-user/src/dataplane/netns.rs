//! Network namespaces of containers on this host. A connection that starts in one of them is
//! balanced where it starts; from any other namespace it arrives as an outsider's. The set must be
//! right before a container's program runs, so a thread follows the engine's directory; one for each where
//! there are several engines.

use std::{
    collections::{BTreeSet, HashMap as Known},
    ffi::OsString,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData, MapError, MapInfo};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use orch_common::{
    layout::map,
    service::{NETNS_BRIDGES, Netns, NetnsKind},
};

use super::{DataplaneError, links, pin::Pins, sandbox};

/// Where a Docker engine keeps a file per network namespace that it made, unless it was told another place
/// (`--exec-root`; as a snap it has another, too).
const DIRECTORY: &str = "/var/run/docker/netns";
/// Where people do (ip-netns(8)): those need not be containers.
const OF_PEOPLE: &str = "/run/netns";
/// More engines than this on one host are no engines.
const MOST_DIRECTORIES: usize = 8;
/// The engine creates a file first, mounts the namespace over it afterwards, and then moves an
/// interface in; at the end it unmounts it first and removes the file afterwards. For so long a
/// file is tried again.
const SETTLE_TIME: Duration = Duration::from_millis(500);
/// How often.
const RETRY: Duration = Duration::from_millis(1);
/// How often a directory that does not exist is looked for.
const RESYNC: Duration = Duration::from_secs(2);

/// Nice value of the thread that follows; it runs for some microseconds per container.
const URGENT: i32 = -20;

type Table = HashMap<MapData, u64, Netns>;

/// The files of the directory.
#[derive(Default)]
struct Files {
    /// The cookie of each namespace that was entered.
    known: Known<OsString, u64>,
    /// Those that could not be entered, or had no interface yet, and since when.
    unfinished: Known<OsString, Instant>,
}

/// The directories that are followed.
pub(super) struct Namespaces {
    /// Cookie of the controller's own.
    host: u64,
    /// The map, as the kernel calls it.
    table: u32,
    followed: BTreeSet<PathBuf>,
}

impl Namespaces {
    /// Enters the controller's own namespace into the map and follows those of containers until the
    /// process ends.
    pub(super) fn follow(pins: &Pins) -> Result<Self, DataplaneError> {
        let host = sandbox::own_cookie()
            .map_err(|source| DataplaneError::file("/proc/self/ns/net", source))?;
        let info = MapInfo::from_pin(pins.map(map::NETNS)).map_err(failed())?;
        let mut namespaces = Self {
            host,
            table: info.id(),
            followed: BTreeSet::new(),
        };
        namespaces
            .table()?
            .insert(host, netns(NetnsKind::Host, &[]), 0)
            .map_err(failed())?;
        namespaces.also(Path::new(DIRECTORY))?;
        Ok(namespaces)
    }

    /// Follows the directory that has a container's file, too.
    pub(super) fn also(&mut self, directory: &Path) -> Result<(), DataplaneError> {
        if self.followed.len() >= MOST_DIRECTORIES || !self.followed.insert(directory.to_owned()) {
            return Ok(());
        }
        // The usual place has two names.
        let real = directory.canonicalize();
        let real = real.unwrap_or_else(|_| directory.to_owned());
        let is_known = real != directory && !self.followed.insert(real.clone());
        if is_known || real == Path::new(OF_PEOPLE) {
            return Ok(());
        }
        start(real, self.table()?, self.host)
    }

    fn table(&self) -> Result<Table, DataplaneError> {
        let data = MapData::from_id(self.table).map_err(failed())?;
        HashMap::try_from(Map::HashMap(data)).map_err(failed())
    }
}

fn failed() -> impl FnOnce(MapError) -> DataplaneError {
    DataplaneError::map(map::NETNS)
}

/// Begins to follow a directory; what is in it is in the map when this returns.
fn start(directory: PathBuf, mut table: Table, host: u64) -> Result<(), DataplaneError> {
    let mut files = Files::default();
    resync(&directory, &mut table, &mut files, host);
    let start = thread::Builder::new().name("netns".to_owned());
    start
        .spawn(move || {
            // A container may connect a moment after its namespace was made: on a busy machine this
            // must not wait behind all others. Without the right to it, it does. 0 is this thread.
            let _ = rustix::process::setpriority_process(None, URGENT);
            let mut resync = || resync(&directory, &mut table, &mut files, host);
            loop {
                match watch(&directory) {
                    Ok(inotify) => while_there(&inotify, &mut resync),
                    Err(_) => thread::park_timeout(RESYNC),
                }
            }
        })
        .map_err(|source| DataplaneError::file("/proc/self/task", source))?;
    Ok(())
}

/// Starts to watch the directory; an error if there is none.
fn watch(directory: &Path) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    let changes = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE;
    inotify.add_watch(directory, changes | AddWatchFlags::IN_DELETE_SELF)?;
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
/// that cannot be entered yet, or has no interface. None holds up the others, for their containers
/// are about to start.
fn resync(directory: &Path, table: &mut Table, files: &mut Files, host: u64) -> bool {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return false;
    };
    let names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
    for name in &names {
        if files.known.contains_key(name) && !files.unfinished.contains_key(name) {
            continue;
        }
        if learn(&directory.join(name), table, files, host, name) {
            files.unfinished.remove(name);
        } else {
            let since = files.unfinished.entry(name.clone());
            since.or_insert_with(Instant::now);
        }
    }
    let Files { known, unfinished } = files;
    known.retain(|name, cookie| {
        let stays = names.contains(name);
        if !stays && *cookie != host {
            // It may have been removed by a resync that failed half-way.
            let _ = table.remove(cookie);
        }
        stays
    });
    // One without any network never gets an interface.
    unfinished.retain(|name, since| {
        names.contains(name) && (since.elapsed() < SETTLE_TIME || !known.contains_key(name))
    });
    unfinished
        .values()
        .any(|since| since.elapsed() < SETTLE_TIME)
}

/// Enters a namespace into the map. `false` if it has to be looked at again.
fn learn(path: &Path, table: &mut Table, files: &mut Files, host: u64, name: &OsString) -> bool {
    let Ok(inside) = sandbox::look(path) else {
        return false;
    };
    let cookie = inside.cookie;
    // `default` is the host's own; a container on the host's network has no file.
    if cookie == host {
        files.known.insert(name.clone(), cookie);
        return true;
    }
    let peers: Vec<u32> = inside.peers().collect();
    let bridges = bridges(&peers);
    if table
        .insert(cookie, netns(NetnsKind::Container, &bridges), 0)
        .is_err()
    {
        return false;
    }
    files.known.insert(name.clone(), cookie);
    !bridges.is_empty()
}

/// The bridges that these interfaces of the host are ports of.
fn bridges(peers: &[u32]) -> Vec<u32> {
    if peers.is_empty() {
        return Vec::new();
    }
    let host = links::links().unwrap_or_default();
    let ports = host.iter().filter(|link| peers.contains(&link.index));
    ports.filter_map(|link| link.bridge).collect()
}

fn netns(kind: NetnsKind, found: &[u32]) -> Netns {
    let mut bridges = [0; NETNS_BRIDGES];
    for (place, bridge) in bridges.iter_mut().zip(found) {
        *place = *bridge;
    }
    Netns { kind, bridges }
}
