//! The controller's side of the gateway: finds the one that runs, replaces one of another version,
//! and starts another at once where it died.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, Weak},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{
    control::version,
    service::locked,
    wire::{Client, Greeting, Report, Table, WireError},
};

/// For one answer. The gateway's control thread does little else.
const LIMIT: Duration = Duration::from_secs(2);
/// From its start to its first answer.
const START: Duration = Duration::from_secs(10);
/// Between two looks whether it answers.
const LOOK: Duration = Duration::from_millis(2);
/// Between two starts where it dies again and again.
const REST: Duration = Duration::from_millis(200);

/// Where the gateway of the controller with this control socket answers.
pub fn socket_path(control: &Path) -> PathBuf {
    let mut path = control.as_os_str().to_owned();
    path.push(".gw");
    path.into()
}

/// The pid of the gateway that runs for this control socket, if one does.
pub fn pid(control: &Path) -> Option<u32> {
    let client = Client::connect(&socket_path(control), LIMIT).ok()?;
    client.hello().ok().map(|greeting| greeting.pid)
}

/// Ends the gateway that runs for this control socket; whether there was one.
pub fn end(control: &Path) -> bool {
    let path = socket_path(control);
    let ended = Client::connect(&path, LIMIT).and_then(|client| end_wholly(&client));
    // What one that was killed has left.
    let _ = fs::remove_file(&path);
    ended.is_ok()
}

/// Has it end, and waits until it has: a process that ends closes its files one by one, so that it might
/// listen for a moment still when its control connection is closed.
fn end_wholly(client: &Client) -> Result<(), WireError> {
    let process = client.hello().ok().and_then(|greeting| {
        let pid = Pid::from_raw(greeting.pid.cast_signed())?;
        pidfd_open(pid, PidfdFlags::empty()).ok()
    });
    client.end()?;
    if let Some(process) = process {
        let limit = Timespec::try_from(LIMIT).ok();
        let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], limit.as_ref());
    } else {
        // Nothing comes but the end, or the time is over.
        let _ = client.stream().read(&mut [0]);
    }
    Ok(())
}

/// Why there is no gateway.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// It cannot be started.
    #[error("cannot start the gateway")]
    Start(#[source] io::Error),
    /// It does not come up.
    #[error("the gateway does not answer at {}: see {}", socket.display(), log.display())]
    Silent {
        /// Its socket.
        socket: PathBuf,
        /// What it says.
        log: PathBuf,
    },
    /// It does not do what it is told.
    #[error("the gateway at {} does not obey", socket.display())]
    Wire {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: WireError,
    },
}

/// Keeps a gateway running, by a thread that notices its end.
#[derive(Clone, Debug)]
pub struct Keeper(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    socket: PathBuf,
    log: PathBuf,
    table: Table,
    client: Option<Client>,
    child: Option<Child>,
    report: Report,
    started: Option<Instant>,
    /// One of this version has answered: should there be none, it has died.
    met: bool,
    watched: bool,
    bell: Option<Bell>,
}

/// Both ends of what the thread that watches the gateway rings for the controller.
#[derive(Debug)]
struct Bell {
    rung: UnixStream,
    heard: UnixStream,
}

impl Bell {
    fn new() -> io::Result<Self> {
        let (rung, heard) = UnixStream::pair()?;
        rung.set_nonblocking(true)?;
        heard.set_nonblocking(true)?;
        Ok(Self { rung, heard })
    }

    /// Forgets what has rung so far.
    fn hush(&self) {
        while matches!((&self.heard).read(&mut [0; 64]), Ok(1..)) {}
    }
}

impl Keeper {
    /// For the controller with this control socket. Nothing is started yet. What a gateway that runs
    /// goes by is taken over.
    pub fn new(control: &Path, state_dir: &Path) -> Self {
        let socket = socket_path(control);
        let found = Client::connect(&socket, LIMIT).and_then(|client| client.hello());
        let table = found.map_or_else(
            |_| Table {
                control: control.to_owned(),
                relay: false,
                services: Vec::new(),
            },
            |greeting| greeting.table,
        );
        Self(Arc::new(Mutex::new(Inner {
            socket,
            log: state_dir.join("gateway.log"),
            table,
            client: None,
            child: None,
            report: Report::default(),
            started: None,
            met: false,
            watched: false,
            bell: Bell::new().ok(),
        })))
    }

    /// What it goes by.
    pub fn table(&self) -> Table {
        locked(&self.0).table.clone()
    }

    /// Has it be like this; starts it where it is needed.
    pub fn set(&self, table: Table) -> Result<(), KeeperError> {
        let mut inner = locked(&self.0);
        inner.table = table;
        inner.apply()?;
        if !std::mem::replace(&mut inner.watched, true) {
            let rung = inner
                .bell
                .as_ref()
                .and_then(|bell| bell.rung.try_clone().ok());
            watch(inner.socket.clone(), Arc::downgrade(&self.0), rung);
        }
        Ok(())
    }

    /// Readable whenever a request begins to wait for a copy, or a copy refuses, until the counts are
    /// read. `None` if the process has no descriptor left.
    pub fn bell(&self) -> Option<OwnedFd> {
        let inner = locked(&self.0);
        let bell = inner.bell.as_ref()?.heard.try_clone();
        bell.ok().map(OwnedFd::from)
    }

    /// What it has counted. Of one that does not answer, what it had counted last.
    pub fn read(&self) -> Result<Report, KeeperError> {
        let mut inner = locked(&self.0);
        if let Some(bell) = &inner.bell {
            bell.hush();
        }
        if inner.client.is_none() {
            inner.apply()?;
        }
        if let Some(client) = &inner.client {
            match client.read() {
                Ok(report) => inner.report = report,
                Err(source) => {
                    inner.forget();
                    log::warn!("the gateway does not tell its counts: {source}");
                    inner.apply()?;
                }
            }
        }
        Ok(inner.report.clone())
    }

    /// What it had counted when it was last asked.
    pub fn last(&self) -> Report {
        locked(&self.0).report.clone()
    }

    /// Ends it.
    pub fn end(&self) {
        let mut inner = locked(&self.0);
        inner.table.services.clear();
        inner.watched = false;
        if let Some(client) = inner.client.take() {
            // One that is gone has ended.
            let _ = end_wholly(&client);
        }
        let _ = fs::remove_file(&inner.socket);
        if let Some(mut child) = inner.child.take() {
            let _ = child.wait();
        }
    }
}

impl Inner {
    /// Tells the table to a gateway of this version, whatever it takes.
    fn apply(&mut self) -> Result<(), KeeperError> {
        if self.client.is_none() {
            self.find_or_start()?;
        }
        let Some(client) = &self.client else {
            return Ok(());
        };
        match client.set(&self.table) {
            Ok(()) => return Ok(()),
            // It runs, and says what it cannot.
            Err(source @ WireError::Refused(_)) => return Err(self.wire(source)),
            Err(source) => log::warn!("the gateway has ended: {source}"),
        }
        self.forget();
        self.find_or_start()?;
        match &self.client {
            Some(client) => client.set(&self.table).map_err(|source| self.wire(source)),
            None => Ok(()),
        }
    }

    fn wire(&self, source: WireError) -> KeeperError {
        let socket = self.socket.clone();
        KeeperError::Wire { socket, source }
    }

    fn forget(&mut self) {
        self.client = None;
        if let Some(child) = &mut self.child {
            // It is a zombie until it is asked after.
            let _ = child.try_wait();
        }
    }

    /// Connects to the gateway. One of this version is kept, another is replaced; where there is
    /// none, one is started if there is anything for it to do.
    fn find_or_start(&mut self) -> Result<(), KeeperError> {
        if let Some((client, greeting)) = self.greet() {
            let ours = greeting.version == version();
            if ours {
                self.met = true;
                self.client = Some(client);
                return Ok(());
            }
            // What it has counted, its successor asks it for.
            self.met = false;
            if self.table.services.is_empty() {
                let _ = client.end();
                return Ok(());
            }
            log::info!(
                "the gateway (pid {}) is replaced by this version",
                greeting.pid
            );
        } else if self.table.services.is_empty() {
            return Ok(());
        }
        self.start()
    }

    fn greet(&self) -> Option<(Client, Greeting)> {
        let client = Client::connect(&self.socket, LIMIT).ok()?;
        let greeting = client.hello().ok()?;
        Some((client, greeting))
    }

    fn start(&mut self) -> Result<(), KeeperError> {
        if let Some(started) = self.started {
            thread::sleep(REST.saturating_sub(started.elapsed()));
        }
        self.started = Some(Instant::now());
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(KeeperError::Start)?;
        let child = Command::new("/proc/self/exe")
            .arg0("orch")
            .arg("gateway")
            .arg("--socket")
            .arg(&self.socket)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(KeeperError::Start)?)
            .stderr(log)
            .current_dir("/")
            .process_group(0)
            .spawn();
        self.child = Some(child.map_err(KeeperError::Start)?);
        let end = Instant::now() + START;
        while Instant::now() < end {
            if let Some((client, greeting)) = self.greet()
                && greeting.version == version()
            {
                log::info!("the gateway runs (pid {})", greeting.pid);
                if self.met
                    && let Err(source) = client.seed(&self.report)
                {
                    return Err(self.wire(source));
                }
                self.met = true;
                self.client = Some(client);
                return Ok(());
            }
            let ended = self.child.as_mut().map(Child::try_wait);
            if matches!(ended, Some(Ok(Some(_)))) {
                break;
            }
            thread::sleep(LOOK);
        }
        Err(KeeperError::Silent {
            socket: self.socket.clone(),
            log: self.log.clone(),
        })
    }
}

/// Listens to a gateway until its end, and hands on what it rings.
fn hear(socket: &Path, rung: Option<&UnixStream>) -> Result<(), WireError> {
    let mut stream = Client::connect(socket, LIMIT)?.watch()?;
    while stream.read(&mut [0; 64])? > 0 {
        if let Some(mut rung) = rung {
            // Where it is full, enough has rung.
            let _ = rung.write(&[1]);
        }
    }
    Ok(())
}

/// Notices the gateway's end, and has another started.
fn watch(socket: PathBuf, keeper: Weak<Mutex<Inner>>, rung: Option<UnixStream>) {
    thread::spawn(move || {
        loop {
            // However it ends.
            let _ = hear(&socket, rung.as_ref());
            let Some(keeper) = keeper.upgrade() else {
                return;
            };
            let mut inner = locked(&keeper);
            if !inner.watched {
                return;
            }
            if inner.greet().is_none() && !inner.table.services.is_empty() {
                inner.forget();
                log::warn!("the gateway has ended by itself: another is started");
                if let Err(error) = inner.apply() {
                    log::error!("{error}");
                }
            }
            drop(inner);
            thread::sleep(LOOK);
        }
    });
}
