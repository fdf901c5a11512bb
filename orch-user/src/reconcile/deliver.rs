//! How connections reach the backends of each service, and what is done where they cannot directly.

use std::{io, time::Duration};

use orch_common::slot::SlotKey;

use super::{Controller, RunError, execute::whole, runtimes::Runtimes, tables::Tables};
use crate::{
    config::{Config, DataplaneConfig, Delivery, ServiceConfig},
    dataplane::DataplaneError,
    delivery::{self, Choice, Host, Way},
};

/// How long the data plane may refuse a backend that lives before its service falls back. One that
/// has just died is refused, too, until its end is reported.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);
/// The same where its namespace is not there, as when it has died: the runtime's list tells of that
/// every five seconds, should the event be lost.
const ABSENCE_LIMIT: Duration = Duration::from_secs(11);

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

    pub(super) fn is_direct(&self, service: u16) -> bool {
        let hosted = self.services.get(usize::from(service));
        hosted.is_some_and(|hosted| hosted.delivery.way == Way::Direct)
    }

    /// The data plane cannot lead connections straight to the backend of this slot.
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
        if now.saturating_sub(since) >= limit(error) {
            self.fall_back(key.service, &whole(error));
        }
    }

    /// The service's backends are replaced by ones that are reached by port.
    pub(super) fn fall_back(&mut self, service: u16, reason: &str) {
        let Some(hosted) = self.services.get_mut(usize::from(service)) else {
            return;
        };
        if hosted.delivery.way == Way::Port {
            return;
        }
        hosted.fall_back(reason.to_owned());
        let name = hosted.config.name.clone();
        let spares = match hosted.config.scale.spares {
            0 => "",
            _ => "; without spares, which cannot be reached so",
        };
        let text = format!("delivery falls back from direct to port: {reason}{spares}");
        self.door.journal.record(&name, None, "delivery", text);
        self.dirty = true;
    }
}
