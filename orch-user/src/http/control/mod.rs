//! The gateway's own process: its threads, its listening sockets, and the unix socket by which the
//! controller tells it what to do.

mod end;
mod state;
mod table;
mod tidy;

use std::{
    fs, io,
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
};

use nix::sys::stat::{Mode, umask};
use tokio::sync::mpsc::UnboundedSender;

use self::state::State;
use super::{
    predecessor::Predecessor,
    service::locked,
    wire::{Answer, Ask, Greeting, WireError, receive, send},
    worker::{self, Order, Shared},
};

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

struct Gateway {
    path: PathBuf,
    shared: Arc<Shared>,
    workers: Vec<UnboundedSender<Order>>,
    state: Mutex<State>,
    /// The last counts were told.
    told: AtomicBool,
}

/// Runs the gateway behind this socket until it is told to end. One that answers there already is
/// asked for its listening sockets and finishes what it has begun.
pub fn run(path: &Path) -> Result<(), GatewayError> {
    // Every client is a descriptor, and every request in flight another.
    crate::descriptors::raise(u64::MAX);
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
    thread::spawn(move || tidying.keep_tidy());
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
        let listener = stream.try_clone()?;
        self.shared
            .bell
            .hang(listener, || send(stream, &Answer::Done))
    }

    fn tell(&self, thread: usize, order: Order) {
        if let Some(worker) = self.workers.get(thread % self.workers.len().max(1)) {
            // A thread ends with the process alone.
            let _ = worker.send(order);
        }
    }
}
