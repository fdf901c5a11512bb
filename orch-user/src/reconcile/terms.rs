//! On which terms the kernel has connections wait, and where those of this host do.

use tokio::sync::mpsc;

use super::{Controller, Event, hosted::Hosted, tables::Tables};
use crate::{
    config::{Local, Mode},
    dataplane::HoldTerms,
    hold::porch::{Porch, Rules},
    state::{Moment, ServiceSeen},
};

impl<T: Tables> Controller<T> {
    /// Has the kernel hold connections for some seconds more.
    pub(super) fn renew_terms(&mut self) {
        for (service, porch) in &mut self.holds.porches {
            porch.follow(
                self.tables.bridges(),
                somebody_comes(&self.report, *service),
            );
        }
        for service in 0..self.services.len() as u16 {
            self.tell_terms(service, true);
        }
    }

    pub(super) fn tell_terms(&mut self, service: u16, again: bool) {
        let terms = self.terms(service);
        let told = self.holds.told.get(&service).copied();
        if told == Some(terms) && !(again && terms.is_some()) {
            return;
        }
        match self.tables.set_holding(service, terms) {
            Ok(()) => {
                self.holds.told.insert(service, terms);
            }
            Err(error) => self.troubled(&error),
        }
    }

    pub(super) fn terms(&mut self, service: u16) -> Option<HoldTerms> {
        let config = &self.services.get(usize::from(service))?.config;
        let limit = config.hold_limit;
        let (hold, leaving) = (
            config.hold,
            self.services.get(usize::from(service))?.leaving,
        );
        if hold.is_zero() || leaving {
            self.holds.porches.remove(&service);
            return None;
        }
        // The gateway has its requests wait by itself.
        if config.mode == Mode::Http || self.refuses(service) {
            return None;
        }
        self.open_porch(service);
        let porch = self.holds.porches.get(&service);
        Some(HoldTerms {
            limit,
            listener: porch.map(|porch| porch.port),
            bridge_listener: porch.and_then(Porch::bridge_port),
        })
    }

    /// Where connections of this host and its containers wait, on the terms of the file.
    fn open_porch(&mut self, service: u16) {
        let Some(hosted) = self.services.get(usize::from(service)) else {
            return;
        };
        let rules = Rules {
            listen: hosted.config.listen,
            hold: hosted.config.hold,
            limit: hosted.config.hold_limit,
        };
        if let Some(open) = self.holds.porches.get_mut(&service)
            && open.rules().listen == rules.listen
        {
            if open.rules() != rules {
                open.revise(rules);
            }
            return;
        }
        self.holds.porches.remove(&service);
        if self.config.dataplane.local == Local::Off || !self.host.cgroup2 {
            return;
        }
        let tell = somebody_comes(&self.report, service);
        match Porch::open(rules, tell.clone()) {
            Ok(mut porch) => {
                porch.follow(self.tables.bridges(), tell);
                self.holds.porches.insert(service, porch);
            }
            Err(error) => self.troubled(&error),
        }
    }

    /// Tells those of this host whether trying has a point.
    pub(super) fn mind_the_door(&mut self, service: u16) {
        let served = self.is_served(service);
        match self.holds.porches.get(&service) {
            Some(porch) if served => porch.serve(),
            Some(porch) => porch.not_ready(),
            None => {}
        }
    }

    /// Whether waiting has no point: nothing is going to come, or what comes fails.
    pub(super) fn refuses(&self, service: u16) -> bool {
        let at = usize::from(service);
        let (Some(hosted), Some(seen)) = (self.services.get(at), self.observed.services.get(at))
        else {
            return true;
        };
        let ends = self.closing.is_some() || hosted.leaving;
        let none = hosted.policy.scaler().is_held() && hosted.desired(None) == 0;
        hosted.config.hold.is_zero() || ends || none || is_hopeless(hosted, seen, self.now())
    }
}

/// Tells the loop that somebody waits for the service.
fn somebody_comes(
    report: &mpsc::UnboundedSender<Event>,
    service: u16,
) -> impl Fn() + Clone + Send + 'static {
    let report = report.clone();
    move || {
        let _ = report.send(Event::Waits(service));
    }
}

/// Whether every slot that should serve has failed to start and waits for its next try.
fn is_hopeless(hosted: &Hosted, seen: &ServiceSeen, now: Moment) -> bool {
    let copies = hosted.desired(None);
    if copies == 0 || seen.ring.as_ref().is_some_and(|ring| !ring.is_empty()) {
        return false;
    }
    (0..copies).all(|slot| {
        seen.slots
            .get(&slot)
            .is_some_and(|slot| slot.is_hopeless(now))
    })
}
