//! What people ask for, and the way to the end.

use std::time::Duration;

use super::{Closing, Controller, Onward, Signal, adopt::short, execute::whole, tables::Tables};
use crate::{
    control::{Command, CommandError, Recording},
    events::now_s,
    kept::HELD,
    plan::Action,
    scale::Decision,
    state::{Life, Moment, ServiceSeen},
    view::DecisionRow,
};

/// Beyond drain limit and stop grace, for the runtimes' own work.
const CLOSING_MARGIN: Duration = Duration::from_secs(10);
/// The same once somebody is in a hurry.
const HURRY_MARGIN: Duration = Duration::from_secs(5);

impl<T: Tables> Controller<T> {
    pub(super) fn command(&mut self, command: Command) {
        self.dirty = true;
        match command {
            Command::Scale {
                service,
                to,
                answer,
            } => {
                // Whoever asked may have gone; the change stays.
                let _ = answer.send(self.scale(&service, to));
            }
            Command::Reset { service, answer } => {
                let _ = answer.send(self.reset(&service));
            }
            Command::Record { service, answer } => {
                let _ = answer.send(self.recording(&service));
            }
            Command::Stop {
                service,
                slot,
                answer,
            } => {
                let _ = answer.send(self.renew(&service, slot));
            }
            Command::Reload { config, answer } => self.check(config, Some(answer)),
            Command::Log {
                service,
                slot,
                lines,
                answer,
            } => self.tell_log(&service, slot, lines, answer),
        }
    }

    fn scale(&mut self, service: &str, to: Option<u16>) -> Result<String, CommandError> {
        let at = self.position(service)?;
        self.goes_on()?;
        let Some(hosted) = self.services.get_mut(at) else {
            return Err(self.unknown(service));
        };
        let limits = &hosted.config.scale;
        if let Some(to) = to.filter(|to| !(limits.min..=limits.max).contains(to)) {
            return Err(CommandError::OutOfRange {
                service: service.to_owned(),
                to,
                min: limits.min,
                max: limits.max,
            });
        }
        let now = self.started.elapsed();
        let Some(decision) = hosted.policy.hold(to, now) else {
            return Err(self.unknown(service));
        };
        let sentence = format!("{}, {}", copies(decision.to), decision.reason);
        self.decided(at, decision);
        self.remember_the_waiting(at as u16);
        self.keep_held();
        Ok(sentence)
    }

    /// Whether there is a point in changing anything.
    pub(super) fn goes_on(&self) -> Result<(), CommandError> {
        match self.closing {
            Some(_) => Err(CommandError::Ends),
            None => Ok(()),
        }
    }

    /// Keeps what is set by hand for a later controller.
    pub(super) fn keep_held(&self) {
        let staying = self.services.iter().filter(|hosted| !hosted.leaving);
        let held = staying.filter_map(|hosted| {
            let to = hosted.policy.scaler().held()?;
            Some((hosted.config.name.clone(), to))
        });
        if let Err(error) = HELD.write(&self.config.state_dir, &self.instance(), &held.collect()) {
            let dir = self.config.state_dir.display();
            log::warn!("the next controller will not know what was set by hand: {dir}: {error}");
        }
    }

    pub(super) fn instance(&self) -> String {
        self.config.control.display().to_string()
    }

    /// Brings what is set by hand to the nearest number that the file still allows.
    pub(super) fn fit_held(&mut self) {
        for at in 0..self.services.len() {
            let held = self.services.get(at).filter(|hosted| !hosted.leaving);
            if let Some(to) = held.and_then(|hosted| hosted.policy.scaler().held()) {
                self.hold_within(at, to);
            }
        }
    }

    /// Has a service hold a number that was set by hand, or the nearest that the file allows.
    fn hold_within(&mut self, at: usize, to: u16) {
        let now = self.started.elapsed();
        let decision = self.services.get_mut(at).and_then(|hosted| {
            let limits = &hosted.config.scale;
            let fits = to.clamp(limits.min, limits.max);
            if hosted.policy.scaler().held() == Some(fits) {
                return None;
            }
            let decision = hosted.policy.hold(Some(fits), now)?;
            let reason = if fits == to {
                decision.reason
            } else {
                let (min, max) = (limits.min, limits.max);
                format!("set to {to} by hand, and the file allows {min} to {max}")
            };
            Some(Decision { reason, ..decision })
        });
        if let Some(decision) = decision {
            self.decided(at, decision);
        }
    }

    /// Has services hold what was set by hand before, as far as the file still allows it.
    pub(super) fn recall_held(&mut self) {
        for (name, to) in HELD.read(&self.config.state_dir, &self.instance()) {
            if let Ok(at) = self.position(&name) {
                self.hold_within(at, to);
            }
        }
    }

    fn reset(&mut self, service: &str) -> Result<String, CommandError> {
        let at = self.position(service)?;
        self.goes_on()?;
        let now = self.now();
        // Requests up to this moment belong to the window that ends here.
        self.read_counts(now);
        self.observe_policies(now);
        let Some(hosted) = self.services.get_mut(at) else {
            return Err(self.unknown(service));
        };
        let Some(decision) = hosted.policy.reset(now) else {
            return Err(self.unknown(service));
        };
        let held = if hosted.policy.scaler().is_held() {
            " (set by hand; `auto` hands back to the policy)"
        } else {
            ""
        };
        let sentence = format!("the window counts 0, {}{held}", copies(decision.to));
        let text = "the window was zeroed by hand".to_owned();
        self.door.journal.record(service, None, "reset", text);
        self.decided(at, decision);
        self.remember_the_waiting(at as u16);
        Ok(sentence)
    }

    /// What a service's policy was told and has decided.
    fn recording(&self, service: &str) -> Result<Box<Recording>, CommandError> {
        let at = self.position(service)?;
        let Some(hosted) = self.services.get(at) else {
            return Err(self.unknown(service));
        };
        Ok(Box::new(Recording {
            seconds: hosted.policy.seconds().counts.iter().copied().collect(),
            log: hosted.policy.log(service),
        }))
    }

    pub(super) fn position(&self, service: &str) -> Result<usize, CommandError> {
        let mut services = self.services.iter();
        services
            .position(|hosted| !hosted.leaving && hosted.config.name == service)
            .ok_or_else(|| self.unknown(service))
    }

    fn unknown(&self, name: &str) -> CommandError {
        let present = self.services.iter().filter(|hosted| !hosted.leaving);
        let names: Vec<_> = present.map(|hosted| hosted.config.name.as_str()).collect();
        CommandError::UnknownService {
            name: name.to_owned(),
            known: names.join(", "),
        }
    }

    /// Notes what was decided for a service.
    pub(super) fn decided(&mut self, service: usize, decision: Decision) {
        let Some(hosted) = self.services.get_mut(service) else {
            return;
        };
        let direction = decision.direction().name();
        *hosted.decisions.entry(direction).or_default() += 1;
        let name = hosted.config.name.clone();
        let Decision { from, to, reason } = decision;
        if from != to {
            let text = format!("{from} -> {}: {reason}", copies(to));
            self.door.journal.record(&name, None, "scaled", text);
        }
        self.door.journal.decide(DecisionRow {
            time: now_s(),
            service: name,
            from,
            to,
            reason,
        });
        self.dirty = true;
    }

    pub(super) fn signal(&mut self, signal: Signal) -> Onward {
        match signal {
            Signal::Reload(config) => {
                self.check(config, None);
                Onward::Continue
            }
            Signal::Unreadable(error) => {
                self.refused(&whole(&error));
                Onward::Continue
            }
            Signal::Shutdown { keep: true } => Onward::Leave,
            Signal::Shutdown { keep: false } => self.close(),
        }
    }

    /// The first time: drain, then stop. The second: stop at once. The third: give up.
    fn close(&mut self) -> Onward {
        let now = self.now();
        self.dirty = true;
        match &self.closing {
            None => {
                let limits = self.services.iter().map(|hosted| {
                    let backend = &hosted.config.backend;
                    backend.drain_limit + backend.stop_grace
                });
                let longest = limits.max().unwrap_or_default();
                self.closing = Some(Closing {
                    deadline: now + longest + CLOSING_MARGIN,
                    hurry: false,
                });
                let text = "ending: connections may finish; once more to end at once".to_owned();
                self.door.journal.record("", None, "draining", text);
                self.check_closed()
            }
            Some(Closing { hurry: false, .. }) => {
                self.closing = Some(Closing {
                    deadline: now + HURRY_MARGIN,
                    hurry: true,
                });
                self.stop_again_at_once();
                Onward::Continue
            }
            Some(_) => Onward::Detach,
        }
    }

    /// Stops that are under way may have a long grace left: a second one has none.
    fn stop_again_at_once(&mut self) {
        let services = self.observed.services.iter().enumerate();
        let stopping: Vec<_> = services
            .flat_map(|(service, seen)| {
                let stopping = seen.slots.iter().filter(|(_, slot)| {
                    let current = slot.current.as_ref();
                    current.is_some_and(|current| current.life == Life::Stopping)
                });
                stopping.map(move |(slot, _)| (service as u16, *slot))
            })
            .collect();
        for (service, slot) in stopping {
            self.act(Action::Stop {
                service,
                slot,
                grace: Moment::ZERO,
            });
        }
        let strays = self.observed.strays.iter_mut();
        let patient = strays.filter(|(_, stray)| stray.stopping && !stray.grace.is_zero());
        let ids: Vec<_> = patient
            .map(|(id, stray)| {
                stray.grace = Duration::ZERO;
                id.clone()
            })
            .collect();
        for id in ids {
            self.act(Action::StopStray { id });
        }
    }

    pub(super) fn check_closed(&mut self) -> Onward {
        let Some(closing) = &self.closing else {
            return Onward::Continue;
        };
        let idle = self.observed.services.iter().all(ServiceSeen::is_idle);
        if idle && self.observed.strays.is_empty() {
            return Onward::Detach;
        }
        if self.now() < closing.deadline {
            return Onward::Continue;
        }
        Onward::Detach
    }

    /// Backends that still run, for all that is known.
    pub(super) fn left_behind(&self) -> Vec<String> {
        let services = self.observed.services.iter();
        let slots = services.flat_map(|seen| seen.slots.values());
        let placed = slots.filter_map(|slot| Some(&slot.current.as_ref()?.id));
        let all = placed.chain(self.observed.strays.keys());
        all.map(|id| short(&id.0).to_owned()).collect()
    }
}

/// A number of copies, in words.
fn copies(number: u16) -> String {
    let noun = if number == 1 { "copy" } else { "copies" };
    format!("{number} {noun}")
}
