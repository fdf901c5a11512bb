//! What people ask for that takes a runtime's time: a slot anew, a file read again, a log.

use std::sync::Arc;

use orch_common::slot::SlotKey;

use super::{Controller, Event, RunError, adopt::short, execute::whole, tables::Tables};
use crate::{
    config::Config,
    control::{CommandError, Reply},
    state::Life,
};

impl<T: Tables> Controller<T> {
    /// Has the backend of a slot replaced although it is well: it drains as one whose configuration
    /// has changed, and so never together with another.
    pub(super) fn renew(&mut self, service: &str, slot: u16) -> Result<String, CommandError> {
        let key = self.key(service, slot)?;
        let nothing = CommandError::NoBackend {
            service: service.to_owned(),
            slot,
        };
        let current = self.slot_mut(key).and_then(|slot| slot.current.as_mut());
        let Some(current) = current.filter(|current| current.life != Life::Stopping) else {
            return Err(nothing);
        };
        current.dismiss();
        let id = short(&current.id.0).to_owned();
        Ok(format!(
            "{id} is stopped once its connections have ended, and another takes its place"
        ))
    }

    /// Asks the runtimes whether a configuration can be had, which may take long: the answer comes
    /// back as an event.
    pub(super) fn check(&mut self, config: Box<Config>, answer: Option<Reply>) {
        let runtimes = self.runtimes.clone();
        let report = self.report.clone();
        tokio::spawn(async move {
            let result: Result<_, RunError> = runtimes.check(&config).await.map(|()| config);
            let _ = report.send(Event::Checked { result, answer });
        });
    }

    /// Has the runtime tell the end of a log to whoever asked.
    pub(super) fn tell_log(&self, service: &str, slot: u16, lines: usize, answer: Reply) {
        let found = self.key(service, slot).and_then(|key| {
            let current = self.slot(key).and_then(|slot| slot.current.as_ref());
            let runtime = current.and_then(|current| self.runtimes.get(current.runtime));
            let both = current.zip(runtime);
            both.map(|(current, runtime)| (current.id.clone(), Arc::clone(runtime)))
                .ok_or_else(|| CommandError::NoBackend {
                    service: service.to_owned(),
                    slot,
                })
        });
        let (id, runtime) = match found {
            Ok(found) => found,
            Err(error) => {
                let _ = answer.send(Err(error));
                return;
            }
        };
        tokio::spawn(async move {
            let text = runtime.log_tail(&id, lines).await;
            let text = text.map_err(|error| CommandError::Runtime { why: whole(&error) });
            let _ = answer.send(text);
        });
    }

    fn key(&self, service: &str, slot: u16) -> Result<SlotKey, CommandError> {
        let service = self.position(service)? as u16;
        Ok(SlotKey { service, slot })
    }
}
