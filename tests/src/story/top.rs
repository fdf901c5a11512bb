//! `orch top` in a terminal.

use std::fs;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    client,
    orch::{Kind::Process, Orch, Settings, binary},
    terminal::Terminal,
};

/// A crash shows, keys do what they say, and the terminal is as it was.
pub fn a_crash_is_seen() {
    let orch = Orch::start(Settings::new(Process).copies(2));
    let line = format!("{} top", binary().display());
    let mut top = Terminal::open(&orch.command(&[]), &line);
    top.until("both slots are ready", |text| {
        text.matches("● ready").count() == 2
    });
    assert!(top.is_taken());

    let address = orch.slot_address(1);
    client::once(address, "POST", "/api/v1/_crash", "").unwrap();
    top.until("the crash is listed", |text| text.contains("is replaced: "));
    top.until("it is back", |text| text.matches("● ready").count() == 2);

    top.press("/slot-that-is-not");
    top.until("no slot fits", |text| !text.contains("● ready"));
    top.press("\u{1b}");
    top.until("all are shown", |text| text.matches("● ready").count() == 2);
    top.press("s");
    top.until("it is sorted", |text| text.contains('▼'));
    top.press("l");
    top.until("the log is followed", |text| text.contains("log of acts/"));
    top.press("q");
    top.until("slots are shown", |text| text.contains("SLOT"));
    top.press("q");
    assert!(top.end().success(), "{}", top.text());
    assert!(!top.is_taken());
}

/// Whoever ends it by a signal gets the terminal back, too.
pub fn a_signal_gives_the_terminal_back() {
    let orch = Orch::start(Settings::new(Process).copies(1));
    let file = orch.file().with_extension("pid");
    let line = format!(
        "echo $$ > {}; exec {} top",
        file.display(),
        binary().display()
    );
    let mut top = Terminal::open(&orch.command(&[]), &line);
    top.until("the slot is ready", |text| text.contains("● ready"));
    let pid = fs::read_to_string(file).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    assert!(top.end().success(), "{}", top.text());
    assert!(!top.is_taken());
}
