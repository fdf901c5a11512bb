//! How does the gateway end: after the next one has its sockets, or at once?

use std::{
    fs,
    os::unix::net::UnixStream,
    process,
    sync::{Arc, atomic::Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use super::{
    super::{
        descriptors,
        service::locked,
        wire::{Answer, WireError, send},
        worker::Order,
    },
    Gateway,
};

/// How long one that has finished waits to be asked for its last counts.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// What clients that wait get told before the end.
const FAREWELL: Duration = Duration::from_millis(100);

impl Gateway {
    /// Gives the listening sockets to the next gateway, finishes what is open, and ends.
    pub(super) fn hand_over(self: &Arc<Self>, stream: &UnixStream) -> Result<(), WireError> {
        let sockets = {
            let mut state = locked(&self.state);
            self.shared.close();
            let sockets = std::mem::take(&mut state.sockets);
            for socket in sockets.keys() {
                self.tell(socket.thread, Order::Close(socket.clone()));
            }
            sockets
        };
        // The next one has its own there.
        let _ = fs::remove_file(&self.path);
        send(stream, &Answer::Sockets(sockets.keys().cloned().collect()))?;
        descriptors::send(stream, &sockets)?;
        let gateway = Arc::clone(self);
        thread::spawn(move || gateway.wait_and_end());
        Ok(())
    }

    fn wait_and_end(&self) {
        while self.shared.clients() > 0 {
            thread::sleep(FAREWELL);
        }
        let end = Instant::now() + LAST_WORDS;
        while !self.told.load(SeqCst) && Instant::now() < end {
            thread::sleep(FAREWELL);
        }
        // For the answer to leave.
        thread::sleep(FAREWELL);
        process::exit(0);
    }

    /// Ends at once, but tells clients that wait.
    pub(super) fn end(&self) -> ! {
        let mut state = locked(&self.state);
        for service in state.services.values() {
            service.end();
        }
        if let Some(predecessor) = state.predecessor.take() {
            predecessor.end();
        }
        if !self.shared.is_closing() {
            let _ = fs::remove_file(&self.path);
        }
        thread::sleep(FAREWELL);
        process::exit(0);
    }
}
