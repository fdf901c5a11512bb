//! Spares: ready backends without a slot.

use super::*;
use crate::state::FIRST_SPARE;

/// A world whose copies are in the ring and whose spares are well.
fn with_spares(copies: u16, spares: u16) -> World {
    let mut world = World::serving_directly(copies);
    world.wish().spares = spares;
    world.finish_all();
    for spare in FIRST_SPARE..FIRST_SPARE + spares {
        world.well(spare);
    }
    world.settle();
    world.log.clear();
    world
}

fn id(world: &mut World, slot: u16) -> BackendId {
    world.current(slot).id.clone()
}

#[test]
fn spares_are_made_once_all_slots_are_well_and_the_kernel_hears_of_none() {
    let mut world = World::new(2);
    world.wish().overlap = true;
    world.wish().spares = 2;
    world.finish_all();
    assert_eq!(world.actions("Create"), [0, 1]);
    world.well(0);
    world.finish_all();
    assert_eq!(world.actions("Create"), [0, 1], "one still starts");
    world.well(1);
    world.finish_all();
    assert_eq!(
        world.actions("Create"),
        [0, 1, FIRST_SPARE, FIRST_SPARE + 1]
    );
    world.well(FIRST_SPARE);
    world.settle();
    assert_eq!(world.ring(), [0, 1]);
    assert!(world.actions("SetSlot").iter().all(|slot| *slot < 2));
    let now = world.now;
    let state = world.slot(FIRST_SPARE).spare_state(now);
    assert_eq!(state, SlotState::Spare);
}

#[test]
fn a_failure_takes_a_spare_in_the_same_breath_and_waits_for_nobody() {
    let mut world = with_spares(2, 1);
    let spare = id(&mut world, FIRST_SPARE);
    let address = world.current(FIRST_SPARE).address;
    world.fail(0);
    let steps = world.settle();
    let out = Action::SetRing {
        service: 0,
        slots: vec![1],
    };
    let take = Action::TakeSpare {
        service: 0,
        slot: 0,
        spare: FIRST_SPARE,
        grace: Duration::ZERO,
    };
    let to = KernelSlot {
        state: SlotState::Ready,
        generation: 2,
        address,
    };
    let set = Action::SetSlot {
        service: 0,
        slot: 0,
        to,
    };
    let back = Action::SetRing {
        service: 0,
        slots: vec![0, 1],
    };
    let steps: Vec<_> = steps
        .into_iter()
        .filter(|step| !matches!(step, Action::Create { .. }))
        .collect();
    assert_eq!(steps, [out, take, set, back], "one SetSlot, and the ring");
    assert_eq!(id(&mut world, 0), spare);
    assert_eq!(world.actions("Create"), [FIRST_SPARE], "the next spare");
    assert_eq!(world.actions("Stop"), Vec::<u16>::new());
}

#[test]
fn the_spare_that_has_been_well_for_longest_goes_first() {
    let mut world = with_spares(1, 3);
    let now = world.now;
    for (spare, seconds) in [(FIRST_SPARE, 5), (FIRST_SPARE + 1, 9), (FIRST_SPARE + 2, 7)] {
        let since = now.checked_sub(Duration::from_secs(seconds));
        world.current(spare).health.since = since;
    }
    let oldest = id(&mut world, FIRST_SPARE + 1);
    world.fail(0);
    world.settle();
    assert_eq!(id(&mut world, 0), oldest);
}

#[test]
fn a_spare_that_is_not_well_or_not_what_is_wanted_is_not_taken() {
    let mut world = with_spares(2, 1);
    world.current(FIRST_SPARE).health = Health::default();
    world.fail(0);
    world.settle();
    assert_eq!(world.actions("TakeSpare"), Vec::<u16>::new());
    assert_eq!(world.actions("Create"), [0], "as without spares");
    world.well(FIRST_SPARE);
    world.settle();
    assert_eq!(world.actions("TakeSpare"), Vec::<u16>::new(), "too late");

    let mut world = with_spares(2, 1);
    world.fail(FIRST_SPARE);
    world.fail(0);
    world.settle();
    assert_eq!(world.actions("TakeSpare"), Vec::<u16>::new());
    assert_eq!(world.actions("Stop"), [FIRST_SPARE]);
}

#[test]
fn more_copies_take_spares_first() {
    let mut world = with_spares(1, 2);
    world.scale(4);
    world.settle();
    assert_eq!(world.actions("TakeSpare"), [1, 2]);
    assert_eq!(world.ring(), [0, 1, 2], "at once");
    assert_eq!(world.actions("Create"), [3], "spares wait for it");
    world.finish_all();
    world.well(3);
    world.finish_all();
    assert_eq!(world.actions("Create"), [3, FIRST_SPARE, FIRST_SPARE + 1]);
}

#[test]
fn a_new_spec_discards_spares_and_then_rolls_with_new_ones() {
    let mut world = with_spares(2, 1);
    world.wish().spec = "two".into();
    world.settle();
    assert_eq!(world.actions("Stop"), [FIRST_SPARE], "without a drain");
    assert_eq!(world.actions("TakeSpare"), Vec::<u16>::new());
    for _ in 0..40 {
        world.pass(0.25);
        world.finish_all();
        for slot in [0, 1, FIRST_SPARE] {
            let slots = &world.observed.services[0].slots;
            let current = slots.get(&slot).and_then(|slot| slot.current.as_ref());
            if current.is_some_and(|current| current.health.since.is_none()) {
                world.well(slot);
            }
        }
    }
    assert_eq!(world.ring(), [0, 1]);
    assert!(
        [0, 1, FIRST_SPARE]
            .iter()
            .all(|slot| world.current(*slot).spec == "two")
    );
}

#[test]
fn a_crash_loop_uses_spares_and_is_slowed_where_they_are_made() {
    let mut world = with_spares(1, 2);
    for _ in 0..2 {
        world.fail(0);
        world.settle();
        assert_eq!(world.ring(), [0], "a spare is well and at hand");
        if world.actions("TakeSpare").len() == 1 {
            assert_eq!(
                world.actions("Create"),
                [FIRST_SPARE],
                "the first failure is free"
            );
        }
    }
    assert_eq!(world.actions("TakeSpare"), [0, 0]);
    assert_eq!(
        world.actions("Create"),
        [FIRST_SPARE],
        "half a second to wait"
    );
    let now = world.now;
    assert_eq!(
        next_moment(&world.desired, &world.observed, now),
        Some(now + Duration::from_millis(500))
    );
    world.pass(0.5);
    world.settle();
    assert_eq!(world.actions("Create"), [FIRST_SPARE, FIRST_SPARE + 1]);
}

#[test]
fn a_slot_that_rests_holds_up_no_spares_and_gets_none_of_those() {
    let mut world = with_spares(2, 1);
    for _ in 0..4 {
        world.fail(0);
        world.settle();
        world.finish_all();
        if world.slot(0).current.is_some() {
            world.well(0);
        }
        world.log.clear();
    }
    let now = world.now;
    assert!(world.slot(0).retry_at > now, "it has to wait");
    world.settle();
    world.finish_all();
    assert!(world.slot(FIRST_SPARE).current.is_some(), "made meanwhile");
    world.pass(0.01);
    world.well(FIRST_SPARE);
    world.settle();
    assert_eq!(
        world.actions("TakeSpare"),
        Vec::<u16>::new(),
        "slot 0 waits"
    );
    world.fail(1);
    world.settle();
    assert_eq!(world.actions("TakeSpare"), [1], "slot 1 does not");
    let wait = world.slot(0).retry_at.saturating_sub(world.now);
    world.pass(wait.as_secs_f64());
    world.settle();
    world.finish_all();
    assert!(world.slot(0).current.is_some(), "tried again");
}

#[test]
fn a_spare_is_frozen_once_it_is_well_and_thawed_when_they_are_to_run() {
    let mut world = World::serving_directly(1);
    world.wish().spares = 1;
    world.wish().spare_kind = SpareKind::Frozen;
    world.finish_all();
    assert_eq!(world.actions("Freeze"), Vec::<u16>::new(), "not well yet");
    world.well(FIRST_SPARE);
    world.settle();
    assert_eq!(world.actions("Freeze"), [FIRST_SPARE]);
    assert!(world.current(FIRST_SPARE).frozen);
    world.wish().spare_kind = SpareKind::Running;
    world.settle();
    assert!(!world.current(FIRST_SPARE).frozen);
}

#[test]
fn fewer_spares_and_the_end() {
    let mut world = with_spares(1, 2);
    world.wish().spares = 1;
    world.settle();
    assert_eq!(world.actions("Stop"), [FIRST_SPARE + 1]);
    world.wish().spares = 0;
    world.scale(0);
    world.settle();
    world.pass(0.25);
    world.finish_all();
    assert!(world.observed.services[0].is_idle());
}

#[test]
fn where_backends_need_ports_no_spare_is_put_in() {
    let mut world = with_spares(2, 1);
    world.wish().overlap = false;
    world.wish().spares = 0;
    world.fail(0);
    world.settle();
    assert_eq!(world.actions("TakeSpare"), Vec::<u16>::new());
    assert_eq!(world.actions("Stop"), [FIRST_SPARE, 0]);
}

/// The same with spares that wait at their gates.
fn with_gated_spares(copies: u16, spares: u16) -> World {
    let mut world = World::serving_directly(copies);
    world.wish().spares = spares;
    world.wish().spare_kind = SpareKind::Gated;
    world.finish_all();
    world.log.clear();
    world
}

#[test]
fn a_gated_spare_is_at_hand_without_an_answer() {
    let mut world = with_gated_spares(1, 1);
    let now = world.now;
    let spare = world.slot(FIRST_SPARE);
    assert!(spare.is_gated() && !spare.can_serve());
    assert_eq!(spare.spare_state(now), SlotState::Spare);
    assert_eq!(world.settle(), []);
}

#[test]
fn a_gated_spare_starts_in_the_slot_of_what_failed_and_is_in_the_ring_once_it_is_well() {
    let mut world = with_gated_spares(2, 1);
    let spare = id(&mut world, FIRST_SPARE);
    world.fail(0);
    world.settle();
    assert_eq!(world.actions("TakeSpare"), [0]);
    assert_eq!(world.ring(), [1], "not before it answers");
    assert_eq!(world.kernel(0), SlotState::Starting);
    assert_eq!(
        world.actions("Create"),
        Vec::<u16>::new(),
        "spares wait for it"
    );
    world.well(0);
    world.finish_all();
    assert_eq!(world.ring(), [0, 1]);
    assert_eq!(id(&mut world, 0), spare);
    assert_eq!(world.actions("Create"), [FIRST_SPARE], "the next spare");
}

#[test]
fn more_copies_are_gated_spares_first() {
    let mut world = with_gated_spares(1, 1);
    world.scale(3);
    world.settle();
    assert_eq!(world.actions("TakeSpare"), [1]);
    assert_eq!(world.actions("Create"), [2]);
}

#[test]
fn a_crash_loop_leaves_gated_spares_alone_while_it_waits() {
    let mut world = with_gated_spares(1, 3);
    world.fail(0);
    world.settle();
    assert_eq!(world.actions("TakeSpare"), [0], "the first failure is free");
    world.fail(0);
    world.settle();
    assert_eq!(world.actions("TakeSpare"), [0], "half a second to wait");
    world.pass(0.5);
    world.settle();
    assert_eq!(world.actions("TakeSpare"), [0, 0]);
}

#[test]
fn one_that_is_well_goes_before_one_that_has_yet_to_start() {
    let mut world = with_spares(1, 2);
    world.current(FIRST_SPARE).gated = true;
    world.current(FIRST_SPARE).health = Health::default();
    let well = id(&mut world, FIRST_SPARE + 1);
    world.fail(0);
    world.settle();
    assert_eq!(id(&mut world, 0), well);
}

#[test]
fn spares_of_another_kind_are_replaced() {
    let mut world = with_gated_spares(1, 1);
    world.wish().spare_kind = SpareKind::Running;
    world.settle();
    assert_eq!(
        world.actions("Stop"),
        [FIRST_SPARE],
        "its program has not begun"
    );
    world.finish_all();
    assert!(!world.current(FIRST_SPARE).gated);
    world.well(FIRST_SPARE);
    world.log.clear();
    world.wish().spare_kind = SpareKind::Gated;
    world.finish_all();
    assert_eq!(world.actions("Stop"), [FIRST_SPARE], "its program runs");
    assert!(world.current(FIRST_SPARE).gated);
}

#[test]
fn a_gated_process_begins_once_its_slot_is_empty() {
    let mut world = World::serving(2);
    world.wish().spares = 1;
    world.wish().spare_kind = SpareKind::Gated;
    world.finish_all();
    assert_eq!(world.actions("Create"), [FIRST_SPARE]);
    let spare = id(&mut world, FIRST_SPARE);
    world.log.clear();
    world.fail(0);
    world.settle();
    assert_eq!(world.actions("Stop"), [0], "it has the port");
    assert_eq!(world.actions("Create"), Vec::<u16>::new(), "one is at hand");
    assert!(world.finish(0));
    world.settle();
    assert_eq!(world.actions("TakeSpare"), [0]);
    assert_eq!(id(&mut world, 0), spare);
    world.well(0);
    world.finish_all();
    assert_eq!(world.ring(), [0, 1]);
    assert_eq!(world.actions("Create"), [FIRST_SPARE], "the next spare");
}

#[test]
fn a_slot_that_is_reached_by_its_port_takes_no_spare() {
    for kind in [SpareKind::Running, SpareKind::Gated] {
        let mut world = with_spares(2, 1);
        world.wish().spare_kind = kind;
        world.finish_all();
        if kind == SpareKind::Running {
            world.well(FIRST_SPARE);
        }
        world.wish().apart.insert(1, "by port".into());
        world.finish_all();
        world.pass(1.0);
        world.log.clear();
        world.finish_all();
        assert_eq!(world.ring(), [0], "{kind:?}: out, and replaced");
        assert_eq!(world.current(1).spec, "by port");
        world.well(1);
        world.finish_all();
        assert_eq!(world.ring(), [0, 1]);
        world.fail(1);
        world.finish_all();
        assert_eq!(world.actions("TakeSpare"), Vec::<u16>::new(), "{kind:?}");
        assert_eq!(world.actions("Part"), Vec::<u16>::new(), "{kind:?}");
        assert_eq!(world.actions("Create"), [1, 1]);
        world.well(1);
        world.finish_all();
        assert_eq!(
            (world.ring(), world.current(1).netns.clone()),
            (vec![0, 1], None)
        );

        world.wish().apart.clear();
        world.finish_all();
        world.pass(1.0);
        world.finish_all();
        assert_eq!(world.current(1).spec, SPEC, "{kind:?}: as the others again");
    }
}
