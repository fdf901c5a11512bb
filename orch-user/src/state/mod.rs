//! What is wanted and what is seen: plain data, and the steps it takes. No IO and no clock.

mod slot;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use orch_common::{layout::SLOTS_PER_SERVICE, slot::SlotKey};

pub use self::slot::{
    BACKOFF_FIRST, BACKOFF_MAX, BACKOFF_RESET, KernelSlot, Next, SlotSeen, crash_delay,
};
use crate::{
    config::SpareKind,
    health::{Answer, Health},
    runtime::{Backend, BackendId, RuntimeKind},
};

/// A time, counted from the controller's start.
pub type Moment = Duration;

/// Number of the first spare. A spare has no slot, but a place of its own in the same table, above
/// all slots: it is made, probed and stopped as a slot's backend is. The kernel knows none of them.
pub const FIRST_SPARE: u16 = SLOTS_PER_SERVICE as u16;
/// Between two tries to stop a backend.
pub const STOP_RETRY: Duration = Duration::from_secs(1);

/// What should be: one wish per service, in the order of their indices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Per service.
    pub services: Vec<Wish>,
}

/// What a service should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Slots `0..copies` should be in the ring.
    pub copies: u16,
    /// Slots `copies..warm` should run and be well, but stay out of the ring. At least `copies`.
    pub warm: u16,
    /// Most slots that may run at a time.
    pub limit: u16,
    /// Digest that backends must have been ordered with.
    pub spec: String,
    /// A new backend needs no port of this host, so that the one before it may still be there.
    pub overlap: bool,
    /// Slots whose backends cannot be had as the others are, and their digests: they need a port of
    /// this host, and no spare.
    pub apart: BTreeMap<u16, String>,
    /// Ready backends at hand for any slot. None without `overlap`: a port cannot change hands.
    pub spares: u16,
    /// How they wait.
    pub spare_kind: SpareKind,
    /// How long live flows may take to finish before a stop.
    pub drain_limit: Duration,
    /// Between SIGTERM and SIGKILL, for a backend that is well.
    pub stop_grace: Duration,
}

/// What is.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Per service, in the order of their indices.
    pub services: Vec<ServiceSeen>,
    /// Backends of ours that belong nowhere.
    pub strays: BTreeMap<BackendId, Stray>,
}

/// A backend that belongs nowhere: it has to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// What runs it.
    pub runtime: RuntimeKind,
    /// A stop is on its way.
    pub stopping: bool,
    /// When to try (again).
    pub retry_at: Moment,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// The slot that it was in, if it made room for another.
    pub left: Option<SlotKey>,
}

/// A service as it is.
#[derive(Clone, Debug, Default)]
pub struct ServiceSeen {
    /// Slot 0's port.
    pub start_port: u16,
    /// The ring in force; `None` while that is not known.
    pub ring: Option<Vec<u16>>,
    /// When live flows were last read.
    pub read_at: Moment,
    /// Slots by number, and spares from [`FIRST_SPARE`] on. A slot that is not needed any more stays here, since generations must not
    /// repeat and a crash loop must not be forgotten.
    pub slots: BTreeMap<u16, SlotSeen>,
}

/// A backend that runs, as far as is known.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its identity.
    pub id: BackendId,
    /// What runs it.
    pub runtime: RuntimeKind,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its first process, as this host numbers it.
    pub pid: Option<u32>,
    /// The file of its network namespace, if connections go straight to its address.
    pub netns: Option<PathBuf>,
    /// It is a spare that has no processor until it is needed.
    pub frozen: bool,
    /// It is a spare whose program has not begun. Nobody asks it how it is.
    pub gated: bool,
    /// The digest it was ordered with.
    pub spec: String,
    /// When this controller first saw it.
    pub seen_at: Moment,
    /// How old it was then.
    pub age: Duration,
    /// How it is.
    pub health: Health,
    /// On its way in or out.
    pub life: Life,
    /// Why it has to go at once.
    pub fault: Option<Fault>,
    /// No stop is tried before.
    pub stop_at: Moment,
}

/// Where a backend is between coming and going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It serves, or will.
    Running,
    /// It is out of the ring and its flows may finish.
    Draining {
        /// Since when.
        since: Moment,
    },
    /// The runtime is stopping it.
    Stopping,
}

/// What is wrong with a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When it was noticed.
    pub at: Moment,
    /// What it is.
    pub cause: Cause,
}

/// Why a backend is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its probes say so; the last answer.
    Unhealthy(Answer),
    /// Its traffic fails while that of others does not, whatever its probes say.
    Failing,
    /// It never became well; the last answer.
    StartLimit(Answer),
    /// It ended by itself; how.
    Exited(String),
    /// The runtime does not know it any more.
    Gone,
    /// It cannot be frozen or thawed; why.
    Freezer(String),
    /// Its gate cannot be opened; why.
    Gate(String),
    /// Connections cannot be led straight to it; why.
    Unreachable(String),
    /// The configuration wants another.
    Changed,
    /// Somebody wants another.
    Stopped,
}

impl Cause {
    /// The metric label.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unhealthy(_) => "unhealthy",
            Self::Failing => "failing",
            Self::StartLimit(_) => "start_limit",
            Self::Exited(_) => "exited",
            Self::Gone => "gone",
            Self::Freezer(_) => "freezer",
            Self::Gate(_) => "gate",
            Self::Unreachable(_) => "unreachable",
            Self::Changed => "changed",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unhealthy(answer) => write!(f, "its probe {answer}"),
            Self::Failing => f.write_str(
                "its probe is good, and its requests failed three times within a minute while those of others did not",
            ),
            Self::StartLimit(answer) => {
                write!(f, "no 200 within the start limit, its last probe {answer}")
            }
            Self::Exited(how) => write!(f, "it ended: {how}"),
            Self::Gone => f.write_str("it is gone"),
            Self::Freezer(why) | Self::Gate(why) | Self::Unreachable(why) => f.write_str(why),
            Self::Changed => f.write_str("the configuration wants another"),
            Self::Stopped => f.write_str("it was stopped by hand"),
        }
    }
}

impl Wish {
    /// The digest that the backend of a slot must have been ordered with.
    pub fn spec_of(&self, slot: u16) -> &str {
        self.apart.get(&slot).unwrap_or(&self.spec)
    }

    /// Whether a new backend of the slot may come while the one before it is still there.
    pub fn overlaps(&self, slot: u16) -> bool {
        self.overlap && !self.apart.contains_key(&slot)
    }
}

impl ServiceSeen {
    /// The port of a slot.
    pub const fn port(&self, slot: u16) -> u16 {
        self.start_port.saturating_add(slot)
    }

    /// The ports of slots in which something runs or is about to, wanted or not.
    pub fn busy_ports(&self) -> impl Iterator<Item = u16> {
        let slots = self.slots.range(..FIRST_SPARE);
        let busy = slots.filter(|(_, slot)| !slot.is_idle());
        busy.map(|(number, _)| self.port(*number))
    }

    /// Whether the ring in force has the slot. A ring that is not known may have any.
    pub fn in_ring(&self, slot: u16) -> bool {
        self.ring.as_ref().is_none_or(|ring| ring.contains(&slot))
    }

    /// Whether nothing runs, is about to, or is known to the kernel.
    pub fn is_idle(&self) -> bool {
        self.slots.values().all(SlotSeen::is_idle)
    }

    /// Where a backend of this slot will listen, as far as one can know before it does.
    pub const fn expected_address(&self, slot: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.port(slot))
    }
}

impl Running {
    /// A backend that is seen for the first time.
    pub fn new(backend: Backend, runtime: RuntimeKind, health: Health, now: Moment) -> Self {
        Self {
            id: backend.id,
            runtime,
            address: backend.address,
            pid: backend.pid,
            netns: backend.netns,
            frozen: false,
            gated: backend.gated,
            spec: backend.spec,
            seen_at: now,
            age: backend.age,
            health,
            life: Life::Running,
            fault: None,
            stop_at: Moment::ZERO,
        }
    }

    /// Notes that its program begins only now: what a start may take is counted from here.
    pub fn begin(&mut self, now: Moment) {
        self.gated = false;
        self.age += now.saturating_sub(self.seen_at);
        self.seen_at = now;
    }

    /// Has it make room for another that is no different: no configuration has this digest.
    pub fn dismiss(&mut self) {
        self.spec.clear();
    }

    /// Why it drains although its slot is wanted.
    pub const fn cause_to_drain(&self) -> Cause {
        if self.spec.is_empty() {
            Cause::Stopped
        } else {
            Cause::Changed
        }
    }

    /// Whether connections can go straight to its address: it has one, and it is there. One that is
    /// being stopped still finishes what it has begun.
    pub const fn is_reached_directly(&self) -> bool {
        self.netns.is_some() && self.fault.is_none() && self.health.since.is_some()
    }
}
