//! A controller from its seat to its end: runtimes, data plane, API and the loop, joined.

use std::{net::SocketAddr, path::Path, sync::Arc};

use tokio::{sync::mpsc, task::JoinHandle};

use super::{CliError, Seat, Signal};
use crate::{
    config::{Config, Source},
    dataplane::{self, Dataplane},
    delivery::Host,
    health::probe::HttpProber,
    http::{Keeper, Plane},
    kept,
    ports::Claims,
    reconcile::{self, Edges, RunError, Runtimes},
    runtime::{
        self, Runtime, RuntimeError, RuntimeKind, docker::DockerRuntime, process::ProcessRuntime,
    },
};

/// All that a controller starts from.
#[derive(Debug)]
pub struct Session {
    /// Where the configuration came from; `Signal::Reload` loads it again.
    pub source: Source,
    /// The configuration.
    pub config: Config,
    /// Lock, control socket and status address, held.
    pub seat: Seat,
    /// What signals ask for.
    pub signals: mpsc::Receiver<Signal>,
    /// The services' ports, held against other controllers.
    pub claims: Claims,
}

impl Session {
    /// Runs the controller until a signal ends it.
    pub async fn run(self) -> Result<(), CliError> {
        let config = self.config;
        let runtimes = self::runtimes(&config).await?;
        runtimes.check(&config).await?;
        let host = host();
        reconcile::can_deliver(&config, host)?;
        let opened = Dataplane::open_for(&config.dataplane, &config.services);
        let dataplane = opened.map_err(RunError::from)?;
        // To load the kernel programs took the kernel's types and copies of the object: megabytes
        // that are free now, and that nothing later needs.
        orch_common::heap::trim();
        let keeper = Keeper::new(&config.control, &config.state_dir);
        log::info!("{}", balanced(&dataplane.uplinks(), config.status));
        let (mut control, door) = reconcile::door();
        control.source = Some(Arc::new(self.source.clone()));
        let served = self.seat.serve(control).map_err(CliError::Runtime)?;
        let (sender, receiver) = mpsc::channel(4);
        let translator = Translator {
            source: self.source,
            sender,
        };
        let leaves = tokio::spawn(translator.run(self.signals));
        let pin_dir = config.dataplane.pin_dir.clone();
        let state_dir = config.state_dir.clone();
        let instance = instance(&config.control);
        let edges = Edges {
            runtimes,
            claims: self.claims,
            prober: Arc::new(HttpProber),
            host,
        };
        let ran =
            reconcile::run(config, Plane::new(dataplane, keeper), edges, door, receiver).await;
        match ran {
            Err(error) => {
                // What is left must be found again by `orch down`.
                let left = matches!(error, RunError::LeftBehind { .. });
                if left || Dataplane::exists(&pin_dir) {
                    served.leave()?;
                }
                Err(error.into())
            }
            // SIGTERM leaves what `orch down` must find again.
            Ok(()) if leaves.await.unwrap_or(true) => {
                served.leave()?;
                log::info!(
                    "ended alone: traffic goes on; `orch run` takes over, `orch down` removes all"
                );
                Ok(())
            }
            Ok(()) => {
                runtime::clear(&state_dir, &instance);
                kept::clear(&state_dir, &instance);
                served.remove()?;
                log::info!("ended: the data plane is detached");
                Ok(())
            }
        }
    }
}

/// What the person who starts a controller wants to know first.
fn balanced(uplinks: &[String], status: Option<SocketAddr>) -> String {
    let outside = match uplinks {
        [] => "no uplink: clients outside this host are not balanced".to_owned(),
        names => format!(
            "clients outside this host are balanced at {}",
            names.join(", ")
        ),
    };
    match status {
        Some(address) => format!("{outside}; status at http://{address}/"),
        None => outside,
    }
}

/// What of this host decides how connections reach containers.
pub(super) fn host() -> Host {
    Host {
        cgroup2: matches!(dataplane::cgroup2_root(), Ok(Some(_))),
    }
}

/// Marks what is ours: two controllers never share a control socket.
pub(super) fn instance(control: &Path) -> String {
    control.display().to_string()
}

/// Whether services of this configuration are containers.
pub(super) fn has_containers(config: &Config) -> bool {
    let mut services = config.services.iter();
    services.any(|one| Runtimes::kind_for(&one.backend) == RuntimeKind::Docker)
}

async fn runtimes(config: &Config) -> Result<Runtimes, RuntimeError> {
    let instance = instance(&config.control);
    let process: Arc<dyn Runtime> = Arc::new(ProcessRuntime::new(&config.state_dir, &instance));
    let runtimes = Runtimes::new().with(process);
    match DockerRuntime::connect(&instance, &config.state_dir).await {
        Ok(docker) => Ok(runtimes.with(Arc::new(docker))),
        Err(error) if has_containers(config) => Err(error),
        // An engine that nobody needs may be away.
        Err(_) => Ok(runtimes),
    }
}

/// Signals in the words of the loop.
struct Translator {
    source: Source,
    sender: mpsc::Sender<reconcile::Signal>,
}

impl Translator {
    /// Ends with the loop, or with SIGTERM; then true. What SIGINT is taking down cannot be left as it is
    /// any more: from then on SIGTERM is another SIGINT.
    async fn run(self, mut signals: mpsc::Receiver<Signal>) -> bool {
        let mut ends = false;
        let mut reading: Option<JoinHandle<reconcile::Signal>> = None;
        loop {
            let signal = tokio::select! {
                () = self.sender.closed() => return false,
                read = finished(&mut reading) => {
                    if self.sender.send(read).await.is_err() {
                        return false;
                    }
                    continue;
                }
                signal = signals.recv() => signal,
            };
            let Some(signal) = signal else {
                return false;
            };
            if signal == Signal::Reload {
                let before = reading.replace(self.read());
                before.inspect(JoinHandle::abort);
                continue;
            }
            let keep = signal == Signal::Leave && !ends;
            let signal = if ends && signal == Signal::Leave {
                Signal::CleanUp
            } else {
                signal
            };
            ends |= signal == Signal::CleanUp;
            if self
                .sender
                .send(reconcile::Signal::Shutdown { keep })
                .await
                .is_err()
            {
                return false;
            }
            if keep {
                return true;
            }
        }
    }

    /// Reads the configuration again, beside everything else.
    fn read(&self) -> JoinHandle<reconcile::Signal> {
        let source = self.source.clone();
        tokio::spawn(async move {
            match source.load_aside().await {
                Ok(config) => reconcile::Signal::Reload(Box::new(config)),
                Err(error) => reconcile::Signal::Unreadable(error),
            }
        })
    }
}

/// What was read, once it is; never, where nothing is.
async fn finished(reading: &mut Option<JoinHandle<reconcile::Signal>>) -> reconcile::Signal {
    loop {
        let Some(task) = reading else {
            return std::future::pending().await;
        };
        let read = task.await;
        *reading = None;
        if let Ok(read) = read {
            return read;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the loop is told, and whether all is left as it is.
    async fn told(signals: &[Signal]) -> (Vec<bool>, bool) {
        let (sender, mut heard) = mpsc::channel(8);
        let (signal, received) = mpsc::channel(8);
        for one in signals {
            signal.send(*one).await.unwrap();
        }
        drop(signal);
        let source = Source::Image(String::new());
        let left = Translator { source, sender }.run(received).await;
        let mut keeps = Vec::new();
        while let Some(reconcile::Signal::Shutdown { keep }) = heard.recv().await {
            keeps.push(keep);
        }
        (keeps, left)
    }

    #[tokio::test]
    async fn what_is_taken_down_is_not_left_as_it_is() {
        let (clean, leave) = (Signal::CleanUp, Signal::Leave);
        assert_eq!(told(&[leave]).await, (vec![true], true));
        assert_eq!(told(&[clean, clean]).await, (vec![false; 2], false));
        assert_eq!(told(&[clean, leave, leave]).await, (vec![false; 3], false));
    }
}
