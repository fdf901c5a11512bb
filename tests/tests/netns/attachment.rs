//! What is attached to interfaces: replaced without a gap, and gone without a trace. On a kernel
//! without TCX (before 6.6) these are filters of a clsact qdisc, beside whatever else is there.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use orch::{
    config::Local,
    dataplane::{Dataplane, has_tcx},
};
use orch_common::layout::LAYOUT_VERSION;
use orch_tests::{
    fixture,
    netns::{NetNs, run},
    server::ask,
};

use super::{VIP, World, answered_by, connect};

/// What `tc` prints of an interface of a namespace.
fn tc(netns: &NetNs, args: &[&str]) -> String {
    let mut all = vec!["-n", netns.name.as_str()];
    all.extend(args);
    String::from_utf8(run("tc", &all).stdout).unwrap()
}

/// How many filters of ours there are each way.
fn filters(netns: &NetNs) -> [usize; 2] {
    [("ingress", "orch_ingress"), ("egress", "orch_egress")].map(|(way, name)| {
        let shown = tc(netns, &["filter", "show", "dev", "up0", way]);
        shown.lines().filter(|line| line.contains(name)).count()
    })
}

fn has_clsact(netns: &NetNs) -> bool {
    tc(netns, &["qdisc", "show", "dev", "up0"]).contains("clsact")
}

fn one_each_way() -> [usize; 2] {
    if has_tcx() { [0, 0] } else { [1, 1] }
}

fn detach(world: &mut World) {
    let plane = world.dataplane.take().unwrap();
    world.host.within(|| plane.detach()).unwrap();
}

#[test]
fn a_new_controller_takes_the_place_of_the_old_ones_programs() {
    let mut world = World::new("attach-adopt");
    assert_eq!(filters(&world.host), one_each_way());
    for _ in 0..3 {
        drop(world.dataplane.take());
        assert_eq!(filters(&world.host), one_each_way(), "they outlive it");
        let config = fixture::dataplane("attach-adopt", Local::Connect);
        let again = world.host.within(|| Dataplane::open(&config)).unwrap();
        world.dataplane = Some(again);
        assert_eq!(filters(&world.host), one_each_way(), "one, not two");
    }
    detach(&mut world);
    assert_eq!(filters(&world.host), [0, 0]);
    assert!(!has_clsact(&world.host), "the qdisc was ours");
}

/// A gap would show: a packet that comes by then is refused, since nobody listens on port 80.
#[test]
fn programs_are_replaced_without_a_gap() {
    let mut world = World::new("attach-gap");
    let stop = AtomicBool::new(false);
    let World {
        host,
        outside,
        dataplane,
        ..
    } = &mut world;
    let asked = thread::scope(|scope| {
        let client = scope.spawn(|| {
            outside.within(|| {
                let mut asked = 0;
                while !stop.load(Ordering::Relaxed) {
                    answered_by(VIP);
                    asked += 1;
                }
                asked
            })
        });
        for _ in 0..2 {
            drop(dataplane.take());
            let config = fixture::dataplane("attach-gap", Local::Connect);
            *dataplane = Some(host.within(|| Dataplane::open(&config)).unwrap());
        }
        stop.store(true, Ordering::Relaxed);
        client.join().unwrap()
    });
    assert!(asked > 0);
}

#[test]
fn what_others_have_attached_stays() {
    let mut world = World::new("attach-others");
    if has_tcx() {
        world.host.tc("qdisc add dev up0 clsact");
    }
    let filter = "filter add dev up0 ingress prio 7 protocol ip matchall action pass";
    let mut add = world.host.command("tc");
    if !add.args(filter.split(' ')).status().unwrap().success() {
        println!("left out: this kernel has no classifier matchall (`cargo xtask test vm` has)");
        return;
    }
    assert_eq!(world.outside.within(|| answered_by(VIP)), "8000");
    detach(&mut world);
    assert_eq!(filters(&world.host), [0, 0]);
    let left = tc(&world.host, &["filter", "show", "dev", "up0", "ingress"]);
    assert!(left.contains("matchall"), "{left}");
}

#[test]
fn what_nobody_holds_is_removed() {
    let mut world = World::new("attach-down");
    drop(world.dataplane.take());
    let pins = world.pin_dir.clone();
    world.host.within(|| Dataplane::remove(&pins)).unwrap();
    assert_eq!(filters(&world.host), [0, 0]);
    assert!(!has_clsact(&world.host));
    assert!(!pins.exists());
}

/// Two controllers on one interface do not take each other's programs.
#[test]
fn another_controllers_programs_stay() {
    let mut world = World::new("attach-two");
    let config = fixture::dataplane("attach-second", Local::Off);
    let second = world.host.within(|| Dataplane::open(&config)).unwrap();
    let each = one_each_way();
    assert_eq!(filters(&world.host), each.map(|count| 2 * count));
    world.host.within(|| second.detach()).unwrap();
    assert_eq!(filters(&world.host), each);
    assert_eq!(world.outside.within(|| answered_by(VIP)), "8000");
    detach(&mut world);
    assert!(!tc(&world.host, &["qdisc", "show", "dev", "up0"]).contains("clsact"));
}

/// Connections wait while it is down: nobody refuses them when it is up again.
#[test]
fn an_interface_that_goes_down_and_comes_up_is_balanced_all_the_while() {
    let mut world = World::new("attach-flap");
    world.host.ip(&["link", "set", "up0", "down"]);
    assert_eq!(world.sync(), Vec::<String>::new());
    world.host.ip(&["link", "set", "up0", "up"]);
    for port in ["8000", "8001", "8002"] {
        assert_eq!(world.outside.within(|| answered_by(VIP)), port);
    }
    assert_eq!(world.sync(), Vec::<String>::new());
}

/// By whatever means somebody has done it: the links detached, or the directory of their pins removed.
#[test]
fn what_somebody_detaches_is_attached_again() {
    let mut world = World::new("attach-mend");
    let links = world.pin_dir.join(format!("v{LAYOUT_VERSION}/links"));
    let pins = || -> Vec<_> {
        let mut pins: Vec<_> = fs::read_dir(&links)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        pins.sort();
        pins
    };
    let before = pins();
    assert!(world.sync().is_empty(), "nothing is wrong");
    let mends = |world: &mut World| {
        let sentences = world.sync();
        let told = |text: &String| text.contains("is attached again");
        assert!(
            !sentences.is_empty() && sentences.iter().all(told),
            "{sentences:?}"
        );
        assert_eq!(pins(), before);
        assert!(world.sync().is_empty());
        assert!(
            ["8000", "8001", "8002"].contains(&world.outside.within(|| answered_by(VIP)).as_str())
        );
    };
    for name in ["orch_ingress", "orch_connect4"]
        .into_iter()
        .filter(|_| has_tcx())
    {
        let mut all = before.iter();
        let pin = all
            .find(|pin| pin.to_string_lossy().ends_with(name))
            .unwrap();
        run(
            "bpftool",
            &["link", "detach", "pinned", pin.to_str().unwrap()],
        );
        mends(&mut world);
    }
    if has_tcx() {
        fs::remove_dir_all(&links).unwrap();
        mends(&mut world);
    }
    detach(&mut world);
    assert!(!links.exists());
}

/// A later controller begins with what this one has, and none comes beside it meanwhile.
#[test]
fn maps_whose_pins_somebody_removes_are_pinned_again() {
    let mut world = World::new("attach-maps");
    let mut stream = world.outside.within(|| connect(VIP));
    assert_eq!(ask(&mut stream, "/api/x").unwrap().0, 200);
    let maps = world.pin_dir.join(format!("v{LAYOUT_VERSION}/maps"));
    let count = || fs::read_dir(&maps).unwrap().count();
    let before = count();
    // A filter of clsact is known by its pin.
    let removed = if has_tcx() { &world.pin_dir } else { &maps };
    fs::remove_dir_all(removed).unwrap();
    let told = world.sync().join("\n");
    assert!(told.contains(&format!("pins of {before} maps")), "{told}");
    assert_eq!(count(), before);
    assert_eq!(world.sync(), Vec::<String>::new());
    let config = fixture::dataplane("attach-maps", Local::Connect);
    let second = world.host.within(|| Dataplane::open(&config)).err();
    let second = second.unwrap().to_string();
    assert!(second.contains("another controller"), "{second}");
    drop(world.dataplane.take());
    let again = world.host.within(|| Dataplane::open(&config)).unwrap();
    world.dataplane = Some(again);
    assert_eq!(ask(&mut stream, "/api/x").unwrap().0, 200);
    assert_eq!(world.outside.within(|| answered_by(VIP)), "8001");
}
