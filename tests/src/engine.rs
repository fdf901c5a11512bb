//! The host's container engine, by a way that can be cut: for its clients it is gone then.

use std::{
    io,
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

/// A way to the engine that can be cut.
#[derive(Debug)]
pub struct Way {
    /// The socket at which the engine is reached.
    pub path: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    cut: bool,
    streams: Vec<UnixStream>,
}

impl Way {
    /// Opens it at this path.
    pub fn open(path: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut state = shared.lock().unwrap();
                if !state.cut {
                    join(stream, &mut state.streams);
                }
            }
        });
        Self { path, state }
    }

    /// Nobody reaches the engine any more.
    pub fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.cut = true;
        for stream in state.streams.drain(..) {
            // One that has ended already is cut, too.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// It is reached again.
    pub fn mend(&self) {
        self.state.lock().unwrap().cut = false;
    }
}

/// Copies both ways until either end closes.
fn join(near: UnixStream, streams: &mut Vec<UnixStream>) {
    let far = UnixStream::connect(Path::new("/var/run/docker.sock")).unwrap();
    for (from, to) in [(&near, &far), (&far, &near)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    streams.extend([near, far]);
}
