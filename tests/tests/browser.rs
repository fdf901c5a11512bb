//! The status page in a real browser, over the whole program with processes as copies.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{env, fs, net::TcpListener, path::PathBuf, time::Duration};

use orch_tests::{
    browser::Browser,
    client,
    load::{Load, Style},
    orch::{Kind::Process, Orch, Settings},
    wait::until,
};
use serde_json::Value;

/// A window as a person has it, and one of a telephone.
const WIDE: (u32, u32) = (1240, 1180);
const NARROW: (u32, u32) = (390, 844);
/// Rules of axe that are conformance, and those that are good practice.
const RULES: &str = "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']";

/// A controller with three copies and a status address of its own.
fn orch() -> Orch {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut settings = Settings::new(Process).copies(3);
    settings.status = listener.local_addr().unwrap().to_string();
    drop(listener);
    "interval = \"40s\"".clone_into(&mut settings.scale);
    Orch::start(settings)
}

fn page(orch: &Orch) -> String {
    format!("http://{}/", orch.settings.status)
}

/// Waits until an expression is true in the page.
fn wait(browser: &Browser, what: &str, expression: &str) {
    until(what, || holds(browser, expression).then_some(()));
}

/// Whether it is so by now. What an expression looks at may not be there yet.
fn holds(browser: &Browser, expression: &str) -> bool {
    let script = format!("try {{ return Boolean({expression}) }} catch {{ return false }}");
    browser.run(&script) == true
}

fn states(browser: &Browser) -> Vec<String> {
    let script = "return [...document.querySelectorAll('.tile')].map((tile) => tile.dataset.state)";
    serde_json::from_value(browser.run(script)).unwrap()
}

/// Nothing on the console, and nothing asked of anybody else.
fn assert_quiet(browser: &Browser, orch: &Orch) {
    let console = browser.console();
    assert!(console.is_empty(), "{console:#?}");
    let requests = browser.requests();
    let own = page(orch);
    let ours = |url: &String| {
        ["data:", "chrome:"].iter().any(|own| url.starts_with(own)) || url.starts_with(&own)
    };
    assert!(requests.iter().any(|url| url.ends_with("/page/app.js")));
    assert!(requests.iter().all(ours), "{requests:#?}");
}

fn assert_accessible(browser: &Browser, what: &str) {
    let axe =
        env::var_os("AXE_SCRIPT").expect("`cargo xtask test browser` gets axe-core and names it");
    let script = fs::read_to_string(axe).unwrap();
    browser.run(&script);
    let found = browser.run_later(&format!(
        "const done = arguments[arguments.length - 1];
         axe.run(document, {{ runOnly: {RULES} }}).then((result) => done({{
             checked: result.passes.length,
             violations: result.violations.map((one) =>
                 one.id + ': ' + one.nodes.map((node) => node.html + ' ' + node.failureSummary).join(' | ')),
         }}), (error) => done({{ checked: 0, violations: [String(error)] }}))"
    ));
    assert!(found["checked"].as_u64().unwrap() > 15, "{found:#}");
    assert_eq!(found["violations"], Value::Array(Vec::new()), "{what}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a story is told in one go")]
fn three_slots_and_a_crash_that_is_seen() {
    let orch = orch();
    let browser = Browser::open();
    browser.look(WIDE.0, WIDE.1, "light");
    let load = Load::new().client(
        None,
        orch.address(),
        "/api/v1/acts/count",
        Style::OneShot,
        Duration::from_millis(20),
    );
    browser.go(&page(&orch));
    wait(
        &browser,
        "three tiles are ready",
        "document.querySelectorAll('.tile[data-state=ready]').length === 3",
    );
    assert_eq!(states(&browser), ["ready"; 3]);
    let ports = browser
        .run("return [...document.querySelectorAll('.tile .port')].map((one) => one.textContent)");
    for (slot, port) in ports.as_array().unwrap().iter().enumerate() {
        assert_eq!(port, &format!(":{}", orch.start_port + slot as u16));
    }
    wait(
        &browser,
        "the chart has points",
        "(document.querySelector('.plot path.requests[d*=L]') || {}).getTotalLength?.() > 20",
    );
    wait(
        &browser,
        "the rate is shown",
        "parseFloat(document.querySelector('.legend b').textContent) > 1",
    );
    wait(
        &browser,
        "polls are shown",
        "document.querySelector('.dots .good').getAttribute('d').length > 20",
    );
    wait(
        &browser,
        "the next decision is said",
        "/^in 0:\\d\\d, \\d+ of 100000000 counted, would go to|stay at/.test(document.querySelector('.outlook span').textContent)",
    );

    // Every state that slot 1 goes through, as the page shows them.
    browser.run(
        "const tile = document.querySelectorAll('.tile')[1];
         window.seen = [];
         new MutationObserver(() => window.seen.push(tile.dataset.state))
             .observe(tile, { attributes: true, attributeFilter: ['data-state'] })",
    );
    let old = orch.slot(1).unwrap().backend;
    client::once(orch.slot_address(1), "POST", "/api/v1/_crash", "").unwrap();
    wait(&browser, "the crash is seen", "window.seen.length > 0");
    wait(
        &browser,
        "it comes back",
        "document.querySelectorAll('.tile')[1].dataset.state === 'ready' && window.seen.length > 1",
    );
    let seen = browser.run("return window.seen");
    assert_ne!(seen[0], "ready", "{seen}");
    let shown = browser.run("return document.querySelectorAll('.tile')[1].dataset.backend");
    assert_ne!(shown, old.as_str());
    wait(
        &browser,
        "the event is listed",
        "/replaced/.test(document.querySelector('#events').textContent)",
    );
    wait(
        &browser,
        "it is said aloud",
        "/slot 1/.test(document.querySelector('#news').textContent)",
    );

    orch.scale(4);
    wait(
        &browser,
        "one tile more",
        "document.querySelectorAll('.tile').length === 4",
    );
    wait(
        &browser,
        "the decision is a mark",
        "/by hand/.test((document.querySelector('.mark') || {}).ariaLabel)",
    );
    browser.run("document.querySelector('.mark:last-child').focus()");
    wait(
        &browser,
        "its sentence is shown",
        "/set to 4 by hand/.test(document.querySelector('.tip:not([hidden])')?.textContent)",
    );
    load.finish();
    assert_quiet(&browser, &orch);
    for scheme in ["light", "dark"] {
        for (width, height) in [WIDE, NARROW] {
            browser.look(width, height, scheme);
            assert_accessible(&browser, &format!("{scheme}, {width}"));
            wait(
                &browser,
                "nothing is wider than the window",
                "document.documentElement.scrollWidth <= innerWidth",
            );
        }
    }
}

#[test]
fn a_controller_that_ends_is_missed_and_found_again() {
    let mut orch = orch();
    let browser = Browser::open();
    browser.go(&page(&orch));
    wait(
        &browser,
        "it is live",
        "document.querySelector('#link').dataset.link === 'live'",
    );
    orch.end(nix::sys::signal::Signal::SIGTERM);
    wait(
        &browser,
        "it says so",
        "/no connection since/.test(document.querySelector('#link').textContent)",
    );
    orch.launch();
    wait(
        &browser,
        "it is live again",
        "document.querySelector('#link').dataset.link === 'live'",
    );
    wait(
        &browser,
        "without a second copy of anything",
        "document.querySelectorAll('.tile').length === 3 && document.querySelectorAll('.service').length === 1",
    );
}

#[test]
fn without_scripts_it_is_a_table() {
    let orch = orch();
    let browser = Browser::open();
    browser.scripts(false);
    browser.go(&page(&orch));
    let text = browser.run("return document.querySelector('#plain').innerText");
    let text = text.as_str().unwrap();
    for word in ["Services", "Slots", "acts", "ready", "of 3", "Events"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let rows = browser
        .run("return document.querySelectorAll('#plain table:last-of-type tbody tr').length");
    assert!(rows.as_u64().unwrap() >= 3);
}

/// Text that others choose: a log with markup in it, which becomes a note and an event.
#[test]
fn a_hostile_log_is_text() {
    let mut settings = Settings::new(Process);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    settings.status = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut orch = Orch::prepare(settings);
    let shell = "command = [\"/bin/sh\", \"-c\", \"echo '<img src=x onerror=alert(1)>'; exit 3\", \"{port}\"]";
    let text = orch.text();
    let begin = text.find("command = ").unwrap();
    let end = begin + text[begin..].find('\n').unwrap();
    orch.write_file(&format!("{}{shell}{}", &text[..begin], &text[end..]));
    orch.launch();
    let browser = Browser::open();
    until("the page answers", || {
        client::once(orch.settings.status.parse().unwrap(), "GET", "/", "").ok()
    });
    browser.go(&page(&orch));
    wait(
        &browser,
        "the log is shown",
        "/<img src=x/.test(document.querySelector('.tile .note')?.textContent)",
    );
    assert_eq!(
        browser.run("return document.querySelectorAll('#services img').length"),
        0
    );
    assert_quiet(&browser, &orch);
}

/// For the README: `cargo xtask screenshot` says where to.
#[test]
fn pictures_of_the_page() {
    let directory = env::var_os("ORCH_SCREENSHOTS").map(PathBuf::from);
    let orch = orch();
    let browser = Browser::open();
    let asking = |pace: u64| {
        let load = Load::new();
        let pace = Duration::from_millis(pace);
        load.client(
            None,
            orch.address(),
            "/api/v1/acts/count",
            Style::OneShot,
            pace,
        )
    };
    let load = asking(25);
    browser.look(WIDE.0, WIDE.1, "light");
    browser.go(&page(&orch));
    // Enough to see: as long as it takes for the README, a moment otherwise.
    let seconds = if directory.is_some() { 70 } else { 3 };
    let enough = |part: u64| {
        let script = format!(
            "document.querySelector('.plot path.requests').getAttribute('d').split('L').length > {}",
            seconds * part / 3
        );
        let end = std::time::Instant::now() + Duration::from_mins(2);
        while !holds(&browser, &script) {
            assert!(std::time::Instant::now() < end, "the chart grows");
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    enough(1);
    orch.scale(5);
    let more = asking(12);
    enough(2);
    client::once(orch.slot_address(1), "POST", "/api/v1/_crash", "").unwrap();
    orch.scale(4);
    more.finish();
    enough(3);
    for (name, (width, height), scheme) in [
        ("status-light", WIDE, "light"),
        ("status-dark", WIDE, "dark"),
        ("status-narrow", NARROW, "light"),
    ] {
        browser.look(width, height, scheme);
        wait(
            &browser,
            "it is drawn",
            "document.querySelector('.plot svg').viewBox.baseVal.width <= innerWidth",
        );
        let picture = browser.picture();
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000);
        if let Some(directory) = &directory {
            fs::write(directory.join(format!("{name}.png")), picture).unwrap();
        }
    }
    load.finish();
}
