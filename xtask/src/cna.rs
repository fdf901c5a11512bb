//! `cargo xtask run cna`: the example `cna` under a known load, from its start to its score.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{build, docker, error::Error, paths, shell};

/// For the first copy, image and all.
const START_LIMIT: Duration = Duration::from_mins(1);

/// Builds what only this needs.
pub(crate) fn build() -> Result<(), Error> {
    build::example("cna")
}

/// Starts the controller, sends the deterministic pattern, shows the score, ends the controller.
/// Needs root, and that everything is built.
pub(crate) fn run(pass_on: &[String]) -> Result<(), Error> {
    let file: PathBuf = if docker::answers() {
        build::image("cna")?;
        "examples/cna/orch.toml".into()
    } else {
        eprintln!("  runtime   no Docker engine answers: the copies run as plain processes");
        "examples/cna/orch-process.toml".into()
    };
    let log = paths::example("cna").with_file_name("orch.log");
    eprintln!(
        "  starting  orch run -f {}, which logs to {}",
        file.display(),
        paths::short(&log)
    );
    let mut controller = Controller::start(&file, &log, pass_on)?;
    let scored = controller.wait_ready(&file).and_then(|()| load(&file));
    let ended = controller.end();
    scored.and(ended)?;
    eprintln!(
        "  ended     every copy is stopped; had this been cut short: orch down -f {}",
        file.display()
    );
    Ok(())
}

fn orch(words: &[&str], file: &Path) -> Command {
    let mut orch = shell::command(paths::orch());
    orch.args(words).arg("-f").arg(file);
    orch
}

fn load(file: &Path) -> Result<(), Error> {
    let place = paths::example("cna");
    let (json, chart) = (
        place.with_file_name("score.json"),
        place.with_file_name("score.svg"),
    );
    eprintln!("  load      1.25, 10, 2, 10, 5 and 20 requests a second, 5 s each\n");
    // What is not answered when the pattern is over is lost: nobody waits for it.
    let words = [
        "load",
        "http://localhost/doWork",
        "--pattern=deterministic",
        "--wait=0s",
        "--timeout=60s",
        "--service=cna",
    ];
    let mut load = orch(&words, file);
    load.arg("--json").arg(&json).arg("--chart").arg(&chart);
    shell::run(&mut load)?;
    eprintln!(
        "\n  score     {} and {}",
        paths::short(&json),
        paths::short(&chart)
    );
    Ok(())
}

/// `orch run`, ended when this is dropped.
struct Controller {
    child: Option<Child>,
    log: PathBuf,
}

impl Controller {
    fn start(file: &Path, log: &Path, pass_on: &[String]) -> Result<Self, Error> {
        let at = |source| Error::File {
            path: log.to_owned(),
            source,
        };
        let output = File::create(log).map_err(at)?;
        let errors = output.try_clone().map_err(at)?;
        let mut run = orch(&["run"], file);
        run.args(pass_on).stdout(output).stderr(errors);
        let child = run.spawn().map_err(|source| Error::Start {
            program: "`orch run`".to_owned(),
            source,
        })?;
        Ok(Self {
            child: Some(child),
            log: log.to_owned(),
        })
    }

    fn wait_ready(&mut self, file: &Path) -> Result<(), Error> {
        let end = Instant::now() + START_LIMIT;
        loop {
            let rows = shell::output(&mut orch(&["ps"], file)).unwrap_or_default();
            if rows.contains(" ready ") {
                return Ok(());
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok());
            if ended.flatten().is_some() || Instant::now() > end {
                return Err(Error::NotReady {
                    said: fs::read_to_string(&self.log).unwrap_or_default(),
                });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it as Ctrl-C does, and waits.
    fn end(&mut self) -> Result<(), Error> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        // One that has ended already has its status to tell.
        let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT);
        let status = child.wait().map_err(|source| Error::Start {
            program: "`orch run`".to_owned(),
            source,
        })?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Failed {
            program: "`orch run`".to_owned(),
            status,
            said: format!("\n{}", fs::read_to_string(&self.log).unwrap_or_default()),
        })
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // It was ended before, or there is an error that matters more.
        let _ = self.end();
    }
}
