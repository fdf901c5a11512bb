//! Counts of slots that the kernel has forgotten: totals must not shrink, whoever controls.

use std::collections::BTreeMap;

use orch_common::counter::{Failure, SlotCounters};

use super::{Controller, tables::Tables};
use crate::{kept::RETIRED, metrics::CLASSES};

impl<T: Tables> Controller<T> {
    /// Adds the last counts of a slot to those of its service, also for a later controller.
    pub(super) fn retire(&mut self, service: u16, mut last: SlotCounters) {
        let Some(hosted) = self.services.get_mut(usize::from(service)) else {
            return;
        };
        hosted.retired += last;
        if cells(&mut last).into_iter().all(|(_, count)| *count == 0) {
            return;
        }
        let of = |hosted: &mut super::hosted::Hosted| {
            let counts = cells(&mut hosted.retired);
            let counts = counts.into_iter().filter(|(_, count)| **count > 0);
            let counts = counts.map(|(name, count)| (name.to_owned(), *count));
            (hosted.config.name.clone(), counts.collect())
        };
        let all: BTreeMap<_, BTreeMap<_, _>> = self.services.iter_mut().map(of).collect();
        if let Err(error) = RETIRED.write(&self.config.state_dir, &self.instance(), &all) {
            let dir = self.config.state_dir.display();
            log::warn!("totals may shrink with the next controller: {dir}: {error}");
        }
    }

    /// Takes over what an earlier controller has kept.
    pub(super) fn recall_retired(&mut self) {
        let kept = RETIRED.read(&self.config.state_dir, &self.instance());
        for hosted in &mut self.services {
            let Some(counts) = kept.get(&hosted.config.name) else {
                continue;
            };
            for (name, cell) in cells(&mut hosted.retired) {
                *cell = counts.get(name).copied().unwrap_or(0);
            }
        }
    }
}

/// Each count with its name.
fn cells(counters: &mut SlotCounters) -> Vec<(&'static str, &mut u64)> {
    let SlotCounters {
        requests,
        excluded,
        responses,
        failures,
    } = counters;
    let own = [("requests", requests), ("excluded", excluded)];
    let responses = CLASSES.into_iter().zip(responses);
    let failures = Failure::ALL.iter().map(|kind| kind.name()).zip(failures);
    own.into_iter().chain(responses).chain(failures).collect()
}
