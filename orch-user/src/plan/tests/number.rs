//! More copies, fewer, none.

use super::*;
use crate::state::FIRST_SPARE;

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
fn the_end_takes_everything() {
    let mut world = World::serving(3);
    world.observed.strays.insert(
        BackendId("stray".into()),
        Stray {
            runtime: RuntimeKind::Docker,
            stopping: false,
            retry_at: Moment::ZERO,
            grace: Duration::ZERO,
            left: None,
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
    for life in 0..300 {
        let copies = 1 + random(4) as u16;
        let mut world = match life % 2 {
            0 => World::serving(copies),
            _ => World::serving_directly(copies),
        };
        if life % 4 == 1 {
            world.wish().spares = 2;
            if life % 8 == 1 {
                world.wish().spare_kind = SpareKind::Frozen;
            }
        }
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
            for slot in 0..FIRST_SPARE + 2 {
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
        let mut others = end.slots.range(copies..FIRST_SPARE);
        assert!(others.all(|(_, slot)| slot.is_idle()));
        let spares = end.slots.range(FIRST_SPARE..);
        let ready = spares.filter(|(_, spare)| spare.can_serve()).count();
        assert_eq!(ready, usize::from(world.desired.services[0].spares));
    }
}
