//! What is wanted and what is seen: plain data, and the steps it takes. No IO and no clock.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use orch_common::{
    layout::SLOTS_PER_SERVICE,
    slot::{SlotKey, SlotState},
};

use crate::{
    health::{Answer, Health},
    runtime::{Backend, BackendId, RuntimeKind},
};

/// A time, counted from the controller's start.
pub type Moment = Duration;

/// First wait of a crash loop.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest wait of a crash loop.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Health that ends a crash loop.
pub const BACKOFF_RESET: Duration = Duration::from_secs(10);
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
    /// Ready backends at hand for any slot. None without `overlap`: a port cannot change hands.
    pub spares: u16,
    /// Spares do not run until they are needed.
    pub freeze: bool,
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

/// A slot as it is.
#[derive(Clone, Debug)]
pub struct SlotSeen {
    /// Generation of the backend in the slot, or else of the next one.
    pub generation: u32,
    /// What the kernel holds of the slot.
    pub kernel: Option<KernelSlot>,
    /// Connections that are open now.
    pub live: u64,
    /// The backend in the slot.
    pub current: Option<Running>,
    /// The one that comes after it.
    pub next: Next,
    /// Failures in a row.
    pub failures: u32,
    /// Nothing is created before.
    pub retry_at: Moment,
    /// Since when the slot has been without a backend that is well, and why.
    pub broken: Option<Fault>,
    /// What is wrong, for a person: last answer, tail of the log. Empty if nothing is.
    pub note: String,
    /// Since when the data plane has refused the backend in the slot.
    pub refused_since: Option<Moment>,
    /// When a runtime last did something here. Lists that were asked for earlier say nothing.
    pub touched_at: Moment,
}

/// A slot as the kernel should have it, or has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSlot {
    /// What it does.
    pub state: SlotState,
    /// Generation of its backend.
    pub generation: u32,
    /// Where the backend listens.
    pub address: SocketAddr,
}

/// The backend that a slot will have next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// None.
    #[default]
    None,
    /// The runtime is preparing it.
    Creating,
    /// It can be started as soon as the port is free.
    Prepared {
        /// The digest it was ordered with.
        spec: String,
    },
    /// The runtime is starting it.
    Starting,
    /// It is not wanted any more and the runtime is removing it.
    Discarding,
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
    /// It never became well; the last answer.
    StartLimit(Answer),
    /// It ended by itself; how.
    Exited(String),
    /// The runtime does not know it any more.
    Gone,
    /// It cannot be frozen or thawed; why.
    Freezer(String),
    /// The configuration wants another.
    Changed,
}

impl Cause {
    /// The metric label.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unhealthy(_) => "unhealthy",
            Self::StartLimit(_) => "start_limit",
            Self::Exited(_) => "exited",
            Self::Gone => "gone",
            Self::Freezer(_) => "freezer",
            Self::Changed => "changed",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unhealthy(answer) => write!(f, "its probe {answer}"),
            Self::StartLimit(answer) => {
                write!(f, "no 200 within the start limit, its last probe {answer}")
            }
            Self::Exited(how) => write!(f, "it ended: {how}"),
            Self::Gone => f.write_str("it is gone"),
            Self::Freezer(why) => f.write_str(why),
            Self::Changed => f.write_str("the configuration wants another"),
        }
    }
}

impl ServiceSeen {
    /// The port of a slot.
    pub const fn port(&self, slot: u16) -> u16 {
        self.start_port.saturating_add(slot)
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
            spec: backend.spec,
            seen_at: now,
            age: backend.age,
            health,
            life: Life::Running,
            fault: None,
            stop_at: Moment::ZERO,
        }
    }

    /// Whether connections can go straight to its address: it has one, and it is there.
    pub fn is_reached_directly(&self) -> bool {
        let there = self.fault.is_none() && self.life != Life::Stopping;
        self.netns.is_some() && there && self.health.since.is_some()
    }
}

impl SlotSeen {
    /// A slot in which nothing runs.
    pub const fn new(generation: u32) -> Self {
        Self {
            generation,
            kernel: None,
            live: 0,
            current: None,
            next: Next::None,
            failures: 0,
            retry_at: Moment::ZERO,
            broken: None,
            note: String::new(),
            refused_since: None,
            touched_at: Moment::ZERO,
        }
    }

    /// Whether nothing runs, is about to, or is known to the kernel.
    pub fn is_idle(&self) -> bool {
        self.current.is_none() && self.next == Next::None && self.kernel.is_none()
    }

    /// Condemns the backend in the slot. A backend that had been well for long is replaced at
    /// once, and so is the first that fails early; from then on the slot waits.
    pub fn fail(&mut self, cause: Cause, now: Moment) {
        let Some(current) = &mut self.current else {
            return;
        };
        if current.fault.is_some() || current.life == Life::Stopping {
            return;
        }
        let well_for = current
            .health
            .since
            .map(|since| now.saturating_sub(since))
            .unwrap_or_default();
        let fault = Fault { at: now, cause };
        self.note = fault.cause.to_string();
        current.fault = Some(fault.clone());
        if well_for >= BACKOFF_RESET {
            self.failures = 0;
        }
        self.failures += 1;
        self.retry_at = now + crash_delay(self.failures);
        self.broken.get_or_insert(fault);
    }

    /// Notes that a backend could not be created or started.
    pub fn cannot_start(&mut self, why: String, now: Moment) {
        self.next = Next::None;
        self.failures += 1;
        // Unlike a crash, this rarely helps to repeat at once.
        self.retry_at = now + crash_delay(self.failures + 1);
        self.note = why;
        self.touched_at = now;
    }

    /// Adds the end of a failed backend's log to what is wrong, as long as that is.
    pub fn note_tail(&mut self, tail: Option<&str>) {
        if let Some(tail) = tail.filter(|tail| !tail.trim().is_empty() && self.broken.is_some()) {
            let lines: Vec<_> = tail.lines().map(str::trim_end).collect();
            self.note = format!("{}; its log ends: {}", self.note, lines.join(" | "));
        }
    }

    /// Notes that the backend in the slot is stopped and removed.
    pub fn stopped(&mut self, now: Moment) {
        self.current = None;
        self.refused_since = None;
        self.generation = self.generation.wrapping_add(1);
        self.touched_at = now;
    }

    /// Notes that the backend could not be stopped.
    pub fn cannot_stop(&mut self, now: Moment) {
        if let Some(current) = &mut self.current {
            // Drained or condemned it was before: either way the next try is a stop again.
            current.life = Life::Draining {
                since: Moment::ZERO,
            };
            current.stop_at = now + STOP_RETRY;
        }
    }

    /// Whether the backend is well, and nothing is about to end it.
    pub fn can_serve(&self) -> bool {
        self.current.as_ref().is_some_and(|current| {
            current.life == Life::Running
                && current.fault.is_none()
                && current.health.since.is_some()
        })
    }

    /// What a spare is doing.
    pub fn spare_state(&self, now: Moment) -> SlotState {
        if self.can_serve() {
            SlotState::Spare
        } else {
            self.state(false, now)
        }
    }

    /// What the slot is doing.
    pub fn state(&self, in_ring: bool, now: Moment) -> SlotState {
        match &self.current {
            Some(current) if current.fault.is_some() => SlotState::Failed,
            Some(current) => match current.life {
                Life::Draining { .. } => SlotState::Draining,
                Life::Stopping => SlotState::Stopping,
                Life::Running if in_ring => SlotState::Ready,
                Life::Running => SlotState::Starting,
            },
            None if self.next == Next::None && now < self.retry_at => SlotState::Backoff,
            None => SlotState::Starting,
        }
    }
}

/// How long a slot waits after so many failures in a row: not at all after the first, then 0.5 s,
/// doubling up to 30 s.
pub fn crash_delay(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        _ => BACKOFF_FIRST
            .saturating_mul(1_u32.checked_shl(failures - 2).unwrap_or(u32::MAX))
            .min(BACKOFF_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_half_a_minute() {
        let delays: Vec<_> = (1..=9).map(|n| crash_delay(n).as_millis()).collect();
        assert_eq!(
            delays,
            [0, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]
        );
        assert_eq!(crash_delay(u32::MAX), BACKOFF_MAX);
    }

    fn running(slot: &mut SlotSeen, well_since: Option<u64>) {
        slot.current = Some(Running {
            id: BackendId("a".into()),
            runtime: RuntimeKind::Process,
            address: ([127, 0, 0, 1], 8000).into(),
            pid: None,
            netns: None,
            frozen: false,
            spec: String::new(),
            seen_at: Moment::ZERO,
            age: Duration::ZERO,
            health: Health {
                since: well_since.map(Duration::from_secs),
                ..Health::default()
            },
            life: Life::Running,
            fault: None,
            stop_at: Moment::ZERO,
        });
    }

    #[test]
    fn a_crash_loop_waits_longer_each_time_until_it_was_well_for_ten_seconds() {
        let mut slot = SlotSeen::new(1);
        let mut now = Duration::from_secs(100);
        for wait in [0, 500, 1000, 2000] {
            running(&mut slot, None);
            slot.fail(Cause::Gone, now);
            assert_eq!(slot.retry_at.saturating_sub(now).as_millis(), wait);
            slot.stopped(now);
            now += Duration::from_secs(1);
        }
        running(&mut slot, Some(now.as_secs() - 10));
        slot.fail(Cause::Gone, now);
        assert_eq!((slot.failures, slot.retry_at), (1, now));
        assert_eq!(
            slot.broken.unwrap().at,
            Duration::from_secs(100),
            "since the first"
        );
    }

    #[test]
    fn a_fault_is_noted_once() {
        let mut slot = SlotSeen::new(1);
        running(&mut slot, None);
        slot.fail(
            Cause::Unhealthy(Answer::Status(500)),
            Duration::from_secs(1),
        );
        slot.fail(Cause::Gone, Duration::from_secs(2));
        assert_eq!(slot.failures, 1);
        assert_eq!(slot.note, "its probe answered 500");
    }
}
