//! Pictures on a terminal in memory, and keys.

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

use super::{
    draw::draw,
    model::{Model, Onward},
};
use crate::{
    history::Sample,
    live::{Live, LiveService, LiveSlot},
    view::{EventRow, ServiceRow, SlotRow},
};

fn slot(number: u16, state: &str, rate: f64) -> LiveSlot {
    LiveSlot {
        row: SlotRow {
            service: "acts".to_owned(),
            slot: number,
            port: 8000 + number,
            state: state.to_owned(),
            backend: format!("backend{number}"),
            ..SlotRow::default()
        },
        polls: "+!".to_owned(),
        request_rate: rate,
        p99_s: Some(0.0123),
        ..LiveSlot::default()
    }
}

fn model() -> Model {
    let mut model = Model::default();
    model.take(Live {
        version: "9.9.9".to_owned(),
        services: vec![LiveService {
            row: ServiceRow {
                service: "acts".to_owned(),
                ready: 2,
                desired: 3,
                ..ServiceRow::default()
            },
            outlook: "in 0:41, 17 of 20 counted, would stay at 1".to_owned(),
            samples: vec![Sample {
                requests: 12.0,
                ..Sample::default()
            }],
            ..LiveService::default()
        }],
        slots: vec![
            slot(0, "ready", 1.0),
            slot(1, "failed", 9.0),
            slot(2, "ready", 4.0),
        ],
        events: vec![EventRow {
            id: 1,
            time: 0.0,
            service: "acts".to_owned(),
            slot: Some(1),
            kind: "exited".to_owned(),
            text: "bell\u{7}and \u{1b}[2J".to_owned(),
        }],
        ..Live::default()
    });
    model
}

fn picture(model: &mut Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model)).unwrap();
    terminal.backend().to_string()
}

fn press(model: &mut Model, codes: &[KeyCode]) -> Onward {
    let press = |code: &KeyCode| model.key(KeyEvent::new(*code, KeyModifiers::NONE));
    codes.iter().map(press).last().unwrap()
}

#[test]
fn everything_is_on_the_screen_and_nothing_of_a_log_is_a_control_character() {
    let text = picture(&mut model(), 130, 30);
    for word in [
        "9.9.9",
        "2 of 3 copies",
        "in 0:41, 17 of 20 counted",
        "● ready",
        "✖ failed",
        "12ms",
        "acts/1",
        "exited",
        "bell and  [2J",
        "q quit",
    ] {
        assert!(text.contains(word), "{word}:\n{text}");
    }
    assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'));
}

#[test]
fn any_size_can_be_drawn() {
    for (width, height) in [(1, 1), (10, 3), (40, 8), (80, 24), (300, 90)] {
        picture(&mut model(), width, height);
        let mut model = model();
        press(&mut model, &[KeyCode::Enter]);
        picture(&mut model, width, height);
    }
}

#[test]
fn what_there_is_no_room_for_is_counted() {
    let mut model = model();
    let (service, slot) = (model.live.services[0].clone(), model.live.slots[0].clone());
    model.live.services = vec![service; 9];
    model.live.slots = vec![slot; 40];
    let lines = |text: &str, word: &str| text.lines().filter(|line| line.contains(word)).count();
    let text = picture(&mut model, 130, 24);
    assert_eq!(lines(&text, "2 of 3 copies"), 9, "a line each:\n{text}");
    assert_eq!(lines(&text, "services more"), 0, "{text}");
    let seen = format!("slots, {} of 40", lines(&text, "● ready"));
    assert!(text.contains(&seen), "{seen}:\n{text}");
    let text = picture(&mut model, 130, 14);
    let more = format!("and {} services more", 9 - lines(&text, "2 of 3 copies"));
    assert!(text.contains(&more), "{more}:\n{text}");
    let text = picture(&mut model, 130, 100);
    assert_eq!(lines(&text, "in 0:41, 17 of 20"), 9, "{text}");
    assert!(!text.contains("of 40"), "{text}");
}

#[test]
fn slots_are_sorted_and_the_chosen_one_stays_chosen() {
    let mut model = model();
    press(&mut model, &[KeyCode::Down]);
    let order = |model: &Model| -> Vec<_> {
        let slots = model.slots();
        slots.iter().map(|slot| slot.row.slot).collect()
    };
    assert_eq!((order(&model), model.cursor()), (vec![0, 1, 2], Some(1)));
    press(&mut model, &[KeyCode::Char('s'), KeyCode::Char('s')]);
    assert_eq!((order(&model), model.cursor()), (vec![1, 2, 0], Some(0)));
    assert!(picture(&mut model, 130, 30).contains("REQ/S▼"));
    press(&mut model, &[KeyCode::Char('r')]);
    assert_eq!((order(&model), model.cursor()), (vec![0, 2, 1], Some(2)));
}

#[test]
fn a_filter_is_typed_and_taken_back() {
    let mut model = model();
    let typed = "/FAILq".chars().map(KeyCode::Char);
    let typed: Vec<_> = typed.chain([KeyCode::Backspace, KeyCode::Enter]).collect();
    assert_eq!(press(&mut model, &typed), Onward::Stay);
    assert_eq!(model.slots().len(), 1);
    assert!(picture(&mut model, 130, 30).contains("slots with \"FAIL\""));
    press(&mut model, &[KeyCode::Esc]);
    assert_eq!(model.slots().len(), 3);
    press(&mut model, &[KeyCode::Char('/'), KeyCode::Char('#')]);
    assert_eq!(
        press(&mut model, &[KeyCode::Enter, KeyCode::Enter]),
        Onward::Stay
    );
    assert_eq!(model.cursor(), None, "nothing matches");
}

#[test]
fn a_log_is_followed_until_it_is_left() {
    let mut model = model();
    let asked = press(&mut model, &[KeyCode::Down, KeyCode::Char('l')]);
    assert_eq!((asked, model.followed()), (Onward::Log, Some(("acts", 1))));
    model.log("first\nsecond\u{1b}[31m\n".to_owned());
    let text = picture(&mut model, 130, 30);
    assert!(
        text.contains("log of acts/1") && text.contains("second [31m"),
        "{text}"
    );
    assert!(!text.contains("exited"));
    assert_eq!(press(&mut model, &[KeyCode::Char('q')]), Onward::Stay);
    assert_eq!(press(&mut model, &[KeyCode::Char('q')]), Onward::Quit);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(model.key(control_c), Onward::Quit);
}

#[test]
fn a_controller_that_went_is_missed_and_begins_anew() {
    let mut model = model();
    model.lost();
    assert!(picture(&mut model, 130, 30).contains("no answer"));
    model.found();
    let events = model.events.len();
    let picture_again = Live {
        events: model.events.iter().cloned().collect(),
        ..Live::default()
    };
    model.take(picture_again);
    assert_eq!(model.events.len(), events, "none is there twice");
    assert!(picture(&mut model, 130, 30).contains("live"));
}
