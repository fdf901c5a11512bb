//! The command line as users type it.

use std::path::PathBuf;

use clap::{CommandFactory, Parser};

use super::*;

#[test]
fn clap_accepts_the_definition() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_has_an_example() {
    let cli = Cli::command();
    // What is hidden is not for people.
    for verb in cli.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let help = verb.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        let call = format!("orch {}", verb.get_name());
        assert!(help.contains("Example") && help.contains(&call), "{call}");
    }
}

#[test]
fn the_file_stands_before_or_behind_the_verb() {
    let file = Some(PathBuf::from("a.toml"));
    for words in [
        ["orch", "-f", "a.toml", "ps"],
        ["orch", "ps", "-f", "a.toml"],
    ] {
        let cli = Cli::try_parse_from(words).unwrap();
        let Verb::Ps(args) = cli.verb else {
            panic!("not ps");
        };
        assert_eq!(args.target().or(cli.target).file, file);
    }
    Cli::try_parse_from(["orch", "-f", "a.toml", "events", "-f", "-o", "json"]).unwrap();
}

#[test]
fn run_takes_one_of_three() {
    for words in [
        vec!["orch", "run"],
        vec!["orch", "run", "-f", "a.toml"],
        vec!["orch", "run", "--image", "nginx"],
        vec!["orch", "run", "--", "server", "--port", "{port}"],
    ] {
        Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    }
    for words in [
        vec!["orch"],
        vec!["orch", "run", "--image", "nginx", "-f", "a.toml"],
        vec!["orch", "run", "--image", "nginx", "--", "server"],
        vec!["orch", "scale", "acts"],
        vec!["orch", "fly"],
    ] {
        let error = Cli::try_parse_from(&words).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{words:?}");
    }
}
