//! Backends that are plain processes of this host. Each is the leader of a process group of its
//! own and writes to a file, so that it outlives the controller; a record on disk lets the next
//! controller adopt it.

mod gated;
mod group;
mod launch;
mod limits;
mod log;
mod proc;
mod record;
mod start;

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{self, Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{OnceCell, mpsc};

use self::{group::Group, limits::Limits, record::Record, start::Start};
use super::{
    Answer, Backend, BackendId, Order, Prepared, Runtime, RuntimeError, RuntimeEvent, RuntimeKind,
    gate::{self, Gate},
};
use crate::config::{BackendConfig, ScaleConfig};

/// How long a killed process may take to disappear.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// The runtime of plain processes.
#[derive(Debug)]
pub struct ProcessRuntime {
    state_dir: PathBuf,
    instance: String,
    gate: Gate,
    groups: Mutex<HashMap<i32, Arc<Group>>>,
    /// Done once what an earlier controller has not recorded is ended.
    begun: OnceCell<()>,
    limits: Limits,
    exits: mpsc::UnboundedSender<RuntimeEvent>,
    /// Kept here, not in `watch`, so that what happens before somebody watches is not lost.
    exited: tokio::sync::Mutex<mpsc::UnboundedReceiver<RuntimeEvent>>,
}

impl ProcessRuntime {
    /// A runtime that keeps logs, volumes and records below `state_dir`. It sees only backends of
    /// its own `instance`.
    pub fn new(state_dir: &Path, instance: &str) -> Self {
        let (exits, exited) = mpsc::unbounded_channel();
        // The next controller may have another working directory.
        let state_dir = path::absolute(state_dir).unwrap_or_else(|_| state_dir.to_owned());
        Self {
            gate: Gate::in_dir(&state_dir, instance),
            state_dir,
            instance: instance.to_owned(),
            groups: Mutex::new(HashMap::new()),
            begun: OnceCell::new(),
            limits: Limits::default(),
            exits,
            exited: tokio::sync::Mutex::new(exited),
        }
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<i32, Arc<Group>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(&self, order: &Order) -> Result<Backend, RuntimeError> {
        launch::port_free(order)?;
        let log = log::create(&self.state_dir, &order.service, order.slot_port)?;
        // Until there is a record, or the child has been ended.
        let _start = Start::note(&self.state_dir, &self.instance, Some(&log.path))?;
        let pid = launch::spawn(order, &self.state_dir, &log)?;
        self.adopt_child(order, pid, log.path)
            .inspect_err(|_| abandon(pid))
    }

    /// A spare that waits at its gate.
    async fn launch_gated(&self, order: &Order) -> Result<Backend, RuntimeError> {
        let dir = record::dir(&self.state_dir);
        let start = Start::note(&self.state_dir, &self.instance, None)?;
        let pid = gated::spawn(order, self.gate.install()?, &dir, &start).await?;
        let backend = self.adopt_child(order, pid, PathBuf::new());
        let mut backend = backend.inspect_err(|_| abandon(pid))?;
        drop(start);
        let closed = gate::until_closed(pid.unsigned_abs(), self.gate.path()).await;
        if let Err(source) = closed {
            let id = backend.id;
            self.stop(&id, Duration::ZERO).await?;
            return Err(RuntimeError::Gate { id, source });
        }
        backend.gated = true;
        Ok(backend)
    }

    /// Tells a spare what to become, lets it, and records where it is now.
    fn let_go(&self, id: &BackendId, pid: u32, order: &Order) -> Result<(), RuntimeError> {
        let failed = |source| RuntimeError::Gate {
            id: id.clone(),
            source,
        };
        let record = self.record(id)?;
        let mut record = record.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        launch::port_free(order)?;
        let log = log::create(&self.state_dir, &order.service, order.slot_port)?;
        let text = launch::Text::of(order, &self.state_dir)?;
        gated::tell(&record::dir(&self.state_dir), pid, &text, &log.path)?;
        gate::open(pid, self.gate.path()).map_err(failed)?;
        // Not before: who finds it at its gate must find it as a spare.
        record.place(order, log.path);
        record.write(&self.state_dir)
    }

    fn backend(&self, record: &Record, running: bool) -> Backend {
        let pid = u32::try_from(record.pid).ok().filter(|_| running);
        let waits = |pid| gate::is_closed(pid, self.gate.path());
        Backend {
            id: BackendId(record.pid.to_string()),
            service: record.service.clone(),
            slot: record.slot,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, record.port)),
            pid,
            netns: None,
            running,
            gated: record.slot.is_none() && pid.is_some_and(waits),
            age: record.age(),
            spec: record.spec.clone(),
        }
    }

    /// Records and follows a child that was just spawned.
    fn adopt_child(&self, order: &Order, pid: i32, log: PathBuf) -> Result<Backend, RuntimeError> {
        let gone = |source| RuntimeError::Spawn {
            program: order.backend.command.join(" "),
            service: order.service.clone(),
            source,
        };
        let group = Group::open(pid).map_err(gone)?;
        let record = Record::of_child(&self.instance, order, pid, log).map_err(gone)?;
        // Before there is a record: one that is adopted is limited.
        self.limits
            .apply(pid, order.backend.memory, order.backend.cpus);
        record.write(&self.state_dir)?;
        self.follow(&mut self.groups(), group);
        Ok(self.backend(&record, true))
    }

    /// Waits in the background for the end of a group.
    fn follow(&self, groups: &mut HashMap<i32, Arc<Group>>, group: Group) -> Arc<Group> {
        let group = Arc::new(group);
        groups.insert(group.pid(), group.clone());
        let exits = self.exits.clone();
        let followed = group.clone();
        tokio::spawn(async move {
            let how = followed.until_end().await;
            let id = BackendId(followed.pid().to_string());
            // Fails only if the runtime itself was dropped.
            let _ = exits.send(RuntimeEvent::Exited { id, how });
        });
        group
    }

    /// The group of a record, adopted if an earlier controller started it. `None` if it is dead.
    fn group_of(&self, record: &Record) -> Option<Arc<Group>> {
        let mut groups = self.groups();
        if let Some(group) = groups.get(&record.pid) {
            return Some(group.clone());
        }
        // First the descriptor, then the check: the descriptor pins what was checked.
        let group = Group::open(record.pid).ok()?;
        record.is_alive().then(|| self.follow(&mut groups, group))
    }

    async fn end(&self, record: &Record, grace: Duration) -> Result<(), RuntimeError> {
        let Some(group) = self.group_of(record) else {
            if proc::stat(record.pid).is_none_or(|stat| stat.start_ticks == record.start_ticks) {
                group::bury(record.pid).await;
            }
            return Ok(());
        };
        if !grace.is_zero() {
            group.terminate();
            if tokio::time::timeout(grace, group.ended()).await.is_ok() {
                return Ok(());
            }
        }
        group.kill();
        tokio::time::timeout(KILL_LIMIT, group.ended())
            .await
            .map_err(|_| RuntimeError::File {
                path: proc::dir(record.pid),
                source: io::Error::new(io::ErrorKind::TimedOut, "SIGKILL did not end it"),
            })
    }
}

impl Runtime for ProcessRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    fn check<'a>(&'a self, service: &'a str, backend: &'a BackendConfig) -> Answer<'a, ()> {
        Box::pin(async move { launch::check_program(service, backend) })
    }

    fn check_spares(&self, _: &ScaleConfig) -> Result<(), RuntimeError> {
        self.gate.check()
    }

    fn create<'a>(&'a self, order: &'a Order) -> Answer<'a, Prepared> {
        Box::pin(async move {
            launch::check_program(&order.service, &order.backend)?;
            Ok(Prepared {
                order: order.clone(),
                id: BackendId(String::new()),
            })
        })
    }

    fn start(&self, prepared: Prepared) -> Answer<'_, Backend> {
        Box::pin(async move {
            if prepared.order.gated {
                return self.launch_gated(&prepared.order).await;
            }
            self.launch(&prepared.order)
        })
    }

    fn stop<'a>(&'a self, id: &'a BackendId, grace: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            let Some(record) = self.record(id)? else {
                return Ok(());
            };
            self.end(&record, grace).await?;
            limits::remove(record.pid);
            gated::forget(&record::dir(&self.state_dir), record.pid);
            record.remove(&self.state_dir)?;
            self.groups().remove(&record.pid);
            Ok(())
        })
    }

    fn open(&self, id: &BackendId, pid: u32, order: &Order) -> Result<(), RuntimeError> {
        self.let_go(id, pid, order)
    }

    fn list(&self) -> Answer<'_, Vec<Backend>> {
        Box::pin(async move {
            let begin = || start::end_unrecorded(&self.state_dir, &self.instance);
            self.begun.get_or_try_init(begin).await?;
            let records = record::all(&self.state_dir, &self.instance)?;
            let backends = records.iter().map(|record| {
                log::bound(&record.log);
                let group = self.group_of(record);
                self.backend(record, group.is_some_and(|group| !group.has_ended()))
            });
            Ok(backends.collect())
        })
    }

    fn log_tail<'a>(&'a self, id: &'a BackendId, lines: usize) -> Answer<'a, String> {
        Box::pin(async move {
            match self.record(id)? {
                Some(record) => log::tail(&record.log, lines),
                None => Ok(String::new()),
            }
        })
    }

    fn watch(
        self: Arc<Self>,
        events: mpsc::Sender<RuntimeEvent>,
    ) -> futures_util::future::BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut exited = self.exited.lock().await;
            loop {
                let event = tokio::select! {
                    event = exited.recv() => event,
                    () = events.closed() => None,
                };
                let Some(event) = event else { return };
                if events.send(event).await.is_err() {
                    return;
                }
            }
        })
    }
}

impl ProcessRuntime {
    fn record(&self, id: &BackendId) -> Result<Option<Record>, RuntimeError> {
        match id.0.parse() {
            Ok(pid) => record::read(&self.state_dir, &self.instance, pid),
            Err(_) => Ok(None),
        }
    }
}

/// Ends a child that could not be recorded.
fn abandon(pid: i32) {
    group::kill_child(pid);
    limits::remove(pid);
}

/// Names the file in an error of the file system.
fn in_file(path: &Path) -> impl FnOnce(io::Error) -> RuntimeError {
    let path = path.to_owned();
    move |source| RuntimeError::File { path, source }
}
