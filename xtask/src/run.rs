//! `cargo xtask run`: from a fresh checkout to a running service.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{build, cna, docker, error::Error, host, paths, shell};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// `acts` for the demo service, `cna` for an example that a known load is sent to, which ends with
    /// its score, or an orch.toml.
    #[arg(default_value = "acts")]
    what: PathBuf,
    /// Arguments for `orch run`.
    #[arg(last = true)]
    pass_on: Vec<String>,
    /// Everything is built: set where this runs itself again through sudo.
    #[arg(long, hide = true)]
    built: bool,
}

/// Builds what is needed, becomes root where it is not, and becomes `orch run`.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let demo = args.what == Path::new("acts");
    let cna = args.what == Path::new("cna");
    if !demo && !cna && !args.what.is_file() {
        return Err(Error::NoFile(args.what.clone()));
    }
    if !args.built {
        build::orch()?;
        if demo {
            build::acts()?;
        }
        if cna {
            cna::build()?;
        }
    }
    if !host::is_root() {
        return through_sudo(args);
    }
    if cna {
        return cna::run(&args.pass_on);
    }
    let file = if demo {
        prepare_demo()?
    } else {
        args.what.clone()
    };
    announce(&file, demo);
    let mut orch = Command::new(paths::orch());
    if demo {
        orch.current_dir(paths::root());
    }
    become_program(orch.arg("run").arg("-f").arg(file).args(&args.pass_on))
}

/// Builds are made as the user, so that no file of the checkout becomes root's; the rest is not.
fn through_sudo(args: &Args) -> Result<(), Error> {
    if shell::find("sudo").is_none() {
        return Err(Error::NoSudo);
    }
    let itself = env::current_exe().map_err(|source| Error::File {
        path: "/proc/self/exe".into(),
        source,
    })?;
    eprintln!("  root      orch loads programs into the kernel: going on through sudo");
    let target = env::var_os("CARGO_TARGET_DIR");
    become_program(&mut sudo(args, &itself, target.as_deref()))
}

/// The command that runs this again as root.
fn sudo(args: &Args, itself: &Path, target: Option<&OsStr>) -> Command {
    let mut sudo = Command::new("sudo");
    // sudo drops what decides where the builds are.
    if let Some(target) = target {
        let mut variable = OsString::from("CARGO_TARGET_DIR=");
        variable.push(target);
        sudo.arg(variable);
    }
    sudo.arg("--").arg(itself).args(["run", "--built"]);
    sudo.arg(&args.what).arg("--").args(&args.pass_on);
    sudo
}

/// The demo's file: with containers where an engine answers, else with processes.
fn prepare_demo() -> Result<PathBuf, Error> {
    if docker::answers() {
        build::acts_image()?;
        return Ok("examples/acts/orch.toml".into());
    }
    eprintln!("  runtime   no Docker engine answers: the copies run as plain processes");
    Ok("examples/acts/orch-process.toml".into())
}

fn announce(file: &Path, demo: bool) {
    eprintln!("  starting  orch run -f {}", file.display());
    if demo {
        let orch = paths::short(&paths::orch());
        eprintln!(
            "
  try       curl localhost/api/v1/whoami               which copy answers
            curl localhost/api/v1/categories           what is stored, the same from every copy
            curl -X POST localhost:8000/api/v1/_crash  slot 0 fails, and gets another copy
  as root   {orch} scale acts=3
            {orch} ps
  status    http://localhost/, or http://127.0.0.1:9180/
  stop      Ctrl-C here: drains, stops every copy, detaches; the volume acts-data stays
"
        );
    }
}

/// Replaces this process: signals reach the program itself, and its exit code is ours.
fn become_program(command: &mut Command) -> Result<(), Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let source: io::Error = command.exec();
    Err(Error::Start { program, source })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Args {
        let line = ["run"].into_iter().chain(words);
        Line::try_parse_from(line)
            .expect("the line is understood")
            .args
    }

    #[test]
    fn sudo_runs_the_same_again_and_builds_nothing() {
        let args = parse(["my.toml", "--", "--quiet", "-v"]);
        let target = Some(OsStr::new("/elsewhere"));
        let command = sudo(&args, Path::new("/x/xtask"), target);
        let words: Vec<_> = command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        assert_eq!(command.get_program(), "sudo");
        assert_eq!(
            words[..3],
            ["CARGO_TARGET_DIR=/elsewhere", "--", "/x/xtask"]
        );
        // What root's process understands is what was asked for.
        let again = parse(words[4..].iter().map(String::as_str));
        assert_eq!(words[3], "run");
        assert_eq!((&again.what, &again.pass_on), (&args.what, &args.pass_on));
        assert!(again.built);
    }
}
