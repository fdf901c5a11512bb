//! Signals as words.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::CliError;

/// What a signal asks of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: drain, stop what was started, detach. A second one: at once.
    CleanUp,
    /// SIGTERM: end, and leave backends and data plane running.
    Leave,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// Signals from now on.
pub(super) fn listen() -> Result<mpsc::Receiver<Signal>, CliError> {
    let (sender, receiver) = mpsc::channel(4);
    for (kind, meaning) in [
        (SignalKind::interrupt(), Signal::CleanUp),
        (SignalKind::terminate(), Signal::Leave),
        (SignalKind::hangup(), Signal::Reload),
    ] {
        let mut signals = signal(kind).map_err(CliError::Signals)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if sender.send(meaning).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}
