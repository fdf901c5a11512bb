//! The texts say what the code does: the README's example, its verbs, ARCHITECTURE's maps.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers, too")]

use std::{fs, path::Path};

use clap::CommandFactory;
use orch::{
    cli::Cli,
    config::{EXAMPLE, parse},
};
use orch_common::layout;

fn text(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::read_to_string(root.join(name)).unwrap()
}

/// The fenced block of this language.
fn block<'a>(text: &'a str, language: &str) -> &'a str {
    let fence = format!("\n```{language}\n");
    let (_, rest) = text.split_once(&fence).expect(language);
    let (block, rest) = rest.split_once("\n```\n").unwrap();
    assert!(!rest.contains(&fence), "one block of {language}");
    block
}

#[test]
fn the_readme_has_the_example_file_of_the_code() {
    let readme = text("README.md");
    let block = block(&readme, "toml");
    assert_eq!(block, EXAMPLE.trim_end(), "copy `orch check --example`");
}

#[test]
fn the_readme_s_example_says_what_holds_without_it() {
    let readme = text("README.md");
    let written = parse("README.md", block(&readme, "toml")).unwrap();
    let least = "[[service]]\nbackend.image = \"acts:demo\"\n";
    assert_eq!(written, parse("least", least).unwrap());
}

#[test]
fn the_readme_has_every_verb() {
    let readme = text("README.md");
    let cli = Cli::command();
    for verb in cli.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let row = format!("\n| `orch {}", verb.get_name());
        assert!(readme.contains(&row), "{row}");
    }
}

#[test]
fn the_architecture_has_every_map() {
    let architecture = text("ARCHITECTURE.md");
    for name in layout::map::ALL {
        let (cell, mut rows) = (format!("`{name}`"), architecture.lines());
        let has = |row: &str| row.split('|').nth(1).is_some_and(|one| one.contains(&cell));
        assert!(rows.any(has), "{name}");
    }
    assert!(architecture.lines().count() < 200);
}

#[test]
fn the_readme_names_the_pins_of_this_layout() {
    let readme = text("README.md");
    let mut named = readme.split("/sys/fs/bpf/orch/v").skip(1);
    let version = named.next().expect("a path of pins");
    for text in std::iter::once(version).chain(named) {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        assert_eq!(digits, layout::LAYOUT_VERSION.to_string());
    }
}
