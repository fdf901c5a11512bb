//! Running programs.

use std::{
    env,
    ffi::OsStr,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use crate::{error::Error, paths};

/// A program that runs in the root of the repository.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(paths::root());
    command
}

/// Cargo, of the toolchain that this was started with.
pub(crate) fn cargo(verb: &str) -> Command {
    let mut cargo = command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg(verb);
    cargo
}

/// The same behind whatever else wants a processor.
pub(crate) fn yielding(program: &Command) -> Command {
    let mut command = command("nice");
    command.args(["-n", "10"]).arg(program.get_program());
    command.args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Runs it, shows what it prints, and fails when it fails.
pub(crate) fn run(command: &mut Command) -> Result<(), Error> {
    let status = command.status().map_err(|source| Error::Start {
        program: name(command),
        source,
    })?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed {
        program: name(command),
        status,
        said: String::new(),
    })
}

/// Runs it and returns what it prints; what it prints to stderr is part of the error.
pub(crate) fn output(command: &mut Command) -> Result<String, Error> {
    let program = name(command);
    let ran = command.stdin(Stdio::null()).output();
    let Output {
        status,
        stdout,
        stderr,
    } = ran.map_err(|source| Error::Start {
        program: program.clone(),
        source,
    })?;
    if !status.success() {
        let said = format!("\n{}", String::from_utf8_lossy(&stderr).trim_end());
        return Err(Error::Failed {
            program,
            status,
            said,
        });
    }
    String::from_utf8(stdout)
        .map(|text| text.trim_end().to_owned())
        .map_err(|_| Error::NotText(program))
}

/// Whether it runs and succeeds, without showing anything.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    output(command).is_ok()
}

/// Where the program is, if it is installed. System directories count even where a user's `PATH`
/// leaves them out.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .chain(paths::cargo_home().map(|home| home.join("bin")))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

fn name(command: &Command) -> String {
    let parts = [command.get_program()]
        .into_iter()
        .chain(command.get_args().take(2));
    let parts: Vec<_> = parts.map(OsStr::to_string_lossy).collect();
    format!("`{}`", parts.join(" "))
}
