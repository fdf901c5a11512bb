//! Through what does the controller show itself, and what is it asked through?

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::{
    control::{Command, Control},
    events::Journal,
    history::History,
    view::Snapshot,
};

/// The controller's side of the door whose other side is [`Control`].
#[derive(Debug)]
pub struct Door {
    pub(super) snapshot: watch::Sender<Arc<Snapshot>>,
    pub(super) journal: Journal,
    pub(super) history: History,
    pub(super) commands: mpsc::Receiver<Command>,
}

/// A door, both sides: one for the API, one for the loop.
pub fn door() -> (Control, Door) {
    let (snapshot, seen) = watch::channel(Arc::default());
    let (sender, commands) = mpsc::channel(16);
    let journal = Journal::default();
    let history = History::default();
    let control = Control {
        snapshot: seen,
        journal: journal.clone(),
        history: history.clone(),
        commands: sender,
        source: None,
    };
    let door = Door {
        snapshot,
        journal,
        history,
        commands,
    };
    (control, door)
}
