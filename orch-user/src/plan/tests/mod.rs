//! A small world in which plans are carried out, one event at a time.

mod number;
mod overlap;
mod replacement;
mod spare;

use std::net::SocketAddr;

use orch_common::slot::SlotState;

use super::*;
use crate::{
    config::SpareKind,
    health::{Answer, Health},
    runtime::RuntimeKind,
    state::{Cause, Fault, Life, Next, Running, SlotSeen, Stray},
};

const SPEC: &str = "one";

/// Where the container of this birth listens.
fn container(born: u32) -> SocketAddr {
    ([10, 0, 0, born as u8], 8080).into()
}

struct World {
    desired: Desired,
    observed: Observed,
    now: Moment,
    born: u32,
    log: Vec<Action>,
}

impl World {
    fn new(copies: u16) -> Self {
        let wish = Wish {
            copies,
            warm: copies,
            limit: 10,
            spec: SPEC.into(),
            overlap: false,
            apart: BTreeMap::new(),
            spares: 0,
            spare_kind: SpareKind::Running,
            drain_limit: Duration::from_secs(30),
            stop_grace: Duration::from_secs(10),
        };
        let seen = ServiceSeen {
            start_port: 8000,
            ..ServiceSeen::default()
        };
        Self {
            desired: Desired {
                services: vec![wish],
            },
            observed: Observed {
                services: vec![seen],
                ..Observed::default()
            },
            now: Duration::from_secs(100),
            born: 0,
            log: Vec::new(),
        }
    }

    /// A world in which so many copies are in the ring.
    fn serving(copies: u16) -> Self {
        Self::new(copies).serve()
    }

    /// The same, of containers that are reached at their own addresses and publish no port.
    fn serving_directly(copies: u16) -> Self {
        let mut world = Self::new(copies);
        world.wish().overlap = true;
        world.serve()
    }

    fn serve(self) -> Self {
        let mut world = self;
        let copies = world.wish().copies;
        world.settle();
        world.finish_all();
        for slot in 0..copies {
            world.well(slot);
        }
        world.settle();
        assert_eq!(world.ring(), (0..copies).collect::<Vec<_>>());
        world.log.clear();
        world
    }

    fn wish(&mut self) -> &mut Wish {
        &mut self.desired.services[0]
    }

    fn scale(&mut self, copies: u16) {
        self.wish().copies = copies;
        self.wish().warm = copies;
    }

    fn slot(&mut self, slot: u16) -> &mut SlotSeen {
        self.observed.services[0].slots.get_mut(&slot).unwrap()
    }

    fn current(&mut self, slot: u16) -> &mut Running {
        self.slot(slot).current.as_mut().unwrap()
    }

    fn ring(&self) -> Vec<u16> {
        self.observed.services[0].ring.clone().unwrap()
    }

    fn kernel(&mut self, slot: u16) -> SlotState {
        self.slot(slot).kernel.unwrap().state
    }

    fn well(&mut self, slot: u16) {
        let now = self.now;
        self.current(slot).health = Health::trusted(now);
    }

    fn fail(&mut self, slot: u16) {
        let now = self.now;
        self.slot(slot)
            .fail(Cause::Unhealthy(Answer::Status(500)), now);
    }

    fn pass(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
        self.observed.services[0].read_at = self.now;
    }

    /// Carries out what is planned until nothing is; returns it.
    fn settle(&mut self) -> Vec<Action> {
        let mut done = Vec::new();
        for _ in 0..16 {
            let actions = plan(&self.desired, &self.observed, self.now);
            let again = plan(&self.desired, &self.observed, self.now);
            assert_eq!(actions, again, "deterministic");
            if actions.is_empty() {
                self.log.extend(done.clone());
                return done;
            }
            for action in &actions {
                self.apply(action.clone());
            }
            done.extend(actions);
        }
        panic!("the plan never ends: {done:?}");
    }

    fn apply(&mut self, action: Action) {
        let now = self.now;
        match action {
            Action::SetSlot { slot, to, .. } => self.slot(slot).kernel = Some(to),
            Action::RemoveSlot { slot, .. } => {
                assert!(
                    !self.observed.services[0].in_ring(slot),
                    "removed in the ring"
                );
                self.slot(slot).kernel = None;
            }
            Action::SetRing { slots, .. } => {
                for slot in &slots {
                    assert_eq!(self.kernel(*slot), SlotState::Ready, "ring names {slot}");
                }
                self.observed.services[0].ring = Some(slots);
            }
            Action::Drain { slot, changed, .. } => {
                self.current(slot).life = Life::Draining { since: now };
                if changed {
                    self.slot(slot).broken = Some(Fault {
                        at: now,
                        cause: Cause::Changed,
                    });
                }
            }
            Action::Resume { slot, .. } => self.current(slot).life = Life::Running,
            Action::Stop { slot, .. } => {
                assert!(
                    !self.observed.services[0].in_ring(slot),
                    "stopped in the ring"
                );
                self.current(slot).life = Life::Stopping;
            }
            Action::Part { slot, .. } => {
                assert!(self.wish().overlaps(slot), "both need the port");
                assert!(
                    !self.observed.services[0].in_ring(slot),
                    "parted in the ring"
                );
                self.slot(slot).stopped(now);
            }
            Action::TakeSpare { slot, spare, .. } => self.take_spare(slot, spare),
            Action::Freeze { spare, frozen, .. } => self.current(spare).frozen = frozen,
            Action::Create { slot, .. } => {
                let slots = &mut self.observed.services[0].slots;
                slots.entry(slot).or_insert_with(|| SlotSeen::new(1)).next = Next::Creating;
            }
            Action::Start { slot, .. } => {
                assert!(self.slot(slot).current.is_none(), "the port is taken");
                self.slot(slot).next = Next::Starting;
            }
            Action::Discard { slot, .. } => self.slot(slot).next = Next::Discarding,
            Action::StopStray { id } => {
                self.observed.strays.get_mut(&id).unwrap().stopping = true;
            }
        }
    }

    fn take_spare(&mut self, slot: u16, spare: u16) {
        let now = self.now;
        assert!(!self.wish().apart.contains_key(&slot), "it needs its port");
        let taken = self.slot(spare).current.take();
        *self.slot(spare) = SlotSeen::new(1);
        let slots = &mut self.observed.services[0].slots;
        let state = slots.entry(slot).or_insert_with(|| SlotSeen::new(1));
        if state.current.is_some() {
            state.stopped(now);
        }
        assert_eq!(state.next, Next::None, "two on their way");
        let mut taken = taken.unwrap();
        assert!(taken.fault.is_none() && (taken.gated || taken.health.since.is_some()));
        taken.frozen = false;
        if taken.gated {
            taken.begin(now);
        }
        state.current = Some(taken);
    }

    /// The runtime finishes what it is at in this slot; returns whether it was at something.
    fn finish(&mut self, slot: u16) -> bool {
        let (spec, now) = (self.wish().spec_of(slot).to_owned(), self.now);
        self.born += 1;
        let netns = self.wish().overlaps(slot).then(|| "netns".into());
        let address = match &netns {
            Some(_) => container(self.born),
            None => self.observed.services[0].expected_address(slot),
        };
        let id = BackendId(format!("b{}", self.born));
        let gated = slot >= FIRST_SPARE && self.wish().spare_kind == SpareKind::Gated;
        let state = self.slot(slot);
        if state
            .current
            .as_ref()
            .is_some_and(|c| c.life == Life::Stopping)
        {
            state.stopped(now);
            return true;
        }
        match state.next.clone() {
            Next::Creating => state.next = Next::Prepared { spec },
            Next::Starting => {
                state.next = Next::None;
                state.current = Some(Running {
                    id,
                    runtime: RuntimeKind::Docker,
                    address,
                    pid: None,
                    netns,
                    frozen: false,
                    gated,
                    spec,
                    seen_at: now,
                    age: Duration::ZERO,
                    health: Health::default(),
                    life: Life::Running,
                    fault: None,
                    stop_at: Moment::ZERO,
                });
            }
            Next::Discarding => state.next = Next::None,
            Next::None | Next::Prepared { .. } => return false,
        }
        true
    }

    /// Runtimes finish, and plans are carried out, until both rest.
    fn finish_all(&mut self) {
        loop {
            self.settle();
            let slots: Vec<_> = self.observed.services[0].slots.keys().copied().collect();
            let busy = slots.into_iter().filter(|slot| self.finish(*slot)).count();
            if busy == 0 {
                return;
            }
        }
    }

    fn actions(&self, name: &str) -> Vec<u16> {
        let named = |action: &&Action| format!("{action:?}").starts_with(name);
        self.log
            .iter()
            .filter(named)
            .filter_map(|action| match action {
                Action::SetSlot { slot, .. }
                | Action::RemoveSlot { slot, .. }
                | Action::Drain { slot, .. }
                | Action::Resume { slot, .. }
                | Action::Stop { slot, .. }
                | Action::Part { slot, .. }
                | Action::TakeSpare { slot, .. }
                | Action::Freeze { spare: slot, .. }
                | Action::Create { slot, .. }
                | Action::Start { slot, .. }
                | Action::Discard { slot, .. } => Some(*slot),
                Action::SetRing { .. } | Action::StopStray { .. } => None,
            })
            .collect()
    }
}
