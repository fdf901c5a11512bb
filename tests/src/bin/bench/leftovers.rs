//! What the benchmark has made outside itself, and its removal: at the end, on an error, on Ctrl-C,
//! and on a panic, which in a release build runs no destructors.

use std::{
    path::PathBuf,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::Result;

static MADE: Mutex<Made> = Mutex::new(Made {
    children: Vec::new(),
    paths: Vec::new(),
});

struct Made {
    children: Vec<u32>,
    paths: Vec<PathBuf>,
}

fn made() -> MutexGuard<'static, Made> {
    MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory that has to go.
pub(crate) fn remember(path: PathBuf) {
    made().paths.push(path);
}

/// A program that ends when this is dropped.
pub(crate) struct Child(std::process::Child);

impl Child {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut made = made();
        let child = command
            .spawn()
            .map_err(|error| format!("{command:?}: {error}"))?;
        made.children.push(child.id());
        Ok(Self(child))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to end, by a signal, and waits for it; kills it in the end.
    pub(crate) fn stop(&mut self, signal: Signal, patience: Duration) -> bool {
        send(self.0.id(), signal);
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        // It may have ended meanwhile.
        let _ = self.0.kill();
        let _ = self.0.wait();
        false
    }

    /// Waits until it ends, at most so long, and gives its standard output.
    pub(crate) fn output(mut self, patience: Duration) -> Result<String> {
        let end = Instant::now() + patience;
        while self.0.try_wait()?.is_none() {
            if Instant::now() > end {
                return Err("does not end".into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        let mut text = String::new();
        if let Some(mut pipe) = self.0.stdout.take() {
            std::io::Read::read_to_string(&mut pipe, &mut text)?;
        }
        Ok(text)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            self.stop(Signal::SIGTERM, Duration::from_secs(3));
        }
        made().children.retain(|id| *id != self.0.id());
    }
}

fn send(id: u32, signal: Signal) {
    // It may have ended meanwhile.
    let _ = kill(Pid::from_raw(id.cast_signed()), signal);
}

/// Makes sure that nothing stays, however the benchmark ends.
pub(crate) fn guard() -> Result<()> {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        remove();
    }));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let asked: std::io::Result<()> = runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let mut terminate = signal(SignalKind::terminate())?;
                let mut hangup = signal(SignalKind::hangup())?;
                tokio::select! {
                    done = tokio::signal::ctrl_c() => done,
                    _ = terminate.recv() => Ok(()),
                    _ = hangup.recv() => Ok(()),
                }
            });
            if asked.is_ok() {
                remove();
                std::process::exit(130);
            }
        })?;
    Ok(())
}

/// Ends what was started and removes what was made. The lock is kept, so that nothing is started
/// any more.
pub(crate) fn remove() {
    let Ok(made) = MADE.try_lock() else { return };
    for id in &made.children {
        send(*id, Signal::SIGTERM);
    }
    for path in &made.paths {
        let _ = std::fs::remove_dir_all(path);
    }
    let own = format!("orch-test-{}-", std::process::id());
    for entry in std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
    {
        if let Some(name) = entry.file_name().to_str()
            && name.starts_with(&own)
        {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
    std::mem::forget(made);
}
