//! The gateway's own process: its threads, its listening sockets, and the unix socket by which the
//! controller tells it what to do.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::MetadataExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    stat::{Mode, umask},
};

use tokio::sync::mpsc::UnboundedSender;

use super::{
    descriptors, listen,
    predecessor::Predecessor,
    service::{Service, locked},
    tls::Certificate,
    wire::{
        Answer, Ask, Greeting, Report, ServiceReport, ServiceTable, Socket, Table, WireError,
        receive, send,
    },
    worker::{self, Order, Shared},
};
use crate::config::TlsConfig;

/// Between two looks at certificates and unused connections.
const TIDY: Duration = Duration::from_secs(1);
/// Clients gone to rest, for which the heap is walked.
const WORTH_IT: usize = 64;
/// How long one that has finished waits to be asked for its last counts.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// What clients that wait get told before the end.
const FAREWELL: Duration = Duration::from_millis(100);

/// Why there is no gateway.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Its socket cannot be made.
    #[error("cannot listen on {}", path.display())]
    Control {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The gateway before this one does not hand over.
    #[error("the gateway before this one does not hand its sockets over")]
    Predecessor(#[source] WireError),
}

/// Which program this process is: another version of orch, or a build that is not this one, differs.
pub(super) fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let name = env!("CARGO_PKG_VERSION");
        fs::metadata("/proc/self/exe").map_or_else(
            |_| name.to_owned(),
            |file| {
                let (device, inode) = (file.dev(), file.ino());
                let (seconds, nanos) = (file.mtime(), file.mtime_nsec());
                format!("{name} {device}:{inode} {seconds}.{nanos:09}")
            },
        )
    })
}

/// Sees when clients have fallen silent. What they had on the heap lies between what stays there, and
/// the allocator would keep it as it was when most of them were busy.
#[derive(Default)]
struct Rest {
    seen: usize,
    trimmed: usize,
}

impl Rest {
    /// Whether enough clients have gone to rest since this was last so, and none lately.
    fn begins(&mut self, parked: usize) -> bool {
        let quiet = std::mem::replace(&mut self.seen, parked) == parked;
        let begins = quiet && parked.wrapping_sub(self.trimmed) >= WORTH_IT;
        if begins {
            self.trimmed = parked;
        }
        begins
    }
}

struct Gateway {
    path: PathBuf,
    shared: Arc<Shared>,
    workers: Vec<UnboundedSender<Order>>,
    state: Mutex<State>,
    /// The last counts were told.
    told: AtomicBool,
}

#[derive(Default)]
struct State {
    table: Table,
    services: BTreeMap<String, Arc<Service>>,
    sockets: BTreeMap<Socket, TcpListener>,
    certificates: BTreeMap<String, Arc<Certificate>>,
    /// Sockets of the gateway before this one that have no service yet.
    inherited: BTreeMap<Socket, TcpListener>,
    predecessor: Option<Predecessor>,
    /// Counts to begin with.
    seed: Report,
}

/// Runs the gateway behind this socket until it is told to end. One that answers there already is
/// asked for its listening sockets and finishes what it has begun.
pub fn run(path: &Path) -> Result<(), GatewayError> {
    // Every client is a descriptor, and every request in flight another.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
    let shared: Arc<Shared> = Arc::default();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let workers = (0..threads)
        .map(|number| worker::spawn(number, Arc::clone(&shared)))
        .collect::<io::Result<Vec<_>>>()
        .map_err(GatewayError::Thread)?;
    let mut state = State::default();
    if let Some((predecessor, sockets)) =
        Predecessor::succeed(path).map_err(GatewayError::Predecessor)?
    {
        state.predecessor = Some(predecessor);
        state.inherited = sockets;
    }
    let listener = bind(path).map_err(|source| GatewayError::Control {
        path: path.to_owned(),
        source,
    })?;
    let gateway = Arc::new(Gateway {
        path: path.to_owned(),
        shared,
        workers,
        state: Mutex::new(state),
        told: AtomicBool::new(false),
    });
    let tidying = Arc::clone(&gateway);
    thread::spawn(move || {
        let mut rest = Rest::default();
        loop {
            thread::sleep(TIDY);
            tidying.tidy();
            if rest.begins(tidying.shared.parked()) {
                orch_common::heap::trim();
            }
        }
    });
    for stream in listener.incoming().flatten() {
        let gateway = Arc::clone(&gateway);
        thread::spawn(move || gateway.converse(&stream));
    }
    Ok(())
}

/// The mode must be right from the first moment, so it cannot be set afterwards.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    bound
}

impl Gateway {
    /// Obeys one controller until it goes.
    fn converse(self: Arc<Self>, stream: &UnixStream) {
        while let Ok(ask) = receive::<Ask>(stream) {
            let told = match ask {
                Ask::Yield => self.hand_over(stream),
                Ask::Watch => self.hang(stream),
                Ask::End => {
                    // Whoever asks sees the end as well.
                    let _ = send(stream, &Answer::Done);
                    self.end()
                }
                ask => send(stream, &self.answer(ask)),
            };
            if let Err(error) = told {
                return log::debug!("the controller cannot be told: {error}");
            }
        }
    }

    fn answer(&self, ask: Ask) -> Answer {
        let mut state = locked(&self.state);
        match ask {
            Ask::Hello => Answer::Hello(Greeting {
                version: version().to_owned(),
                pid: process::id(),
                table: state.table.clone(),
            }),
            Ask::Seed(report) => {
                state.seed = report;
                Answer::Done
            }
            Ask::Set(table) => match self.set(&mut state, table) {
                Ok(()) => Answer::Done,
                Err(why) => Answer::Failed(why),
            },
            Ask::Read => {
                if self.shared.is_closing() && self.shared.clients() == 0 {
                    self.told.store(true, SeqCst);
                }
                Answer::Counts(state.report())
            }
            Ask::Yield | Ask::Watch | Ask::End => Answer::Failed("not so".to_owned()),
        }
    }

    fn hang(&self, stream: &UnixStream) -> Result<(), WireError> {
        send(stream, &Answer::Done)?;
        self.shared.bell.hang(stream.try_clone()?);
        Ok(())
    }

    /// Becomes what the table says, as far as it can. The error says what it could not.
    fn set(&self, state: &mut State, table: Table) -> Result<(), String> {
        self.shared.set_control(table.control.clone());
        let mut trouble = None;
        let mut wanted = Vec::new();
        for service in &table.services {
            let held = state.service(service, self.workers.len());
            held.set(service);
            if service.closed || self.shared.is_closing() {
                continue;
            }
            wanted.extend(plain_sockets(service, self.workers.len()));
            if let Some(tls) = &service.http.tls {
                match state.certificate(&service.name, tls) {
                    Ok(()) => wanted.extend(tls_sockets(service, tls, self.workers.len())),
                    Err(error) => trouble = Some(error),
                }
            }
        }
        let named = |name: &String| table.services.iter().any(|one| one.name == *name);
        state.services.retain(|name, service| {
            if !named(name) {
                service.set(&ServiceTable::empty(name, &service.settings().http));
            }
            named(name)
        });
        if !self.shared.is_closing() {
            self.listen(state, &wanted, &mut trouble);
        }
        if let Some(predecessor) = &mut state.predecessor {
            predecessor.set(&table);
        }
        state.table = table;
        trouble.map_or(Ok(()), Err)
    }

    /// Listens where it should, and nowhere else.
    fn listen(&self, state: &mut State, wanted: &[Socket], trouble: &mut Option<String>) {
        let gone = state
            .sockets
            .keys()
            .filter(|socket| !wanted.contains(socket));
        for socket in gone.cloned().collect::<Vec<_>>() {
            state.sockets.remove(&socket);
            self.tell(socket.thread, Order::Close(socket));
        }
        for socket in wanted {
            if state.sockets.contains_key(socket) {
                continue;
            }
            let Some(service) = state.services.get(&socket.service).cloned() else {
                continue;
            };
            let patience = service.settings().http.body_timeout;
            let inherited = state.inherited.remove(socket);
            let bound =
                inherited.map_or_else(|| listen::bind(socket.address, socket.both, patience), Ok);
            match bound.and_then(|bound| Ok((bound.try_clone()?, bound))) {
                Ok((own, kept)) => {
                    let certificate = socket
                        .tls
                        .then(|| state.certificates.get(&socket.service).cloned())
                        .flatten();
                    let order = Order::Listen(socket.clone(), own, service, certificate);
                    self.tell(socket.thread, order);
                    state.sockets.insert(socket.clone(), kept);
                }
                Err(error) => {
                    let Socket {
                        service, address, ..
                    } = socket;
                    *trouble = Some(format!(
                        "service {service} cannot listen on {address}: {error}"
                    ));
                }
            }
        }
        // What is not wanted any more is closed.
        state.inherited.clear();
    }

    fn tell(&self, thread: usize, order: Order) {
        if let Some(worker) = self.workers.get(thread % self.workers.len().max(1)) {
            // A thread ends with the process alone.
            let _ = worker.send(order);
        }
    }

    /// Gives the listening sockets to the next gateway, finishes what is open, and ends.
    fn hand_over(self: &Arc<Self>, stream: &UnixStream) -> Result<(), WireError> {
        let sockets = {
            let mut state = locked(&self.state);
            self.shared.close();
            let sockets = std::mem::take(&mut state.sockets);
            for socket in sockets.keys() {
                self.tell(socket.thread, Order::Close(socket.clone()));
            }
            sockets
        };
        // The next one has its own there.
        let _ = fs::remove_file(&self.path);
        send(stream, &Answer::Sockets(sockets.keys().cloned().collect()))?;
        descriptors::send(stream, &sockets)?;
        let gateway = Arc::clone(self);
        thread::spawn(move || gateway.wait_and_end());
        Ok(())
    }

    fn wait_and_end(&self) {
        while self.shared.clients() > 0 {
            thread::sleep(FAREWELL);
        }
        let end = Instant::now() + LAST_WORDS;
        while !self.told.load(SeqCst) && Instant::now() < end {
            thread::sleep(FAREWELL);
        }
        // For the answer to leave.
        thread::sleep(FAREWELL);
        process::exit(0);
    }

    /// Ends at once, but tells clients that wait.
    fn end(&self) -> ! {
        let mut state = locked(&self.state);
        for service in state.services.values() {
            service.end();
        }
        if let Some(predecessor) = state.predecessor.take() {
            predecessor.end();
        }
        if !self.shared.is_closing() {
            let _ = fs::remove_file(&self.path);
        }
        thread::sleep(FAREWELL);
        process::exit(0);
    }

    fn tidy(&self) {
        let (services, certificates) = {
            let state = locked(&self.state);
            let services: Vec<_> = state.services.values().cloned().collect();
            let certificates: Vec<_> = state.certificates.values().cloned().collect();
            (services, certificates)
        };
        for service in services {
            service.tidy();
        }
        for certificate in certificates {
            certificate.follow();
        }
    }
}

impl State {
    fn service(&mut self, table: &ServiceTable, threads: usize) -> Arc<Service> {
        let (predecessor, seed) = (&self.predecessor, &self.seed);
        let new = || {
            let service = Service::new(table, threads);
            let before = seed.services.iter().find(|one| one.name == table.name);
            if let Some(before) = before {
                service.seed(before.cursor, &before.slots);
            } else if let Some(cursor) =
                predecessor.as_ref().and_then(|one| one.cursor(&table.name))
            {
                service.seed(cursor, &[]);
            }
            Arc::new(service)
        };
        let service = self.services.entry(table.name.clone()).or_insert_with(new);
        Arc::clone(service)
    }

    fn certificate(&mut self, service: &str, tls: &TlsConfig) -> Result<(), String> {
        let held = self.certificates.get(service);
        if held.is_some_and(|held| held.is(tls)) {
            return Ok(());
        }
        match Certificate::load(tls) {
            Ok(certificate) => {
                let certificate = Arc::new(certificate);
                self.certificates.insert(service.to_owned(), certificate);
                Ok(())
            }
            Err(error) => Err(format!("service {service} has no TLS: {error}")),
        }
    }

    fn report(&mut self) -> Report {
        let services = self.services.iter().map(|(name, service)| ServiceReport {
            name: name.clone(),
            cursor: service.cursor(),
            waiting: service.waiting(),
            slots: service.report(),
        });
        let mut report = Report {
            services: services.collect(),
        };
        if let Some(predecessor) = &mut self.predecessor {
            predecessor.add_to(&mut report);
        }
        report
    }
}

fn plain_sockets(service: &ServiceTable, threads: usize) -> impl Iterator<Item = Socket> {
    let address = listen::address(service.listen);
    sockets(
        &service.name,
        address,
        service.listen.address.is_none(),
        false,
        threads,
    )
}

fn tls_sockets(
    service: &ServiceTable,
    tls: &TlsConfig,
    threads: usize,
) -> impl Iterator<Item = Socket> {
    let address = listen::address(tls.listen);
    sockets(
        &service.name,
        address,
        tls.listen.address.is_none(),
        true,
        threads,
    )
}

fn sockets(
    service: &str,
    address: SocketAddr,
    both: bool,
    tls: bool,
    threads: usize,
) -> impl Iterator<Item = Socket> {
    (0..threads).map(move |thread| Socket {
        service: service.to_owned(),
        address,
        both,
        tls,
        thread,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_begins_once_when_clients_have_fallen_silent() {
        let mut rest = Rest::default();
        assert!(!rest.begins(0));
        assert!(!rest.begins(WORTH_IT), "they still go");
        assert!(rest.begins(WORTH_IT));
        assert!(!rest.begins(WORTH_IT), "it was done");
        assert!(!rest.begins(WORTH_IT + 1));
        assert!(!rest.begins(WORTH_IT + 1), "one is not worth it");
    }
}
