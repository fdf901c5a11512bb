//! The controller: one task that owns the state. Everything that happens reaches it as an
//! [`Event`]; after each it plans and executes until nothing is left to do now. Runtimes work in
//! tasks of their own and report back; the data plane is called directly, since its calls are a
//! few system calls.

mod adopt;
mod command;
mod consult;
mod deliver;
mod execute;
mod gauge;
mod hold;
mod hosted;
mod observe;
mod outcome;
mod publish;
mod reload;
mod request;
mod runtimes;
mod spare;
mod suspicion;
mod tables;
#[cfg(test)]
mod tests;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use orch_common::{counter::Reason, latency::Histogram, slot::SlotKey};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use self::{consult::ConsultError, hold::Holds, hosted::Hosted, outcome::Done, suspicion::Suspect};
pub use self::{
    deliver::can_deliver,
    runtimes::Runtimes,
    tables::{Outcome, Tables},
};
use crate::{
    beat::Beats,
    config::{Config, ConfigError},
    control::{Command, Control, Reply},
    dataplane::{DataplaneError, SlotReading},
    delivery::Host,
    events::Journal,
    health::{
        Answer,
        polls::Polls,
        probe::{Prober, Task},
    },
    history::History,
    plan,
    ports::Claims,
    runtime::{Backend, BackendId, Prepared, RuntimeError, RuntimeEvent, RuntimeKind},
    state::{Desired, Moment, Observed},
    view::Snapshot,
};

/// Two ticks are never closer than this, whatever is due.
const TICK_FLOOR: Duration = Duration::from_millis(10);

/// What the controller is told from outside.
#[derive(Debug)]
pub enum Signal {
    /// SIGHUP, with the file's new contents.
    Reload(Box<Config>),
    /// SIGHUP, and the file cannot be used.
    Unreadable(ConfigError),
    /// The end. A second one without `keep` ends at once.
    Shutdown {
        /// SIGTERM: backends and data plane stay, for the next controller. Else, SIGINT: drains
        /// and stops everything, and detaches.
        keep: bool,
    },
}

/// Why the controller cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data plane cannot be used.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// A service's backends cannot be made.
    #[error("service {service} cannot run")]
    Runtime {
        /// The service.
        service: String,
        /// Why.
        #[source]
        source: RuntimeError,
    },
    /// What runs already cannot be listed.
    #[error("cannot see what {runtime} backends run already")]
    List {
        /// Which runtime.
        runtime: &'static str,
        /// Why.
        #[source]
        source: RuntimeError,
    },
    /// The end came before every backend could be stopped.
    #[error(
        "{backends} could not be stopped and is left behind: once its runtime answers, run `orch down`"
    )]
    LeftBehind {
        /// Their ids, separated by commas.
        backends: String,
    },
    /// A service's connections cannot go straight to its containers, as the file demands.
    #[error(
        "service {service} cannot have delivery = \"direct\" here: {reason}; write \"auto\" in [dataplane]"
    )]
    Delivery {
        /// The service.
        service: String,
        /// Why not.
        reason: String,
    },
    /// A service's spares could not be reached.
    #[error(
        "service {service} cannot have spares here: they need direct delivery, and {reason}; write spares = 0"
    )]
    Spares {
        /// The service.
        service: String,
        /// Why not.
        reason: String,
    },
    /// A service needs a runtime that is not there.
    #[error("service {service} needs the {runtime} runtime, which is not available here")]
    NoRuntime {
        /// The service.
        service: String,
        /// The runtime.
        runtime: &'static str,
    },
}

/// The controller's side of the door whose other side is [`Control`].
#[derive(Debug)]
pub struct Door {
    snapshot: watch::Sender<Arc<Snapshot>>,
    journal: Journal,
    history: History,
    commands: mpsc::Receiver<Command>,
}

/// A door, both sides: one for the API, one for [`run`].
pub fn door() -> (Control, Door) {
    let (snapshot, seen) = watch::channel(Arc::default());
    let (sender, commands) = mpsc::channel(16);
    let journal = Journal::default();
    let history = History::default();
    let control = Control {
        snapshot: seen,
        journal: journal.clone(),
        history: history.clone(),
        commands: sender,
        source: None,
    };
    let door = Door {
        snapshot,
        journal,
        history,
        commands,
    };
    (control, door)
}

/// Runs the controller until it is told to end. Adopts what an earlier one left behind. Check
/// runtimes and host against `config`, claim its ports and open the data plane before. Where this
/// fails at its start, and the data plane held no slot before, the data plane is detached again.
pub async fn run<T: Tables>(
    config: Config,
    tables: T,
    edges: Edges,
    door: Door,
    signals: mpsc::Receiver<Signal>,
) -> Result<(), RunError> {
    Controller::new(config, tables, edges, door, signals)
        .run()
        .await
}

/// Everything that can happen to the controller.
#[derive(Debug)]
enum Event {
    /// Time has passed.
    Tick,
    /// The kernel has seen a backend die or refuse.
    Kernel,
    /// The kernel holds SYNs.
    Held,
    /// A request waits at the gateway, or a copy has refused it.
    Gateway,
    /// A connection of this host waits for this service.
    Waits(u16),
    /// The next held SYNs may go.
    Pace,
    /// A backend has died a moment ago: SYNs on their way to it have had no answer.
    Replay,
    /// A runtime noticed something.
    Runtime(RuntimeEvent),
    /// A backend was probed.
    Probe {
        key: SlotKey,
        id: BackendId,
        answer: Answer,
    },
    /// A runtime has finished what it was asked for.
    Done(Done),
    /// A runtime has said what runs. `asked_at` tells which changes it may not know yet.
    Listed {
        runtime: RuntimeKind,
        asked_at: Moment,
        result: Result<Vec<Backend>, RuntimeError>,
    },
    /// A service's program was asked how many copies there should be.
    Consulted {
        service: String,
        result: Result<i32, ConsultError>,
    },
    /// Somebody asks for a change.
    Command(Command),
    /// A new configuration was checked against the runtimes.
    Checked {
        result: Result<Box<Config>, RunError>,
        answer: Option<Reply>,
    },
    /// The outside world wants something.
    Signal(Signal),
}

/// The way to the end.
#[derive(Debug)]
struct Closing {
    deadline: Moment,
    hurry: bool,
}

/// Where the controller meets the world, besides the data plane.
pub struct Edges {
    /// What makes backends.
    pub runtimes: Runtimes,
    /// The ports that are claimed.
    pub claims: Claims,
    /// Who asks backends how they are.
    pub prober: Arc<dyn Prober>,
    /// What this host can do.
    pub host: Host,
}

struct Controller<T> {
    tables: T,
    runtimes: Runtimes,
    claims: Claims,
    prober: Arc<dyn Prober>,
    host: Host,
    door: Door,
    signals: mpsc::Receiver<Signal>,
    events: mpsc::UnboundedReceiver<Event>,
    report: mpsc::UnboundedSender<Event>,
    started: Instant,
    /// What holds for the controller's whole life, whatever is reloaded. Its services are in `services`.
    config: Config,
    services: Vec<Hosted>,
    observed: Observed,
    prepared: BTreeMap<SlotKey, (RuntimeKind, Prepared)>,
    probes: BTreeMap<SlotKey, Task>,
    /// Backends that ended before their start was reported.
    early_exits: Vec<(BackendId, String)>,
    /// Slots that the kernel passes by, until a probe says that they are well.
    suspects: BTreeMap<SlotKey, Suspect>,
    /// Slots whose backend is probed eagerly, because somebody waits for it.
    eager: BTreeSet<SlotKey>,
    holds: Holds,
    lost: BTreeSet<RuntimeKind>,
    /// Runtimes that were asked what runs and have not answered.
    listing: BTreeSet<RuntimeKind>,
    /// The last trouble with the data plane and when it was told, so that it is told seldom.
    trouble: Option<(String, Moment)>,
    /// Generation of a slot that the kernel did not know at the start: above all that it knew.
    first_generation: u32,
    readings: BTreeMap<SlotKey, SlotReading>,
    latencies: BTreeMap<SlotKey, Histogram>,
    polls: BTreeMap<SlotKey, Polls>,
    reasons: [u64; Reason::COUNT],
    flows: u64,
    detection_s: VecDeque<f64>,
    recovery_s: VecDeque<f64>,
    ticked_at: Moment,
    second: u64,
    dirty: bool,
    closing: Option<Closing>,
    watchers: Vec<Task>,
}

/// Whether the controller goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Onward {
    Continue,
    /// Leave everything as it is.
    Leave,
    /// Everything is stopped, or given up.
    Detach,
}

impl<T: Tables> Controller<T> {
    fn new(
        config: Config,
        tables: T,
        edges: Edges,
        door: Door,
        signals: mpsc::Receiver<Signal>,
    ) -> Self {
        let Edges {
            runtimes,
            claims,
            prober,
            host,
        } = edges;
        let (report, events) = mpsc::unbounded_channel();
        Self {
            tables,
            runtimes,
            claims,
            prober,
            host,
            door,
            signals,
            events,
            report,
            started: Instant::now(),
            config,
            services: Vec::new(),
            observed: Observed::default(),
            prepared: BTreeMap::new(),
            probes: BTreeMap::new(),
            early_exits: Vec::new(),
            suspects: BTreeMap::new(),
            eager: BTreeSet::new(),
            holds: Holds::default(),
            lost: BTreeSet::new(),
            listing: BTreeSet::new(),
            trouble: None,
            first_generation: 1,
            readings: BTreeMap::new(),
            latencies: BTreeMap::new(),
            polls: BTreeMap::new(),
            reasons: [0; Reason::COUNT],
            flows: 0,
            detection_s: VecDeque::new(),
            recovery_s: VecDeque::new(),
            ticked_at: Moment::ZERO,
            second: 0,
            dirty: true,
            closing: None,
            watchers: Vec::new(),
        }
    }

    async fn run(mut self) -> Result<(), RunError> {
        if let Err(error) = self.begin().await {
            if self.readings.is_empty() {
                self.tables.detach()?;
            }
            return Err(error);
        }
        self.watch();
        loop {
            self.settle();
            self.release();
            self.release_ports();
            self.publish();
            let event = self.next_event().await;
            match self.handle(event) {
                Onward::Continue => {}
                Onward::Leave => {
                    self.hand_back();
                    return Ok(());
                }
                Onward::Detach => break,
            }
        }
        self.publish();
        let left = self.left_behind();
        self.tables.detach()?;
        if left.is_empty() {
            return Ok(());
        }
        Err(RunError::LeftBehind {
            backends: left.join(", "),
        })
    }

    fn now(&self) -> Moment {
        self.started.elapsed()
    }

    /// Has every runtime tell what it notices.
    fn watch(&mut self) {
        if let Some(bell) = self.tables.bell() {
            let ring = ring(bell, self.report.clone(), || Event::Kernel);
            self.watchers.push(Task(tokio::spawn(ring)));
        }
        if let Some(bell) = self.tables.hold_bell() {
            let ring = ring(bell, self.report.clone(), || Event::Held);
            self.watchers.push(Task(tokio::spawn(ring)));
        }
        if let Some(bell) = self.tables.wait_bell() {
            let ring = ring(bell, self.report.clone(), || Event::Gateway);
            self.watchers.push(Task(tokio::spawn(ring)));
        }
        for runtime in self.runtimes.all() {
            let (sender, mut receiver) = mpsc::channel(64);
            let watch = Arc::clone(runtime).watch(sender);
            self.watchers.push(Task(tokio::spawn(watch)));
            let report = self.report.clone();
            self.watchers.push(Task(tokio::spawn(async move {
                while let Some(event) = receiver.recv().await {
                    if report.send(Event::Runtime(event)).is_err() {
                        return;
                    }
                }
            })));
        }
    }

    async fn next_event(&mut self) -> Event {
        let wake = self.next_wake();
        tokio::select! {
            biased;
            Some(signal) = self.signals.recv() => Event::Signal(signal),
            Some(command) = self.door.commands.recv() => Event::Command(command),
            Some(event) = self.events.recv() => event,
            () = sleep_until(wake) => Event::Tick,
        }
    }

    fn next_wake(&self) -> Instant {
        let windows = self
            .services
            .iter()
            .filter_map(|hosted| hosted.policy.scaler().wake(&hosted.config.scale));
        let planned = plan::next_moment(&self.desired(), &self.observed, self.now());
        // The kernel's counts are read at every beat: so late can a window be seen to start, and a
        // drained backend to be drained.
        let beat = self.beats().after(self.started + self.ticked_at);
        let due = windows.chain(planned).min();
        let due = due.map_or(beat, |due| beat.min(self.started + due));
        due.max(self.started + self.ticked_at + TICK_FLOOR)
    }

    fn beats(&self) -> Beats {
        Beats::from(self.started)
    }

    fn desired(&self) -> Desired {
        let closing = self.closing.as_ref();
        let wish = |hosted: &Hosted| hosted.wish(closing);
        Desired {
            services: self.services.iter().map(wish).collect(),
        }
    }

    fn handle(&mut self, event: Event) -> Onward {
        match event {
            Event::Tick => self.tick(),
            Event::Kernel => self.suspect(),
            Event::Held => self.take_held(),
            Event::Gateway => self.gateway_rang(),
            Event::Waits(service) => self.somebody_waits(service),
            Event::Pace => self.paced(),
            Event::Replay => self.replay(),
            Event::Runtime(event) => self.noticed(event),
            Event::Probe { key, id, answer } => self.probed(key, &id, answer),
            Event::Done(done) => self.done(done),
            Event::Listed {
                runtime,
                asked_at,
                result,
            } => self.listed(runtime, asked_at, result),
            Event::Consulted { service, result } => self.consulted(&service, result),
            Event::Command(command) => self.command(command),
            Event::Checked { result, answer } => self.reload(result, answer),
            Event::Signal(signal) => return self.signal(signal),
        }
        self.check_closed()
    }
}

/// Tells the loop whenever the kernel has something to tell, until one of them ends.
#[expect(
    deprecated,
    reason = "the successor is unsafe for descriptors that may close; an owned one does not"
)]
async fn ring(
    bell: OwnedFd,
    report: mpsc::UnboundedSender<Event>,
    event: impl Fn() -> Event + Send,
) {
    let Ok(bell) = AsyncFd::with_interest(bell, Interest::READABLE) else {
        return;
    };
    while let Ok(mut ready) = bell.readable().await {
        ready.clear_ready();
        if report.send(event()).is_err() {
            return;
        }
    }
}
