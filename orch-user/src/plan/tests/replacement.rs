//! Backends that fail, or do not fit any more.

use super::*;

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
