//! `orch down`: removes everything of ours, with or without a controller.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{self, Signal::SIGTERM},
    unistd::{Pid, geteuid},
};
use tokio::time::sleep;

use super::session::{has_containers, instance};
use super::{CliError, Holder, Lock, LockError, Target, print};
use crate::config::{Config, DEFAULT_PIN_DIR, DEFAULT_STATE_DIR, DataplaneConfig};
use crate::{
    dataplane::Dataplane,
    http, kept,
    runtime::{
        self, Backend, Runtime, RuntimeError, docker::DockerRuntime, process::ProcessRuntime,
    },
};

/// How long a controller may take to end.
const END_LIMIT: Duration = Duration::from_secs(15);
/// Between two looks at the lock.
const LOOK: Duration = Duration::from_millis(50);

/// The last word.
const NOTHING: &str = "nothing of orch is left\n";

/// Removes every backend, link and map of orch, also after a crash
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    orch down\n  \
    orch down -f orch.toml     where the controller ran with that file\n\n\
    A controller that runs is ended first. Nothing is drained: open connections break.\n\
    Volumes stay, since they hold your data.")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(args: Args, before: Target) -> Result<(), CliError> {
    if !geteuid().is_root() {
        return Err(CliError::NotRoot { verb: "down" });
    }
    let target = args.target.or(before);
    let control = target.control()?;
    let place = Place::find(target.config()?.as_ref(), &Holder::read(&control), &control);
    let lock = if control.parent().is_some_and(Path::is_dir) {
        Some(lock(&control).await?)
    } else {
        None
    };
    let looked = remove(&place, &control).await?;
    remove_file(&control)?;
    // Where containers may be left, the lock's file stays: the next `orch down` finds them by it.
    let all = looked.map_or_else(|error| place.unseen(error), |()| Ok(NOTHING))?;
    if let Some(lock) = lock {
        lock.remove()?;
    }
    print::text(all)
}

/// Where a controller had its things.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    state_dir: std::path::PathBuf,
    dataplane: DataplaneConfig,
    containers: Containers,
}

/// Whether there can be containers that only an engine can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Containers {
    Possible,
    None,
    /// Nothing says where a controller had its things, or that there was one.
    Unknown,
}

impl Containers {
    fn of(config: Option<&Config>, holder: &Holder, marked: bool) -> Self {
        if marked || config.is_some_and(has_containers) {
            Self::Possible
        } else if config.is_some() || holder.state_dir.is_some() {
            Self::None
        } else {
            Self::Unknown
        }
    }
}

impl Place {
    /// What the last controller wrote down counts before the file, which may have changed since.
    fn find(config: Option<&Config>, holder: &Holder, control: &Path) -> Self {
        let mut dataplane =
            config.map_or_else(default_dataplane, |config| config.dataplane.clone());
        if let Some(pin_dir) = &holder.pin_dir {
            dataplane.pin_dir.clone_from(pin_dir);
        }
        let in_file = config.map(|config| config.state_dir.clone());
        let state_dir = holder.state_dir.clone().or(in_file);
        let state_dir = state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into());
        let marked = runtime::may_have_containers(&state_dir, &instance(control));
        Self {
            containers: Containers::of(config, holder, marked),
            state_dir,
            dataplane,
        }
    }

    /// What can be said of the rest where no engine shows its containers.
    fn unseen(&self, error: RuntimeError) -> Result<&'static str, CliError> {
        match self.containers {
            Containers::Possible => Err(CliError::ContainersLeft(error)),
            Containers::None => Ok(NOTHING),
            Containers::Unknown => {
                print::text(&format!("containers were not looked for: {error}\n"))?;
                Ok("nothing else of orch is left\n")
            }
        }
    }
}

fn default_dataplane() -> DataplaneConfig {
    DataplaneConfig {
        interfaces: crate::config::Interfaces::Auto,
        local: crate::config::Local::Auto,
        delivery: crate::config::Delivery::Auto,
        relay: true,
        flows: orch_common::layout::DEFAULT_FLOWS as u32,
        pin_dir: DEFAULT_PIN_DIR.into(),
    }
}

/// Ends the controller if one runs, and keeps others from starting.
async fn lock(control: &Path) -> Result<Lock, CliError> {
    let mut told = None;
    let begin = Instant::now();
    loop {
        let holder = match Lock::take(control) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held { holder }) => holder,
            Err(error) => return Err(error.into()),
        };
        let Some(pid) = holder.pid else {
            // It holds the lock and has not signed yet.
            if begin.elapsed() > END_LIMIT {
                return Err(LockError::Held { holder }.into());
            }
            sleep(LOOK).await;
            continue;
        };
        if begin.elapsed() > END_LIMIT {
            let seconds = END_LIMIT.as_secs();
            return Err(CliError::StillRuns { pid, seconds });
        }
        if told != Some(pid) {
            print::text(&format!("ending the controller (pid {pid})\n"))?;
            tell(pid)?;
            told = Some(pid);
        }
        sleep(LOOK).await;
    }
}

/// SIGTERM rather than SIGINT: the controller goes at once, and what it leaves is removed here.
fn tell(pid: i32) -> Result<(), CliError> {
    match signal::kill(Pid::from_raw(pid), SIGTERM) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(CliError::Signals(errno.into())),
    }
}

/// Backends of every runtime, then the data plane. Gives what kept it from looking for containers.
async fn remove(place: &Place, control: &Path) -> Result<Result<(), RuntimeError>, CliError> {
    let instance = instance(control);
    stop_all(&ProcessRuntime::new(&place.state_dir, &instance)).await?;
    let looked = match DockerRuntime::connect(&instance, &place.state_dir).await {
        Ok(docker) => stop_all(&docker).await.map(Ok)?,
        Err(error) => Err(error),
    };
    if http::end(control) {
        print::text("the gateway has ended\n")?;
    }
    kept::clear(&place.state_dir, &instance);
    if looked.is_ok() || place.containers == Containers::None {
        runtime::clear(&place.state_dir, &instance);
    }
    Dataplane::remove(&place.dataplane.pin_dir)?;
    print::text("the data plane is detached\n")?;
    Ok(looked)
}

async fn stop_all(runtime: &impl Runtime) -> Result<(), CliError> {
    for backend in runtime.list().await? {
        runtime.stop(&backend.id, Duration::ZERO).await?;
        let Backend {
            service, slot, id, ..
        } = backend;
        let slot = slot.map_or_else(|| "spare".to_owned(), |slot| slot.to_string());
        let kind = runtime.kind().name();
        print::text(&format!("{service}/{slot}: {kind} {id} is removed\n"))?;
    }
    Ok(())
}

fn remove_file(path: &Path) -> Result<(), CliError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CliError::Remove {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    #[test]
    fn containers_may_be_left_where_any_could_have_been_made() {
        let load = |source: Source| source.load().unwrap();
        let image = load(Source::Image("a".to_owned()));
        let program = load(Source::Program(vec!["a".to_owned()]));
        let nobody = Holder::default();
        let known = Holder {
            state_dir: Some("/var/lib/orch".into()),
            ..Holder::default()
        };
        for (config, holder, marked, expected) in [
            (Some(&image), &nobody, false, Containers::Possible),
            (Some(&program), &known, true, Containers::Possible),
            (None, &known, true, Containers::Possible),
            (None, &known, false, Containers::None),
            (Some(&program), &nobody, false, Containers::None),
            (None, &nobody, false, Containers::Unknown),
        ] {
            assert_eq!(Containers::of(config, holder, marked), expected);
        }
    }

    #[test]
    fn it_is_not_said_that_nothing_is_left_where_containers_may_be() {
        let said = |containers| {
            let place = Place {
                state_dir: "/nowhere".into(),
                dataplane: default_dataplane(),
                containers,
            };
            place.unseen(RuntimeError::NoGate)
        };
        let error = said(Containers::Possible).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert_eq!(said(Containers::None).unwrap(), NOTHING);
        assert_ne!(said(Containers::Unknown).unwrap(), NOTHING);
    }
}
