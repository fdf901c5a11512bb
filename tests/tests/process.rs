//! The whole program with copies that are processes: what `docker` shows with containers.
#![allow(clippy::unwrap_used, reason = "a test")]

use nix::sys::signal::Signal;
use orch_tests::{
    orch::{Kind::Process, Orch, Settings},
    outside::Outside,
    story::{drill, gateway, hold, lifetime, refusals, reload, replace, scale, spare, top, volume},
};
use serde_json::Value;

#[test]
fn a_crashed_copy_is_replaced_on_its_port() {
    replace::crashed_copies(Process);
}

#[test]
fn a_killed_copy_is_out_of_the_ring_at_once() {
    replace::killed_copies(Process);
}

#[test]
fn gated_spares_begin_when_they_are_needed() {
    spare::gated_spares(Process);
}

#[test]
fn a_copy_without_anybody_who_accepts_is_noticed() {
    drill::killed_workers(env!("CARGO_BIN_EXE_prefork"));
}

#[test]
fn three_more_copies_take_as_long_as_one_more() {
    scale::three_more_take_as_long_as_one(Process);
}

#[test]
fn scaling_loses_no_request() {
    scale::up_and_down_under_load(Process);
}

#[test]
fn a_request_in_flight_is_finished() {
    scale::a_request_in_flight_is_finished(Process);
}

#[test]
fn a_new_controller_takes_over_under_load() {
    lifetime::controllers_change_under_load(Process);
}

#[test]
fn connections_wait_for_the_first_copy() {
    hold::from_zero(Process);
}

#[test]
fn a_burst_waits_for_the_first_copy() {
    hold::a_burst_from_zero(Process);
}

#[test]
fn connections_wait_for_the_only_copy() {
    hold::a_single_copy_is_killed(Process);
}

#[test]
fn a_copy_that_cannot_start_is_not_waited_for() {
    hold::a_failed_start_refuses();
}

#[test]
fn an_interrupt_leaves_nothing() {
    lifetime::an_interrupt_leaves_nothing(Process);
}

#[test]
fn down_leaves_nothing() {
    lifetime::down_leaves_nothing(Process);
}

#[test]
fn a_kill_between_starts_leaves_nothing() {
    lifetime::a_kill_between_starts_leaves_nothing();
}

#[test]
fn what_one_copy_stores_every_other_serves() {
    volume::what_one_stores_every_other_serves(Process);
}

#[test]
fn a_request_waits_for_the_first_copy_in_mode_http() {
    hold::from_zero_in_mode_http(Process);
}

#[test]
fn a_file_is_read_again() {
    reload::a_file_is_read_again(Process);
}

#[test]
fn ports_change_hands_when_files_are_read_again() {
    reload::ports_change_hands(Process);
}

#[test]
fn another_user_than_root_is_refused() {
    refusals::not_root(Process);
}

#[test]
fn a_taken_port_is_refused() {
    refusals::port_taken(Process);
}

#[test]
fn a_taken_slot_port_is_told() {
    refusals::slot_port_taken(Process);
}

#[test]
fn a_bad_file_is_refused_with_all_its_mistakes() {
    refusals::bad_file(Process);
}

#[test]
fn an_interface_that_does_not_exist_is_refused() {
    refusals::no_interface(Process);
}

#[test]
fn a_second_controller_is_refused() {
    refusals::two_controllers(Process);
}

#[test]
fn top_shows_a_crash_and_gives_the_terminal_back() {
    top::a_crash_is_seen();
}

#[test]
fn a_signal_ends_top_and_gives_the_terminal_back() {
    top::a_signal_gives_the_terminal_back();
}

/// An interface that goes while it is balanced takes nobody else with it.
#[test]
fn an_interface_may_vanish() {
    let (stays, goes) = (Outside::new(), Outside::new());
    let mut settings = Settings::new(Process);
    settings.dataplane = format!("interfaces = [{:?}, {:?}]", stays.device, goes.device);
    let orch = Orch::start(settings);
    let ask = |outside: &Outside| {
        let address = outside.to(orch.listen);
        let asked = outside
            .netns
            .within(|| orch_tests::client::once(address, "GET", "/api/v1/acts/count", ""));
        assert_eq!(asked.unwrap().status, 200);
    };
    ask(&stays);
    ask(&goes);
    let device = goes.device.clone();
    drop(goes);
    orch.wait_event(0, "uplink", &format!("{device} is no longer balanced"));
    ask(&stays);
    assert_eq!(orch.ask("GET", "/api/v1/acts/count", "").status, 200);
}

/// Scripts rely on these fields.
#[test]
fn the_json_has_its_fields() {
    let orch = Orch::start(Settings::new(Process).copies(2));
    let number = |value: &Value| value.is_u64();
    let real = |value: &Value| value.is_number();
    let text = |value: &Value| value.is_string();
    let check = |row: &Value, fields: &[&str], right: &dyn Fn(&Value) -> bool| {
        for field in fields {
            let value = row.get(field).unwrap_or(&Value::Null);
            assert!(right(value), "{field} in {row}");
        }
    };
    let slots = orch.json(&["ps", "-o", "json"]);
    let slots = slots.as_array().unwrap();
    assert_eq!(slots.len(), 2);
    for row in slots {
        check(
            row,
            &["service", "state", "backend", "runtime", "address"],
            &text,
        );
        let counts = [
            "slot",
            "port",
            "connections",
            "requests",
            "responses",
            "errors",
        ];
        check(row, &counts, &number);
        check(row, &["age_s"], &real);
        assert!(row["healthy"].is_boolean());
        row["address"]
            .as_str()
            .unwrap()
            .parse::<std::net::SocketAddr>()
            .unwrap();
        row["backend"].as_str().unwrap().parse::<i32>().unwrap();
    }
    orch.ask("GET", "/api/v1/acts/count", "");
    orch.until("the window counts", || {
        let rows = orch.json(&["status", "-o", "json"]);
        let row = &rows[0];
        check(row, &["service", "listen", "mode"], &text);
        let counts = [
            "desired",
            "ready",
            "window_count",
            "requests_total",
            "responses_total",
        ];
        check(row, &counts, &number);
        check(row, &["request_rate", "response_rate"], &real);
        (row["window_count"] == 1 && row["window_ends_in_s"].is_number()).then_some(())
    });
    for event in orch.json(&["events", "-o", "json"]).as_array().unwrap() {
        check(event, &["kind", "text", "service"], &text);
        check(event, &["id"], &number);
    }
    let none = Orch::prepare(Settings::new(Process)).verb(&["ps", "-o", "json"]);
    assert_eq!(none.status.code(), Some(1));
    orch.signal(Signal::SIGINT);
}

#[test]
fn a_new_controller_takes_over_under_load_in_mode_http() {
    gateway::controllers_change_under_load(Process);
}

#[test]
fn an_interrupt_leaves_nothing_of_mode_http() {
    gateway::an_interrupt_leaves_nothing(Process);
}

#[test]
fn down_leaves_nothing_of_mode_http() {
    gateway::down_leaves_nothing(Process);
}

#[test]
fn copies_come_and_go_under_load_in_mode_http() {
    gateway::copies_come_and_go_under_load();
}

#[test]
fn a_dead_gateway_is_started_again() {
    gateway::a_dead_gateway_is_started_again();
}

#[test]
fn a_frozen_copy_is_passed_by_in_mode_http() {
    gateway::a_frozen_copy_is_passed_by();
}
