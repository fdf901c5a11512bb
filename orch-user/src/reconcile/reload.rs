//! A new configuration while the controller runs. Services that stay keep their index in the data
//! plane, whatever their place in the file; one that goes keeps it until it has drained.

use super::{
    Controller, RunError, deliver::can_deliver_with, execute::whole, hosted::Hosted, tables::Tables,
};
use crate::{
    config::{Config, ServiceConfig},
    control::{CommandError, Reply},
    http,
    ports::{claimed, slots},
    state::{Moment, ServiceSeen},
};

/// Why a new configuration is refused; the old one stays in force.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// What a service that goes still holds is wanted by a new one.
    #[error("service {new} needs ports of {old}, which has not drained yet: reload again later")]
    StillHeld { new: String, old: String },
    /// The same, and nobody has told the old one to go: this file would, but is refused. So it is when a
    /// service is renamed.
    #[error(
        "service {new} needs ports of {old}, which this file takes out: reload without {new} first, and with \
         it once {old} has drained; or restart orch"
    )]
    Held { new: String, old: String },
    /// Slot ports are where the backends listen.
    #[error("start_port of service {service} cannot change while it runs: restart orch")]
    StartPort { service: String },
    /// Connections that are open belong to the kernel in one, to the gateway in the other.
    #[error("mode of service {service} cannot change while it runs: restart orch")]
    Mode { service: String },
    /// Its size is fixed in the data plane.
    #[error(
        "there is no room for service {service}: at most {max} at a time, those that still drain included"
    )]
    Full { service: String, max: usize },
}

impl<T: Tables> Controller<T> {
    pub(super) fn reload(&mut self, checked: Result<Box<Config>, RunError>, answer: Option<Reply>) {
        self.dirty = true;
        let goes_on = self.goes_on().map_err(|error| whole(&error));
        let outcome = match (goes_on, checked) {
            (Err(why), _) => Err(why),
            (_, Ok(config)) => self
                .try_reload(&config)
                .map(|()| self.what_waits(&config))
                .map_err(|error| whole(&*error)),
            (_, Err(error)) => Err(whole(&error)),
        };
        let said = match outcome {
            Ok(text) => {
                let event = text.clone();
                self.door.journal.record("", None, "reloaded", event);
                Ok(text)
            }
            Err(why) => {
                self.refused(&why);
                Err(CommandError::Refused { why })
            }
        };
        if let Some(answer) = answer {
            // Whoever asked may have gone.
            let _ = answer.send(said);
        }
    }

    /// Says why the old configuration stays; an event is one line.
    pub(super) fn refused(&mut self, why: &str) {
        let why = why.trim_end().replace('\n', "; ");
        let text = format!("the new configuration is refused, the old one stays: {why}");
        self.door.journal.record("", None, "error", text);
    }

    fn try_reload(&mut self, config: &Config) -> Result<(), Box<dyn std::error::Error>> {
        // The data plane is what it was at the start, whatever the new file says of it.
        can_deliver_with(&self.config.dataplane, &config.services, self.host)?;
        let layout = self.layout(config)?;
        let table: Vec<_> = layout.iter().map(|(service, _)| service.clone()).collect();
        let held = self.holders().map(|(hosted, _)| &hosted.config);
        let gateway = http::pid(&self.config.control);
        self.claims.check(&config.services, held, gateway)?;
        // What is claimed in vain is released with what is not needed any more.
        self.claims.add(&config.services)?;
        if let Err(error) = self.tables.set_services(&table) {
            self.restore();
            return Err(error.into());
        }
        let now = self.now();
        for (index, (service, leaving)) in layout.into_iter().enumerate() {
            self.tables.retire(index as u16, leaving)?;
            self.place(index, service, leaving, now);
        }
        self.fit_held();
        self.keep_held();
        Ok(())
    }

    /// Has the data plane serve again what it served before it could not do what it was told: a part of
    /// that may be done.
    fn restore(&mut self) {
        let services = self.services.iter();
        let (before, leaving): (Vec<_>, Vec<_>) = services
            .map(|hosted| (hosted.config.clone(), hosted.leaving))
            .unzip();
        let restored = self.tables.set_services(&before).and_then(|()| {
            let mut services = (0_u16..).zip(leaving);
            services.try_for_each(|(index, leaving)| self.tables.retire(index, leaving))
        });
        if let Err(error) = restored {
            self.troubled(&error);
        }
    }

    /// Lets other controllers have the ports that no service of this one needs. One that has drained
    /// keeps its place in the data plane, but with nothing in its ring its packets go on untouched.
    pub(super) fn release_ports(&mut self) {
        let held = self.holders();
        // A slot that a reload has taken away keeps its port until it has drained.
        let ports =
            held.flat_map(|(hosted, seen)| claimed(&hosted.config).chain(seen.busy_ports()));
        let ports = ports.collect();
        self.claims.keep(&ports);
    }

    /// Services that need their ports: all but those that have gone and drained.
    fn holders(&self) -> impl Iterator<Item = (&Hosted, &ServiceSeen)> {
        let services = self.services.iter().zip(&self.observed.services);
        services.filter(|(hosted, seen)| !hosted.leaving || !seen.is_idle())
    }

    /// Says which changes hold and which wait for the next start.
    fn what_waits(&self, new: &Config) -> String {
        let old = &self.config;
        let changed = [
            ("state_dir", old.state_dir != new.state_dir),
            ("control", old.control != new.control),
            ("status", old.status != new.status),
            ("token_file", old.token_file != new.token_file),
            ("[dataplane]", old.dataplane != new.dataplane),
        ];
        let waiting = changed.iter().filter(|(_, changed)| *changed);
        let names: Vec<_> = waiting.map(|(name, _)| *name).collect();
        if names.is_empty() {
            return "the new configuration holds".to_owned();
        }
        let names = names.join(", ");
        format!("the new configuration holds, but for {names}: those need a restart")
    }

    fn place(&mut self, index: usize, service: ServiceConfig, leaving: bool, now: Moment) {
        let start_port = service.start_port;
        let delivery = self.delivery_of(&service);
        match self.services.get_mut(index) {
            Some(hosted) if leaving => hosted.leaving = true,
            Some(hosted) if hosted.config.name == service.name => {
                let health = hosted.config.health != service.health;
                let (before, returns) = (hosted.spec.clone(), hosted.leaving);
                let gone = self.observed.services.get(index);
                if returns && gone.is_some_and(ServiceSeen::is_idle) {
                    // What it wanted when it left was for the clients of then.
                    hosted.forget_policy(&service.scale, now);
                }
                hosted.reconfigure(service, delivery);
                let changed = health || returns || hosted.spec != before;
                if health {
                    self.probe_anew(index as u16);
                }
                if changed {
                    self.begin_anew(index, now);
                }
            }
            Some(hosted) => {
                // The place of one that has drained. Its slots keep their generations.
                *hosted = Hosted::new(service, delivery, now);
                if let Some(seen) = self.observed.services.get_mut(index) {
                    seen.start_port = start_port;
                }
                self.begin_anew(index, now);
            }
            None => {
                self.services.push(Hosted::new(service, delivery, now));
                self.observed.services.push(ServiceSeen {
                    start_port,
                    ..ServiceSeen::default()
                });
            }
        }
    }

    /// Has no slot of a service wait for what failed before.
    fn begin_anew(&mut self, index: usize, now: Moment) {
        let seen = self.observed.services.get_mut(index);
        for slot in seen.into_iter().flat_map(|seen| seen.slots.values_mut()) {
            slot.begin_anew(now);
        }
    }

    /// The table of services as it will be, each with whether it is leaving.
    fn layout(&self, config: &Config) -> Result<Vec<(ServiceConfig, bool)>, Refused> {
        let in_new = |name: &str| config.services.iter().find(|new| new.name == name);
        let mut layout = Vec::new();
        let mut free = Vec::new();
        for (index, (hosted, seen)) in self
            .services
            .iter()
            .zip(&self.observed.services)
            .enumerate()
        {
            let old = &hosted.config;
            match in_new(&old.name) {
                Some(new) if new.start_port != old.start_port => {
                    return Err(Refused::StartPort {
                        service: old.name.clone(),
                    });
                }
                Some(new) if new.mode != old.mode => {
                    return Err(Refused::Mode {
                        service: old.name.clone(),
                    });
                }
                Some(new) => layout.push((new.clone(), false)),
                None => {
                    if hosted.leaving && seen.is_idle() {
                        free.push(index);
                    }
                    layout.push((old.clone(), true));
                }
            }
        }
        let known = |name: &str| {
            self.services
                .iter()
                .any(|hosted| hosted.config.name == name)
        };
        let new = config.services.iter().filter(|new| !known(&new.name));
        for service in new.cloned() {
            // A place that is free and wants the same ports must be the one that is taken over.
            let same = free.iter().position(|at| {
                let entry = layout.get(*at);
                entry.is_some_and(|(old, _)| overlap(old, &service))
            });
            let place = same
                .or_else(|| free.len().checked_sub(1))
                .map(|at| free.remove(at));
            match place.and_then(|at| layout.get_mut(at)) {
                Some(entry) => *entry = (service, false),
                None => layout.push((service, false)),
            }
        }
        self.check_layout(layout)
    }

    /// Fails if not all of a table can be in the data plane together.
    fn check_layout(
        &self,
        layout: Vec<(ServiceConfig, bool)>,
    ) -> Result<Vec<(ServiceConfig, bool)>, Refused> {
        let max = orch_common::layout::MAX_SERVICES;
        if let Some((service, _)) = layout.get(max) {
            return Err(Refused::Full {
                service: service.name.clone(),
                max,
            });
        }
        let leaving = self.services.iter().map(|hosted| hosted.leaving);
        let going = layout.iter().zip(leaving).filter(|((_, goes), _)| *goes);
        for ((old, _), leaves_already) in going {
            let mut stays = layout.iter().filter(|(_, leaving)| !leaving);
            let Some((new, _)) = stays.find(|(new, _)| overlap(old, new)) else {
                continue;
            };
            let (new, old) = (new.name.clone(), old.name.clone());
            return Err(if leaves_already {
                Refused::StillHeld { new, old }
            } else {
                Refused::Held { new, old }
            });
        }
        Ok(layout)
    }
}

/// Whether two services cannot be in the data plane at a time.
fn overlap(one: &ServiceConfig, other: &ServiceConfig) -> bool {
    let (ours, theirs) = (slots(one), slots(other));
    let meet = ours.start() <= theirs.end() && theirs.start() <= ours.end();
    one.listen == other.listen || meet
}
