//! Containers that need no port of this host: the next one need not wait for the end of the one
//! before it.

use super::*;

#[test]
fn a_crashed_backend_makes_room_and_the_next_one_starts_beside_it() {
    let mut world = World::serving_directly(2);
    let old = world.current(0).address;
    world.fail(0);
    let steps = world.settle();
    let out = Action::SetRing {
        service: 0,
        slots: vec![1],
    };
    assert_eq!(steps[0], out, "out of the ring before anything else");
    let part = Action::Part {
        service: 0,
        slot: 0,
        grace: Duration::ZERO,
    };
    assert_eq!(steps[1], part);
    assert_eq!(world.actions("Create"), [0], "in the same breath");
    world.finish_all();
    assert_eq!(world.actions("Start"), [0]);
    assert_eq!(world.actions("Stop"), Vec::<u16>::new(), "others end it");
    assert_eq!((world.slot(0).generation, world.ring()), (2, vec![1]));
    world.well(0);
    world.settle();
    assert_eq!(world.ring(), [0, 1]);
    let kernel = world.slot(0).kernel.unwrap();
    assert_eq!((kernel.state, kernel.generation), (SlotState::Ready, 2));
    assert_eq!(kernel.address, world.current(0).address);
    assert_ne!(kernel.address, old);
}

/// Addresses that the kernel was told for a slot, in turn.
fn told(world: &World, number: u16) -> Vec<SocketAddr> {
    let told = world.log.iter().filter_map(|action| match action {
        Action::SetSlot { slot, to, .. } if *slot == number => Some(to.address),
        _ => None,
    });
    let mut told: Vec<_> = told.collect();
    told.dedup();
    told
}

#[test]
fn nobody_is_led_to_a_container_that_is_dead_or_not_well_yet() {
    let mut world = World::serving_directly(1);
    let nowhere = world.observed.services[0].expected_address(0);
    world.fail(0);
    world.finish_all();
    world.pass(1.0);
    world.finish_all();
    assert_eq!(told(&world, 0), [nowhere], "while the new one starts");
    world.well(0);
    world.settle();
    let new = world.current(0).address;
    assert_eq!(told(&world, 0), [nowhere, new]);
    world.log.clear();
    world.fail(0);
    world.settle();
    assert_eq!(told(&world, 0), [nowhere], "once it has failed");
}

#[test]
fn one_that_is_not_wanted_any_more_is_stopped_in_its_slot() {
    let mut world = World::serving_directly(2);
    world.scale(1);
    world.settle();
    world.pass(0.25);
    world.settle();
    assert_eq!(world.actions("Part"), Vec::<u16>::new());
    assert_eq!(world.actions("Stop"), [1]);
    world.finish_all();
    assert_eq!(world.actions("RemoveSlot"), [1]);
}

#[test]
fn a_new_spec_waits_for_the_flows_and_not_for_the_end_of_the_old_backend() {
    let mut world = World::serving_directly(2);
    world.slot(1).live = 1;
    world.wish().spec = "two".into();
    world.settle();
    assert_eq!(world.actions("Drain"), [1]);
    world.pass(0.25);
    assert_eq!(world.settle(), [], "a flow is open");
    world.slot(1).live = 0;
    world.pass(0.25);
    let steps = world.settle();
    let part = Action::Part {
        service: 0,
        slot: 1,
        grace: Duration::from_secs(10),
    };
    assert!(steps.contains(&part), "{steps:?}");
    assert_eq!(world.actions("Create"), [1]);
    world.finish_all();
    world.well(1);
    world.settle();
    world.pass(0.25);
    world.settle();
    assert_eq!(world.actions("Drain"), [1, 0], "then the other");
}

#[test]
fn where_the_new_backend_needs_the_port_the_old_one_goes_first() {
    let mut world = World::serving_directly(2);
    // Direct delivery was refused: from now on backends are reached by port.
    world.wish().overlap = false;
    world.wish().spec = "by port".into();
    world.settle();
    world.pass(0.25);
    world.settle();
    assert_eq!(world.actions("Part"), Vec::<u16>::new());
    assert_eq!(world.actions("Stop"), [1]);
    assert_eq!(world.actions("Start"), Vec::<u16>::new());
    world.finish_all();
    assert_eq!(world.actions("Start"), [1]);
}

#[test]
fn flows_that_outlast_the_drain_limit_have_the_grace_to_finish_in() {
    let mut world = World::serving_directly(2);
    world.slot(1).live = 1;
    world.wish().spec = "two".into();
    world.settle();
    world.pass(30.0);
    world.settle();
    assert_eq!(world.actions("Part"), Vec::<u16>::new());
    assert_eq!(world.actions("Stop"), [1]);
    let kernel = world.slot(1).kernel.unwrap();
    assert_eq!(kernel.address, world.current(1).address, "still led there");
    assert_eq!(kernel.generation, 1);
    assert_eq!(world.actions("Create"), [1], "the next one is prepared");
    world.finish_all();
    assert_eq!(world.actions("Start"), [1]);
}

#[test]
fn a_container_with_a_port_gives_it_back_before_one_without_takes_its_place() {
    let mut world = World::serving(2);
    world.wish().overlap = true;
    world.wish().spec = "direct".into();
    world.settle();
    world.pass(0.25);
    world.settle();
    assert_eq!(world.actions("Part"), Vec::<u16>::new());
    assert_eq!(world.actions("Stop"), [1]);
    world.finish_all();
    assert_eq!(world.actions("Start"), [1]);
}

#[test]
fn what_never_came_into_the_ring_is_replaced_without_waiting_for_others() {
    let mut world = World::new(3);
    world.wish().overlap = true;
    world.finish_all();
    // None is in the ring: the data plane refuses all of them.
    world.observed.services[0].ring = Some(Vec::new());
    world.wish().spec = "by port".into();
    world.wish().overlap = false;
    for _ in 0..20 {
        world.pass(0.25);
        world.finish_all();
    }
    assert!((0..3).all(|slot| world.current(slot).spec == "by port"));
}
