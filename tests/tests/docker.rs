//! The whole program with containers of the host's Docker engine.
#![allow(clippy::unwrap_used, reason = "a test")]

use nix::sys::signal::Signal;
use orch_tests::{
    engine::Way,
    orch::{Kind::Docker, Orch, Settings, docker},
    story::{
        clients, drill, gateway, hold, lifetime, refusals, reload, replace, scale, spare, trouble,
        volume,
    },
};
use serde_json::{Value, json};

#[test]
fn a_crashed_copy_is_replaced_on_its_port() {
    replace::crashed_copies(Docker);
}

#[test]
fn a_killed_copy_is_out_of_the_ring_at_once() {
    replace::killed_copies(Docker);
}

#[test]
fn replacements_in_a_row_leave_nothing() {
    spare::replacements_in_a_row();
}

#[test]
fn frozen_spares_take_over_and_are_found_again() {
    spare::frozen_spares();
}

#[test]
fn gated_spares_begin_when_they_are_needed() {
    spare::gated_spares(Docker);
}

#[test]
fn clients_outside_notice_no_death() {
    drill::outside_clients();
}

#[test]
fn local_clients_notice_no_death() {
    drill::local_clients();
}

#[test]
fn clients_on_the_host_and_in_containers_are_counted() {
    clients::of_host_and_container_are_counted();
}

#[test]
fn troubles_of_the_host_are_outlived() {
    trouble::all();
}

#[test]
fn three_more_copies_take_as_long_as_one_more() {
    scale::three_more_take_as_long_as_one(Docker);
}

#[test]
fn scaling_loses_no_request() {
    scale::up_and_down_under_load(Docker);
}

#[test]
fn a_request_in_flight_is_finished() {
    scale::a_request_in_flight_is_finished(Docker);
}

#[test]
fn a_new_controller_takes_over_under_load() {
    lifetime::controllers_change_under_load(Docker);
}

#[test]
fn connections_wait_for_the_first_copy() {
    hold::from_zero(Docker);
}

#[test]
fn a_burst_waits_for_the_first_copy() {
    hold::a_burst_from_zero(Docker);
}

#[test]
fn connections_wait_for_the_only_copy() {
    hold::a_single_copy_is_killed(Docker);
}

#[test]
fn an_interrupt_leaves_nothing() {
    lifetime::an_interrupt_leaves_nothing(Docker);
}

#[test]
fn down_leaves_nothing() {
    lifetime::down_leaves_nothing(Docker);
}

#[test]
fn what_one_copy_stores_every_other_serves() {
    volume::what_one_stores_every_other_serves(Docker);
}

#[test]
fn a_file_is_read_again() {
    reload::a_file_is_read_again(Docker);
}

#[test]
fn a_taken_slot_port_is_told() {
    refusals::slot_port_taken(Docker);
}

/// Limits, labels, environment, volumes and ports are those of the file.
#[test]
fn a_container_is_what_the_file_says() {
    for (publish, host) in [("localhost", "127.0.0.1"), ("all", "0.0.0.0")] {
        let mut settings = Settings::new(Docker).copies(2);
        settings.service = format!("publish = {publish:?}");
        settings.backend = "memory = \"96MiB\"\ncpus = 0.5\nenv = { MARK = \"x=y\" }".to_owned();
        let orch = Orch::start(settings);
        for row in orch.slots() {
            let printed = docker(&["inspect", &row.backend]);
            let parsed: Value = serde_json::from_str(&printed).unwrap();
            let container = &parsed[0];
            let limits = &container["HostConfig"];
            assert_eq!(limits["Memory"], json!(96 << 20));
            assert_eq!(limits["MemorySwap"], limits["Memory"]);
            assert_eq!(limits["NanoCpus"], json!(500_000_000));
            let labels = &container["Config"]["Labels"];
            assert_eq!(labels["orch.service"], "acts");
            assert_eq!(labels["orch.slot"], row.slot.to_string());
            assert_eq!(labels["orch.port"], row.port.to_string());
            let environment = container["Config"]["Env"].as_array().unwrap();
            assert!(environment.contains(&json!("MARK=x=y")), "{environment:?}");
            assert_eq!(container["Mounts"][0]["Name"], orch.volume());
            let bound = container["NetworkSettings"]["Ports"]["8080/tcp"].as_array();
            let bound = bound.unwrap().iter();
            let port = json!(row.port.to_string());
            let right = |one: &Value| one["HostIp"] == host && one["HostPort"] == port;
            assert!(bound.clone().any(right), "{bound:?}");
        }
    }
}

#[test]
fn a_missing_image_is_refused() {
    let mut settings = Settings::new(Docker);
    settings.image = "orch-test-no-such-image:1".to_owned();
    let orch = Orch::prepare(settings);
    refusals::refuses(&orch, 1, &["orch-test-no-such-image:1", "docker pull"]);
}

#[test]
fn an_engine_that_is_away_is_told() {
    let mut settings = Settings::new(Docker);
    let nowhere = "unix:///nowhere/docker.sock";
    settings.env = vec![("DOCKER_HOST".to_owned(), nowhere.to_owned())];
    let orch = Orch::prepare(settings);
    refusals::refuses(&orch, 1, &["/nowhere/docker.sock", "start it"]);
}

/// The engine goes while two copies serve: they go on serving, it is told once, and what happened
/// meanwhile is made good when the engine is back.
#[test]
fn an_engine_may_go_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let way = Way::open(dir.path().join("docker.sock"));
    let mut settings = Settings::new(Docker).copies(2);
    let host = format!("unix://{}", way.path.display());
    settings.env = vec![("DOCKER_HOST".to_owned(), host)];
    let mut orch = Orch::start(settings);
    let ids = orch.ids();
    way.cut();
    orch.wait_event(0, "lost", "what runs keeps its traffic");
    for _ in 0..20 {
        assert_eq!(orch.ask("GET", "/api/v1/acts/count", "").status, 200);
    }
    // One dies while nobody can tell: its probes do.
    docker(&["kill", &ids[1]]);
    orch.until("the dead one is out of the ring", || {
        orch.slot(1).filter(|row| row.state != "ready")
    });
    for _ in 0..20 {
        assert_eq!(orch.ask("GET", "/api/v1/acts/count", "").status, 200);
    }
    let lost = orch.events().into_iter().filter(|row| row.kind == "lost");
    assert_eq!(lost.count(), 1, "told once");
    way.mend();
    orch.wait_event(0, "back", "answers again");
    let rows = orch.wait_ready(2);
    assert_eq!(rows[0].backend, ids[0]);
    assert_ne!(rows[1].backend, ids[1]);
    orch.end(Signal::SIGINT);
    assert_eq!(orch.remains(), Vec::<String>::new());
}

/// The engine is away at the very end: what cannot be removed is named, and `orch down` finds it once the
/// engine is back.
#[test]
fn an_end_without_the_engine_can_be_made_good() {
    let dir = tempfile::tempdir().unwrap();
    let way = Way::open(dir.path().join("docker.sock"));
    let mut settings = Settings::new(Docker);
    settings.backend = "stop_grace = \"1s\"".to_owned();
    let host = format!("unix://{}", way.path.display());
    settings.env = vec![("DOCKER_HOST".to_owned(), host)];
    let mut orch = Orch::start(settings);
    let id = orch.ids().remove(0);
    way.cut();
    orch.signal(Signal::SIGINT);
    orch.until("it says that it ends", || {
        orch.log().contains("ending").then_some(())
    });
    orch.signal(Signal::SIGINT);
    let status = orch.ended();
    let log = orch.log();
    assert!(
        log.contains("is left behind") && log.contains(&id[..12]),
        "{log}"
    );
    assert_eq!(status.code(), Some(1), "something is left");
    // Without the file: what the controller has noted names its directories.
    let early = orch.verb(&["down"]);
    let said = String::from_utf8_lossy(&early.stdout);
    assert_eq!(early.status.code(), Some(1), "{early:?}");
    assert!(!said.contains("is left"), "{said}");
    way.mend();
    assert!(orch.verb(&["down"]).status.success());
    assert_eq!(orch.remains(), Vec::<String>::new());
}

#[test]
fn a_new_controller_takes_over_under_load_in_mode_http() {
    gateway::controllers_change_under_load(Docker);
}

#[test]
fn an_interrupt_leaves_nothing_of_mode_http() {
    gateway::an_interrupt_leaves_nothing(Docker);
}
