//! Connections that wait for a backend: SYNs of outsiders, and sockets of this host. `mod`, `sum`
//! and `frame` are pure; `porch`, `desk`, `gates` and `stand_in` are the IO beside them.

mod desk;
pub mod frame;
mod gates;
pub mod porch;
pub mod stand_in;
pub mod sum;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::Duration,
};

use orch_common::{
    address::Address,
    flow::FlowKey,
    hold::{HeldSyn, SOURCE_SHARE},
};

use crate::state::Moment;

/// A SYN may be dropped by the kernel just before a backend is there, and heard of just after.
const LATE: Duration = Duration::from_millis(20);

/// What became of a SYN that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It waits.
    Waits,
    /// It waits already.
    Known,
    /// Too many wait, of all or of its source.
    Full,
}

/// SYNs that wait, per service in the order in which they came.
#[derive(Debug, Default)]
pub struct Parked {
    lines: BTreeMap<u16, Line>,
}

/// Those of one service.
#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    /// So many at the front may go.
    due: usize,
    known: HashSet<(FlowKey, u32)>,
    sources: HashMap<Address, u32>,
    ready_at: Option<Moment>,
}

#[derive(Debug)]
struct Waiting {
    syn: HeldSyn,
    since: Moment,
}

impl Parked {
    /// Takes a SYN in. At most `limit` of its service wait, and a share of that of one source.
    pub fn take(&mut self, syn: HeldSyn, now: Moment, limit: u32) -> Taken {
        let line = self.lines.entry(syn.service).or_default();
        if line.known.contains(&(syn.key, syn.seq)) {
            return Taken::Known;
        }
        let share = u64::from(limit).div_ceil(SOURCE_SHARE);
        let source = line.sources.entry(syn.key.client).or_default();
        if line.waiting.len() >= limit as usize || u64::from(*source) >= share {
            return Taken::Full;
        }
        *source += 1;
        line.known.insert((syn.key, syn.seq));
        line.waiting.push_back(Waiting { syn, since: now });
        if line.ready_at.is_some_and(|ready| now < ready + LATE) {
            line.due = line.waiting.len();
        }
        Taken::Waits
    }

    /// The service has a backend: all that wait may go.
    pub fn ready(&mut self, service: u16, now: Moment) {
        let line = self.lines.entry(service).or_default();
        line.due = line.waiting.len();
        line.ready_at = Some(now);
    }

    /// Takes out the first that may go.
    pub fn take_due(&mut self) -> Option<HeldSyn> {
        let line = self.lines.values_mut().find(|line| line.due > 0)?;
        line.pop()
    }

    /// Takes out one that has waited for too long.
    pub fn overdue(&mut self, service: u16, now: Moment, hold: Duration) -> Option<HeldSyn> {
        let line = self.lines.get_mut(&service)?;
        let first = line.waiting.front()?;
        if now < first.since + hold {
            return None;
        }
        line.pop()
    }

    /// Takes out one in any case.
    pub fn any(&mut self, service: u16) -> Option<HeldSyn> {
        self.lines.get_mut(&service)?.pop()
    }

    /// How many wait for a service.
    pub fn waiting(&self, service: u16) -> usize {
        let line = self.lines.get(&service);
        line.map_or(0, |line| line.waiting.len())
    }

    /// Since when the first has waited.
    pub fn oldest(&self, service: u16) -> Option<Moment> {
        let line = self.lines.get(&service)?;
        line.waiting.front().map(|waiting| waiting.since)
    }

    /// Whether any may go.
    pub fn has_due(&self) -> bool {
        self.lines.values().any(|line| line.due > 0)
    }
}

impl Line {
    fn pop(&mut self) -> Option<HeldSyn> {
        let Waiting { syn, .. } = self.waiting.pop_front()?;
        self.due = self.due.saturating_sub(1);
        self.known.remove(&(syn.key, syn.seq));
        if let Some(count) = self.sources.get_mut(&syn.key.client) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&syn.key.client);
            }
        }
        Some(syn)
    }
}

#[cfg(test)]
mod tests {
    use orch_common::{address::from_v4, hold::FRAME_BYTES};

    use super::*;

    fn syn(source: u8, port: u16) -> HeldSyn {
        HeldSyn {
            key: FlowKey {
                client: from_v4([10, 9, 0, source]),
                local: from_v4([10, 9, 0, 1]),
                client_port: port,
                local_port: 80,
            },
            seq: 7,
            ifindex: 1,
            service: 0,
            len: 54,
            frame: [0; FRAME_BYTES],
        }
    }

    const fn at(ms: u64) -> Moment {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_to_come_is_the_first_to_go_once_somebody_is_there() {
        let mut parked = Parked::default();
        for port in 1..=3 {
            assert_eq!(parked.take(syn(2, port), at(0), 100), Taken::Waits);
        }
        assert_eq!(parked.take(syn(2, 2), at(1), 100), Taken::Known);
        assert_eq!((parked.take_due(), parked.waiting(0)), (None, 3));
        parked.ready(0, at(10));
        for port in 1..=3 {
            assert_eq!(parked.take_due().unwrap().key.client_port, port);
        }
        assert_eq!(parked.take_due(), None);
        assert_eq!(
            parked.take(syn(2, 2), at(40), 100),
            Taken::Waits,
            "forgotten"
        );
        assert!(!parked.has_due(), "the kernel knows of no backend");
    }

    #[test]
    fn what_is_heard_of_late_goes_at_once() {
        let mut parked = Parked::default();
        parked.ready(0, at(10));
        parked.take(syn(2, 1), at(12), 100);
        assert!(parked.take_due().is_some());
    }

    #[test]
    fn there_is_room_for_so_many_and_for_a_quarter_of_one_source() {
        let mut parked = Parked::default();
        let fill = |parked: &mut Parked, source| {
            (0..100)
                .filter(|port| parked.take(syn(source, *port), at(0), 10) == Taken::Waits)
                .count()
        };
        assert_eq!(fill(&mut parked, 2), 3);
        assert_eq!(fill(&mut parked, 3), 3);
        assert_eq!(fill(&mut parked, 4), 3);
        assert_eq!(fill(&mut parked, 5), 1);
        assert!(parked.any(0).is_some());
        assert_eq!(fill(&mut parked, 2), 1, "a place of its own is free again");
    }

    #[test]
    fn nobody_waits_for_longer_than_the_limit() {
        let mut parked = Parked::default();
        parked.take(syn(2, 1), at(0), 10);
        parked.take(syn(2, 2), at(500), 10);
        assert_eq!(parked.overdue(0, at(999), at(1000)), None);
        assert!(parked.overdue(0, at(1000), at(1000)).is_some());
        assert_eq!(parked.overdue(0, at(1000), at(1000)), None);
        assert_eq!(parked.oldest(0), Some(at(500)));
    }
}
