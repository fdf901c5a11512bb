//! The controller: one task that owns the state. Everything that happens reaches it as an
//! `Event`; after each it plans and executes until nothing is left to do now. Runtimes work in
//! tasks of their own and report back; the data plane is called directly, since its calls are a
//! few system calls.

mod adopt;
mod command;
mod compare;
mod consult;
mod deliver;
mod door;
mod error;
mod event;
mod execute;
mod gauge;
mod handshake;
mod hold;
mod hosted;
mod observe;
mod offence;
mod orphan;
mod outcome;
mod publish;
mod recheck;
mod reload;
mod request;
mod retired;
mod runtimes;
mod spare;
mod suspicion;
mod tables;
mod terms;
#[cfg(test)]
mod tests;
mod wake;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use orch_common::{counter::Reason, latency::Histogram, slot::SlotKey};
use tokio::{sync::mpsc, time::Instant};

pub use self::{
    deliver::can_deliver,
    door::{Door, door},
    error::RunError,
    event::Signal,
    runtimes::Runtimes,
    tables::{Outcome, Tables},
};
use self::{
    event::Event, handshake::Handshakes, hold::Holds, hosted::Hosted, offence::Offences,
    suspicion::Suspect,
};
use crate::{
    config::Config,
    dataplane::SlotReading,
    delivery::Host,
    health::{
        polls::Polls,
        probe::{Prober, Task},
    },
    metrics::Durations,
    ports::Claims,
    runtime::{BackendId, Prepared, RuntimeKind},
    state::{Desired, Moment, Observed},
};

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
    /// How often that was so though the probe was good.
    offences: BTreeMap<SlotKey, Offences>,
    /// Whose clients get no answer to their SYNs.
    handshakes: Handshakes,
    /// Slots whose backend is probed eagerly, because somebody waits for it.
    eager: BTreeSet<SlotKey>,
    holds: Holds,
    /// A spare has a slot, and a later controller could not know which.
    unkept: bool,
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
    detection: Durations,
    recovery: Durations,
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
            offences: BTreeMap::new(),
            handshakes: Handshakes::default(),
            eager: BTreeSet::new(),
            holds: Holds::default(),
            unkept: false,
            lost: BTreeSet::new(),
            listing: BTreeSet::new(),
            trouble: None,
            first_generation: 1,
            readings: BTreeMap::new(),
            latencies: BTreeMap::new(),
            polls: BTreeMap::new(),
            reasons: [0; Reason::COUNT],
            flows: 0,
            detection: Durations::default(),
            recovery: Durations::default(),
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
                    self.keep_places();
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
            Event::Links => self.mind_interfaces(),
            Event::Held => self.take_held(),
            Event::Gateway => self.gateway_rang(),
            Event::Waits(service) => self.somebody_waits(service),
            Event::Pace => self.paced(),
            Event::Replay => self.replay(),
            Event::Orphans => self.mind_orphans(),
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
