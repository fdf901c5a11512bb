//! How connections reach the backends of each service, and what is done where they cannot directly.

use std::{io, time::Duration};

use orch_common::slot::SlotKey;

use super::{Controller, RunError, execute::whole, runtimes::Runtimes, tables::Tables};
use crate::{
    config::{Config, DataplaneConfig, Delivery, ServiceConfig},
    dataplane::DataplaneError,
    delivery::{self, Choice, Host, Way},
    state::{Cause, FIRST_SPARE, Running},
};

/// How long the data plane may refuse a backend that lives before its service falls back. One that
/// has just died is refused, too, until its end is reported.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);
/// The same where its namespace is not there, as when it has died: the runtime's list tells of that
/// every five seconds, should the event be lost.
const ABSENCE_LIMIT: Duration = Duration::from_secs(11);

/// What is said of a backend that lives on without its interface.
const CUT_OFF: &str = "its network interface is gone";

/// Whether this host can deliver as the file demands, and as spares need it.
pub fn can_deliver(config: &Config, host: Host) -> Result<(), RunError> {
    can_deliver_with(&config.dataplane, &config.services, host)
}

pub(super) fn can_deliver_with(
    dataplane: &DataplaneConfig,
    services: &[ServiceConfig],
    host: Host,
) -> Result<(), RunError> {
    for service in services {
        let Choice { way, reason } = choice(dataplane, service, host);
        if way == Way::Direct {
            continue;
        }
        let name = service.name.clone();
        if dataplane.delivery == Delivery::Direct {
            return Err(RunError::Delivery {
                service: name,
                reason,
            });
        }
        if service.scale.spares > 0 && !service.backend.is_process() {
            return Err(RunError::Spares {
                service: name,
                reason,
            });
        }
    }
    Ok(())
}

fn choice(dataplane: &DataplaneConfig, service: &ServiceConfig, host: Host) -> Choice {
    let kind = Runtimes::kind_for(&service.backend);
    delivery::choose(dataplane.delivery, dataplane.local, kind, host)
}

fn limit(error: &DataplaneError) -> Duration {
    match error {
        DataplaneError::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            ABSENCE_LIMIT
        }
        _ => REFUSAL_LIMIT,
    }
}

impl<T: Tables> Controller<T> {
    pub(super) fn delivery_of(&self, service: &ServiceConfig) -> Choice {
        choice(&self.config.dataplane, service, self.host)
    }

    pub(super) fn is_direct(&self, key: SlotKey) -> bool {
        let hosted = self.services.get(usize::from(key.service));
        hosted.is_some_and(|hosted| hosted.delivery_to(key.slot).way == Way::Direct)
    }

    /// Whether connections of the service go straight to the backend of some other slot.
    fn another_is_direct(&self, key: SlotKey) -> bool {
        let Some(seen) = self.observed.services.get(usize::from(key.service)) else {
            return false;
        };
        let mut others = seen.slots.range(..FIRST_SPARE);
        others.any(|(number, slot)| {
            let current = slot.current.as_ref();
            let direct = current.is_some_and(Running::is_reached_directly);
            *number != key.slot && direct && slot.refused_since.is_none() && seen.in_ring(*number)
        })
    }

    /// The data plane cannot lead connections straight to the backend of this slot. That may be its
    /// own fault, so that another is tried first.
    pub(super) fn refused_directly(&mut self, key: SlotKey, error: &DataplaneError) {
        let now = self.now();
        let current = self.slot(key).and_then(|slot| slot.current.as_ref());
        let lost = current.is_some_and(|current| self.lost.contains(&current.runtime));
        let Some(slot) = self.slot_mut(key) else {
            return;
        };
        if lost {
            // Nobody tells whether it has died.
            slot.refused_since = None;
            return;
        }
        let since = *slot.refused_since.get_or_insert(now);
        if now.saturating_sub(since) < limit(error) {
            return;
        }
        if slot.odd_before {
            self.fall_back(key, &whole(error));
        } else {
            slot.odd_before = true;
            self.condemn(key, Cause::Unreachable(whole(error)));
        }
    }

    /// Replaces backends that live on while their interface is gone. The kernel passes by such a one as
    /// soon as a client outside is about to go there, and those of this host cannot know.
    pub(super) fn mind_interfaces(&mut self) {
        match self.tables.hear() {
            Ok(true) => self.sync_host(),
            Ok(false) => {}
            Err(error) => self.troubled(&error),
        }
        let cut_off = self.tables.cut_off();
        if cut_off.is_empty() {
            return;
        }
        // That of one which ends goes, too: the kernel has seen that before.
        self.read_counts(self.now());
        for key in cut_off {
            let ends = self
                .suspects
                .get(&key)
                .is_some_and(|suspect| suspect.ends());
            let current = self.slot(key).and_then(|slot| slot.current.as_ref());
            if !ends && current.is_some_and(Running::is_reached_directly) {
                self.condemn(key, Cause::Unreachable(CUT_OFF.to_owned()));
            }
        }
    }

    /// The slot's backend is replaced by one that is reached by port; and so are all of the service
    /// where none is reached directly.
    pub(super) fn fall_back(&mut self, key: SlotKey, reason: &str) {
        let alone = key.slot < FIRST_SPARE && self.another_is_direct(key);
        let Some(hosted) = self.services.get_mut(usize::from(key.service)) else {
            return;
        };
        if hosted.delivery_to(key.slot).way == Way::Port {
            return;
        }
        let name = hosted.config.name.clone();
        let spared = hosted.config.scale.spares > 0;
        let (slot, without) = if alone {
            hosted.set_apart(key.slot, reason.to_owned());
            (Some(key.slot), "; no spare can go there")
        } else {
            hosted.fall_back(reason.to_owned());
            (None, "; without spares, which cannot be reached so")
        };
        let without = if spared { without } else { "" };
        let text = format!("delivery falls back from direct to port: {reason}{without}");
        self.door.journal.record(&name, slot, "delivery", text);
        self.dirty = true;
    }
}
