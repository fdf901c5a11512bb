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

use super::session::instance;
use super::{CliError, Holder, Lock, LockError, Target, print};
use crate::config::{Config, DEFAULT_PIN_DIR, DEFAULT_STATE_DIR, DataplaneConfig};
use crate::{
    dataplane::Dataplane,
    http,
    runtime::{self, Backend, Runtime, docker::DockerRuntime, process::ProcessRuntime},
};

/// How long a controller may take to end.
const END_LIMIT: Duration = Duration::from_secs(15);
/// Between two looks at the lock.
const LOOK: Duration = Duration::from_millis(50);

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
    let place = Place::find(target.config()?.as_ref(), &Holder::read(&control));
    let lock = if control.parent().is_some_and(Path::is_dir) {
        Some(lock(&control).await?)
    } else {
        None
    };
    for line in remove(&place, &control).await? {
        print::text(&format!("{line}\n"))?;
    }
    remove_file(&control)?;
    if let Some(lock) = lock {
        lock.remove()?;
    }
    print::text("nothing of orch is left\n")
}

/// Where a controller had its things.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    state_dir: std::path::PathBuf,
    dataplane: DataplaneConfig,
}

impl Place {
    /// What the last controller wrote down counts before the file, which may have changed since.
    fn find(config: Option<&Config>, holder: &Holder) -> Self {
        let mut dataplane =
            config.map_or_else(default_dataplane, |config| config.dataplane.clone());
        if let Some(pin_dir) = &holder.pin_dir {
            dataplane.pin_dir.clone_from(pin_dir);
        }
        let in_file = config.map(|config| config.state_dir.clone());
        let state_dir = holder.state_dir.clone().or(in_file);
        Self {
            state_dir: state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
            dataplane,
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

/// Backends of every runtime, then the data plane. A sentence per thing that was removed.
async fn remove(place: &Place, control: &Path) -> Result<Vec<String>, CliError> {
    let instance = instance(control);
    let mut removed = Vec::new();
    let processes = ProcessRuntime::new(&place.state_dir, &instance);
    stop_all(&processes, &mut removed).await?;
    match DockerRuntime::connect(&instance, &place.state_dir).await {
        Ok(docker) => stop_all(&docker, &mut removed).await?,
        // Most often there never was one; else its containers are out of reach, too.
        Err(error) => removed.push(format!("containers were not looked for: {error}")),
    }
    if http::end(control) {
        removed.push("the gateway has ended".to_owned());
    }
    runtime::clear(&place.state_dir);
    Dataplane::remove(&place.dataplane.pin_dir)?;
    removed.push("the data plane is detached".to_owned());
    Ok(removed)
}

async fn stop_all(runtime: &impl Runtime, removed: &mut Vec<String>) -> Result<(), CliError> {
    for backend in runtime.list().await? {
        runtime.stop(&backend.id, Duration::ZERO).await?;
        let Backend {
            service, slot, id, ..
        } = backend;
        let slot = slot.map_or_else(|| "spare".to_owned(), |slot| slot.to_string());
        removed.push(format!(
            "{service}/{slot}: {} {id} is removed",
            runtime.kind().name()
        ));
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
