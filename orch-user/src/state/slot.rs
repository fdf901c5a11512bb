//! A slot: what is in it, what comes next, and how failures are counted.

use std::{net::SocketAddr, time::Duration};

use orch_common::slot::SlotState;

use super::{Cause, Fault, Life, Moment, Running, STOP_RETRY};

/// First wait of a crash loop.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest wait of a crash loop.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Health that ends a crash loop.
pub const BACKOFF_RESET: Duration = Duration::from_secs(10);

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
    /// When the first of them was.
    pub failing_since: Moment,
    /// The last backend failed before it was ever well.
    pub fruitless: bool,
    /// Nothing is created before.
    pub retry_at: Moment,
    /// Since when the slot has been without a backend that is well, and why.
    pub broken: Option<Fault>,
    /// What is wrong, for a person: last answer, tail of the log. Empty if nothing is.
    pub note: String,
    /// Since when the data plane has refused the backend in the slot.
    pub refused_since: Option<Moment>,
    /// The backend before was replaced since the data plane could not reach it directly.
    pub odd_before: bool,
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
            failing_since: Moment::ZERO,
            fruitless: false,
            retry_at: Moment::ZERO,
            broken: None,
            note: String::new(),
            refused_since: None,
            odd_before: false,
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
        self.fruitless = current.health.since.is_none();
        let fault = Fault { at: now, cause };
        self.note = fault.cause.to_string();
        current.fault = Some(fault.clone());
        if well_for >= BACKOFF_RESET {
            self.failures = 0;
        }
        self.count_failure(now);
        self.retry_at = now + crash_delay(self.failures);
        self.broken.get_or_insert(fault);
    }

    const fn count_failure(&mut self, now: Moment) {
        if self.failures == 0 {
            self.failing_since = now;
        }
        self.failures += 1;
    }

    /// Forgets how often it failed: what is to run in it, or what it has to answer, is another now.
    pub fn begin_anew(&mut self, now: Moment) {
        self.failures = 0;
        self.fruitless = false;
        self.retry_at = self.retry_at.min(now);
    }

    /// Notes that a backend could not be created or started.
    pub fn cannot_start(&mut self, why: String, now: Moment) {
        self.next = Next::None;
        self.count_failure(now);
        self.fruitless = true;
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

    /// Whether it waits at its gate, and nothing is about to end it.
    pub fn is_gated(&self) -> bool {
        self.current.as_ref().is_some_and(|current| {
            current.gated && current.life == Life::Running && current.fault.is_none()
        })
    }

    /// Whether its backend could not be started or never became well, and the next try is not yet.
    pub fn is_hopeless(&self, now: Moment) -> bool {
        let over = match &self.current {
            Some(current) => current.fault.is_some(),
            None => self.next == Next::None && now < self.retry_at,
        };
        self.fruitless && over
    }

    /// What a spare is doing.
    pub fn spare_state(&self, now: Moment) -> SlotState {
        if self.can_serve() || self.is_gated() {
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
    use crate::{
        health::{Answer, Health},
        runtime::{BackendId, RuntimeKind},
    };

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
            gated: false,
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
