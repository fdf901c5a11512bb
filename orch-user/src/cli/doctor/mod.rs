//! `orch doctor`: can orch work here?

mod delivery;
mod docker;
mod firewall;
mod hold;
mod kernel;
mod mounts;
mod network;
mod ports;
mod relay;

use std::path::PathBuf;

use super::{CliError, Target, print, print::Colour};
use crate::config::{Config, Source};

/// Checks kernel, cgroup2, Docker, firewall and ports, and says what each means
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sudo orch doctor\n  \
    sudo orch doctor -f orch.toml     checks for that file's services, too\n\n\
    Exit code 1 if something must be mended first. It changes nothing.")]
pub(super) struct Args {
    /// Configuration file [default: orch.toml, where there is one]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    level: Level,
    /// What was looked at.
    what: &'static str,
    /// What it is, and what that means.
    meaning: String,
    /// What to do; empty if nothing.
    cure: String,
}

impl Finding {
    fn ok(what: &'static str, meaning: impl Into<String>) -> Self {
        Self::new(Level::Ok, what, meaning, "")
    }

    fn warn(what: &'static str, meaning: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::new(Level::Warn, what, meaning, cure)
    }

    fn fail(what: &'static str, meaning: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::new(Level::Fail, what, meaning, cure)
    }

    fn new(
        level: Level,
        what: &'static str,
        meaning: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self {
            level,
            what,
            meaning: meaning.into(),
            cure: cure.into(),
        }
    }

    fn show(&self) -> String {
        let (word, colour) = match self.level {
            Level::Ok => ("ok  ", Colour::Green),
            Level::Warn => ("warn", Colour::Yellow),
            Level::Fail => ("fail", Colour::Red),
        };
        let word = print::paint(colour, word);
        let mut text = format!("{word}  {:<11}  {}\n", self.what, self.meaning);
        if !self.cure.is_empty() {
            text.extend([&" ".repeat(19), "do: ", &self.cure, "\n"]);
        }
        text
    }
}

pub(super) async fn run(args: Args, before: Target) -> Result<(), CliError> {
    let target = Target {
        file: args.file,
        ..Target::default()
    };
    let target = target.or(before);
    let config = match target.config_or_here()? {
        Some(config) => config,
        None => Config {
            control: target.control()?,
            ..Source::Image("acts:demo".to_owned()).load()?
        },
    };
    let findings = examine(&config).await;
    let text: String = findings.iter().map(Finding::show).collect();
    print::text(&text)?;
    let failed = findings.iter().filter(|one| one.level == Level::Fail);
    match failed.count() {
        0 => Ok(()),
        count => Err(CliError::Unwell { count }),
    }
}

async fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = kernel::examine();
    findings.extend(mounts::examine(config));
    findings.extend(docker::examine(config));
    findings.extend(delivery::examine(config).await);
    findings.extend(network::examine(config));
    findings.extend(firewall::examine(config));
    findings.extend(ports::examine(config).await);
    findings.extend(hold::examine(config));
    findings.extend(relay::examine(config));
    findings
}
