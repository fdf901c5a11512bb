//! Tells the controller at once that a request waits for a copy, or that a copy refuses: it looks at
//! the counts by itself only now and then.

use std::{
    os::unix::net::UnixStream,
    sync::Mutex,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{SendFlags, send},
};

use super::service::locked;

/// At the least between two rings: what is missed meanwhile is seen at the controller's next look.
const APART: Duration = Duration::from_millis(10);

/// Who wants to hear of it. A byte each is all they get.
#[derive(Debug, Default)]
pub(super) struct Bell(Mutex<Ringing>);

#[derive(Debug, Default)]
struct Ringing {
    listeners: Vec<UnixStream>,
    last: Option<Instant>,
}

impl Bell {
    /// Has this one hear of it, too, unless it cannot be told so. No ring comes between: whoever has
    /// been told misses none, and hears none before.
    ///
    /// # Errors
    ///
    /// What telling it said.
    pub(super) fn hang<E>(
        &self,
        listener: UnixStream,
        tell: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut ringing = locked(&self.0);
        tell()?;
        ringing.listeners.push(listener);
        Ok(())
    }

    pub(super) fn ring(&self) {
        let mut ringing = locked(&self.0);
        let now = Instant::now();
        if ringing.last.is_some_and(|last| now - last < APART) {
            return;
        }
        ringing.last = Some(now);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        ringing.listeners.retain(|listener| {
            // One that has not heard the last rings yet needs no more.
            matches!(send(listener, &[1], flags), Ok(_) | Err(Errno::AGAIN))
        });
    }
}
