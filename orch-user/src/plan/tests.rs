//! A small world in which plans are carried out, one event at a time.

use orch_common::slot::SlotState;

use super::*;
use crate::{
    health::{Answer, Health},
    runtime::RuntimeKind,
    state::{Cause, Fault, Life, Next, Running, SlotSeen, Stray},
};

const SPEC: &str = "one";

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
        let mut world = Self::new(copies);
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

    /// The runtime finishes what it is at in this slot; returns whether it was at something.
    fn finish(&mut self, slot: u16) -> bool {
        let (spec, now) = (self.wish().spec.clone(), self.now);
        let address = self.observed.services[0].expected_address(slot);
        self.born += 1;
        let id = BackendId(format!("b{}", self.born));
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
                | Action::Create { slot, .. }
                | Action::Start { slot, .. }
                | Action::Discard { slot, .. } => Some(*slot),
                Action::SetRing { .. } | Action::StopStray { .. } => None,
            })
            .collect()
    }
}

#[test]
fn all_copies_start_at_a_time_and_none_is_in_the_ring_before_its_first_200() {
    let mut world = World::new(3);
    world.settle();
    assert_eq!(world.actions("Create"), [0, 1, 2]);
    world.finish_all();
    assert_eq!(world.actions("Start"), [0, 1, 2]);
    assert_eq!(world.ring(), Vec::<u16>::new());
    assert_eq!(world.kernel(1), SlotState::Starting);
    world.well(1);
    world.settle();
    assert_eq!(world.ring(), [1], "others do not hold it up");
    assert_eq!(world.kernel(1), SlotState::Ready);
}

#[test]
fn the_kernel_knows_the_slot_before_anything_listens() {
    let mut world = World::new(1);
    world.settle();
    world.finish(0);
    let steps = world.settle();
    assert!(
        matches!(
            steps[..],
            [Action::SetSlot { slot: 0, to, .. }, Action::Start { slot: 0, .. }]
                if to.state == SlotState::Starting && to.generation == 1
        ),
        "{steps:?}"
    );
}

#[test]
fn a_crashed_backend_leaves_the_ring_is_stopped_at_once_and_the_next_is_prepared_meanwhile() {
    let mut world = World::serving(2);
    world.fail(0);
    let steps = world.settle();
    assert_eq!(
        steps[0],
        Action::SetRing {
            service: 0,
            slots: vec![1]
        }
    );
    let stop = Action::Stop {
        service: 0,
        slot: 0,
        grace: Duration::ZERO,
    };
    assert!(steps.contains(&stop), "{steps:?}");
    assert_eq!(world.actions("Create"), [0]);
    assert_eq!(
        world.actions("Start"),
        Vec::<u16>::new(),
        "the port is not free"
    );
    assert_eq!(world.kernel(0), SlotState::Failed);
    world.finish_all();
    assert_eq!(world.actions("Start"), [0]);
    assert_eq!(world.slot(0).generation, 2);
    assert_eq!(world.ring(), [1]);
    world.well(0);
    world.settle();
    assert_eq!(world.ring(), [0, 1]);
    assert_eq!(world.kernel(0), SlotState::Ready);
}

#[test]
fn scale_down_takes_the_greatest_ports_and_waits_until_they_are_drained() {
    let mut world = World::serving(4);
    world.slot(2).live = 1;
    world.scale(2);
    world.settle();
    assert_eq!(world.ring(), [0, 1]);
    assert_eq!(world.actions("Drain"), [2, 3]);
    assert_eq!(world.actions("Stop"), Vec::<u16>::new(), "not read since");
    world.pass(0.25);
    let steps = world.settle();
    assert_eq!(world.actions("Stop"), [3]);
    let stop = Action::Stop {
        service: 0,
        slot: 3,
        grace: Duration::from_secs(10),
    };
    assert!(steps.contains(&stop), "{steps:?}");
    world.slot(2).live = 0;
    world.pass(0.25);
    world.finish_all();
    assert_eq!(world.actions("Stop"), [3, 2]);
    assert_eq!(world.actions("RemoveSlot").len(), 2);
    assert!(world.slot(2).is_idle() && world.slot(3).is_idle());
}

#[test]
fn the_drain_limit_ends_the_patience() {
    let mut world = World::serving(2);
    world.slot(1).live = 1;
    world.scale(1);
    world.settle();
    world.pass(29.9);
    assert_eq!(world.settle(), []);
    assert_eq!(
        next_moment(&world.desired, &world.observed, world.now),
        Some(Duration::from_secs(130))
    );
    world.pass(0.1);
    world.settle();
    assert_eq!(world.actions("Stop"), [1]);
}

#[test]
fn a_draining_slot_that_is_wanted_again_comes_back() {
    let mut world = World::serving(2);
    world.slot(1).live = 1;
    world.scale(1);
    world.settle();
    world.pass(1.0);
    world.scale(2);
    world.settle();
    assert_eq!(world.actions("Resume"), [1]);
    assert_eq!(world.ring(), [0, 1]);
    assert_eq!(world.actions("Create"), Vec::<u16>::new());
}

#[test]
fn a_generation_is_never_used_twice() {
    let mut world = World::serving(2);
    for generation in 2..5 {
        world.scale(1);
        world.settle();
        world.pass(1.0);
        world.finish_all();
        world.scale(2);
        world.finish_all();
        assert_eq!(world.slot(1).generation, generation);
        world.well(1);
        world.settle();
    }
}

#[test]
fn a_warm_slot_is_started_but_stays_out_of_the_ring_until_it_counts() {
    let mut world = World::serving(1);
    world.wish().warm = 2;
    world.finish_all();
    world.well(1);
    world.settle();
    assert_eq!(world.ring(), [0]);
    assert_eq!(world.kernel(1), SlotState::Starting);
    world.wish().copies = 2;
    let steps = world.settle();
    assert!(
        matches!(steps[..], [Action::SetSlot { .. }, Action::SetRing { .. }]),
        "nothing to start any more: {steps:?}"
    );
    assert_eq!(world.ring(), [0, 1]);
}

#[test]
fn a_crash_loop_waits_and_holds_up_nobody() {
    let mut world = World::serving(2);
    for expected in [0.0, 0.5, 1.0] {
        world.fail(0);
        world.finish_all();
        let now = world.now;
        let waits = world.slot(0).retry_at.saturating_sub(now);
        assert_eq!(waits, Duration::from_secs_f64(expected));
        if !waits.is_zero() {
            assert_eq!(world.kernel(0), SlotState::Backoff);
            assert!(world.slot(0).current.is_none());
            world.scale(3);
            world.finish_all();
            world.well(2);
            world.settle();
            assert_eq!(world.ring(), [1, 2], "another slot starts meanwhile");
        }
        world.pass(expected);
        world.finish_all();
        assert!(world.slot(0).current.is_some(), "after {expected} s");
    }
}

#[test]
fn a_failed_stop_is_tried_again_and_the_ring_is_kept() {
    let mut world = World::serving(2);
    world.fail(0);
    world.settle();
    let now = world.now;
    world.slot(0).cannot_stop(now);
    assert_eq!(world.settle(), []);
    world.pass(1.0);
    world.settle();
    assert_eq!(world.actions("Stop"), [0, 0]);
    assert_eq!(world.ring(), [1]);
}

#[test]
fn what_is_prepared_and_not_wanted_any_more_is_discarded() {
    let mut world = World::serving(1);
    world.scale(2);
    world.settle();
    world.finish(1);
    world.scale(1);
    world.finish_all();
    assert_eq!(world.actions("Discard"), [1]);
    assert_eq!(world.actions("Start"), Vec::<u16>::new());
    assert!(world.slot(1).is_idle());
}

#[test]
fn a_new_spec_replaces_slot_by_slot_and_the_ring_loses_one_at_most() {
    let mut world = World::serving(3);
    world.wish().spec = "two".into();
    let mut fewest = 3;
    for _ in 0..200 {
        world.settle();
        fewest = fewest.min(world.ring().len());
        world.pass(0.25);
        for slot in 0..3 {
            if !world.finish(slot)
                && let Some(current) = &world.slot(slot).current
                && current.health.since.is_none()
            {
                world.well(slot);
            }
        }
    }
    assert_eq!(world.actions("Drain"), [2, 1, 0]);
    assert_eq!(fewest, 2);
    assert_eq!(world.ring(), [0, 1, 2]);
    assert!((0..3).all(|slot| world.current(slot).spec == "two"));
}

#[test]
fn a_single_copy_gets_company_while_it_is_replaced() {
    let mut world = World::serving(1);
    world.wish().spec = "two".into();
    for _ in 0..200 {
        world.settle();
        assert!(!world.ring().is_empty(), "somebody always serves");
        world.pass(0.25);
        let slots: Vec<_> = world.observed.services[0].slots.keys().copied().collect();
        for slot in slots {
            if !world.finish(slot)
                && let Some(current) = &world.slot(slot).current
                && current.health.since.is_none()
            {
                world.well(slot);
            }
        }
    }
    assert_eq!(world.ring(), [0]);
    assert_eq!(world.current(0).spec, "two");
    assert!(world.slot(1).is_idle());
}

#[test]
fn a_scale_down_does_not_take_the_last_one_that_serves() {
    let mut world = World::serving(2);
    world.fail(0);
    world.scale(1);
    world.finish_all();
    assert_eq!(world.ring(), [1], "slot 0 is not well yet");
    world.well(0);
    world.settle();
    world.pass(0.25);
    world.finish_all();
    assert_eq!(world.ring(), [0]);
    assert!(world.slot(1).is_idle());
}

#[test]
fn a_slot_that_fails_while_it_drains_is_stopped_and_not_replaced() {
    let mut world = World::serving(2);
    world.slot(1).live = 1;
    world.scale(1);
    world.settle();
    world.fail(1);
    world.finish_all();
    assert_eq!(world.actions("Create"), Vec::<u16>::new());
    assert!(world.slot(1).is_idle());
}

#[test]
fn the_end_takes_everything() {
    let mut world = World::serving(3);
    world.observed.strays.insert(
        BackendId("stray".into()),
        Stray {
            runtime: RuntimeKind::Docker,
            stopping: false,
            retry_at: Moment::ZERO,
        },
    );
    world.scale(0);
    world.settle();
    assert_eq!(world.ring(), Vec::<u16>::new());
    world.pass(0.25);
    world.finish_all();
    assert!(world.observed.services[0].is_idle());
    assert!(world.observed.strays.values().all(|stray| stray.stopping));
}

#[test]
fn an_adopted_ring_is_not_touched() {
    let mut world = World::serving(2);
    // A new controller does not know the ring, and trusts what the kernel says is ready.
    world.observed.services[0].ring = None;
    assert_eq!(
        world.settle(),
        [Action::SetRing {
            service: 0,
            slots: vec![0, 1]
        }]
    );
}

/// Any order of failures, scalings and answers keeps the orders that `apply` asserts, and ends
/// where it should once the world calms down.
#[test]
fn random_lives_end_where_they_should() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for _ in 0..300 {
        let mut world = World::serving(1 + random(4) as u16);
        for _ in 0..60 {
            world.settle();
            let slots: Vec<_> = world.observed.services[0].slots.keys().copied().collect();
            let slot = slots[random(slots.len() as u64) as usize];
            match random(8) {
                0 => world.scale(1 + random(6) as u16),
                1 if world.slot(slot).current.is_some() => world.fail(slot),
                2 => world.slot(slot).live = random(2),
                3 => world.wish().spec = format!("{}", random(3)),
                4 => world.wish().warm = world.desired.services[0].copies + random(3) as u16,
                5 if world.slot(slot).current.is_some() => world.well(slot),
                6 => world.pass(0.25),
                _ => {
                    world.finish(slot);
                }
            }
        }
        let copies = world.desired.services[0].copies;
        world.scale(copies);
        for _ in 0..400 {
            world.pass(1.0);
            world.finish_all();
            for slot in 0..16 {
                if let Some(state) = world.observed.services[0].slots.get_mut(&slot) {
                    state.live = 0;
                    if let Some(current) = &mut state.current {
                        current.health = Health::trusted(world.now);
                    }
                }
            }
        }
        assert_eq!(world.ring(), (0..copies).collect::<Vec<_>>());
        let end = &world.observed.services[0];
        assert!(end.slots.range(copies..).all(|(_, slot)| slot.is_idle()));
    }
}
