//! The controller's seat: the lock, the control socket and the status address. Taken whole or not
//! at all, before anything else is touched.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use nix::sys::stat::{Mode, umask};
use tokio::task::JoinSet;

use super::lock::{Lock, LockError};
use crate::{
    api::{
        self,
        access::{Access, Token, TokenError},
    },
    config::Config,
    control::Control,
};

/// A taken seat that answers nobody yet. Dropping it removes the control socket, and takes back what
/// was written into the lock's file.
#[derive(Debug)]
pub struct Seat {
    control: UnixListener,
    status: Option<TcpListener>,
    access: Access,
    place: Place,
}

/// The socket's path and the lock that makes it ours.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    lock: Option<Lock>,
}

impl Place {
    /// Removes the socket, then ends with the lock as it is told. The socket is ours only while the
    /// lock is held, so it goes first, and nothing happens the second time.
    fn close(&mut self, end: impl FnOnce(Lock) -> Result<(), LockError>) -> Result<(), LockError> {
        let Some(lock) = self.lock.take() else {
            return Ok(());
        };
        // Somebody may have put something else in its place.
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| found.file_type().is_socket())
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::debug!("cannot remove {}: {error}", self.path.display());
        }
        end(lock)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.close(Lock::unsign) {
            log::debug!("cannot take back the signature: {error}");
        }
    }
}

/// Why there is no seat.
#[derive(Debug, thiserror::Error)]
pub enum SeatError {
    /// The lock cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The token cannot be had.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A directory cannot be made.
    #[error("cannot make the directory {}", path.display())]
    Directory {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else is where the control socket is to be.
    #[error("{} is there and is not a socket: move it away, or change control", path.display())]
    NotASocket {
        /// Its path.
        path: PathBuf,
    },
    /// The control socket cannot be bound.
    #[error("cannot listen on the control socket {}", path.display())]
    Control {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The status address is somebody else's.
    #[error(
        "the status address {address} is taken by another program: end it, or change status (\"\" turns it off)"
    )]
    StatusTaken {
        /// The address.
        address: SocketAddr,
    },
    /// The status address cannot be bound.
    #[error("cannot listen on the status address {address}")]
    Status {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Seat {
    /// Takes the seat: directories, lock, control socket, status address, in this order.
    pub fn take(config: &Config) -> Result<Self, SeatError> {
        let token = config.token_file.as_deref().map(Token::read).transpose()?;
        if let Some(parent) = config.control.parent() {
            directory(parent, 0o755)?;
        }
        directory(&config.state_dir, 0o700)?;
        let mut lock = Lock::take(&config.control)?;
        lock.sign(config)?;
        // The status address first: where it is taken, no socket is left behind.
        let bound = config.status.map(status).transpose();
        let bound = bound.and_then(|status| Ok((control(&config.control)?, status)));
        let (control, status) = match bound {
            Ok(bound) => bound,
            Err(error) => {
                lock.unsign()?;
                return Err(error);
            }
        };
        Ok(Self {
            control,
            status,
            access: token.map_or(Access::ReadOnly, Access::Token),
            place: Place {
                path: config.control.clone(),
                lock: Some(lock),
            },
        })
    }

    /// Starts to answer: the API on both listeners. Needs a tokio runtime.
    pub fn serve(self, control: Control) -> io::Result<Served> {
        let mut tasks = JoinSet::new();
        self.control.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(self.control)?;
        tasks.spawn(api::serve_control(listener, api::full(control.clone())));
        if let Some(status) = self.status {
            status.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(status)?;
            tasks.spawn(api::serve_status(
                listener,
                api::router(control, self.access),
            ));
        }
        Ok(Served {
            _tasks: tasks,
            place: self.place,
        })
    }
}

/// A seat that answers. Dropping it is for a controller that could not begin: that ends the answers,
/// removes the control socket, and takes back what was written into the lock's file.
#[derive(Debug)]
pub struct Served {
    _tasks: JoinSet<()>,
    place: Place,
}

impl Served {
    /// Ends the answers. The lock's file stays, so that `orch down` finds what this controller left
    /// running.
    pub fn leave(mut self) -> Result<(), LockError> {
        self.place.close(|lock| {
            drop(lock);
            Ok(())
        })
    }

    /// Ends the answers and removes the lock's file: for a controller that leaves nothing running.
    pub fn remove(mut self) -> Result<(), LockError> {
        self.place.close(Lock::remove)
    }
}

fn directory(path: &Path, mode: u32) -> Result<(), SeatError> {
    let created = fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path);
    created.map_err(|source| SeatError::Directory {
        path: path.to_owned(),
        source,
    })
}

/// Called with the lock held, so a socket that is there belongs to a controller that is gone.
fn control(path: &Path) -> Result<UnixListener, SeatError> {
    let error = |source| SeatError::Control {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path).map_err(error)?,
        Ok(_) => {
            return Err(SeatError::NotASocket {
                path: path.to_owned(),
            });
        }
        Err(_) => {}
    }
    // The mode must be right from the first moment, so it cannot be set afterwards.
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    bound.map_err(error)
}

fn status(address: SocketAddr) -> Result<TcpListener, SeatError> {
    TcpListener::bind(address).map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            SeatError::StatusTaken { address }
        } else {
            SeatError::Status { address, source }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Source;

    fn config(dir: &Path) -> Config {
        let mut config = Source::Image("a".to_owned()).load().unwrap();
        config.control = dir.join("run/orch.sock");
        config.state_dir = dir.join("state");
        config.status = None;
        config
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_held_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        fs::create_dir_all(config.control.parent().unwrap()).unwrap();
        drop(UnixListener::bind(&config.control).unwrap());
        let seat = Seat::take(&config).unwrap();
        let mode = fs::metadata(&config.control).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = Seat::take(&config).unwrap_err();
        assert!(
            matches!(error, SeatError::Lock(LockError::Held { .. })),
            "{error}"
        );
        assert!(config.control.exists(), "the refused one leaves it alone");
        drop(seat);
        assert!(!config.control.exists());
        assert!(!Lock::path_for(&config.control).exists());
    }

    #[test]
    fn a_taken_status_address_leaves_no_socket_and_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = config(dir.path());
        config.status = Some(other.local_addr().unwrap());
        let error = Seat::take(&config).unwrap_err();
        assert!(matches!(error, SeatError::StatusTaken { .. }), "{error}");
        assert!(!config.control.exists());
        assert!(!Lock::path_for(&config.control).exists());
    }

    #[test]
    fn a_file_in_the_way_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        fs::create_dir_all(config.control.parent().unwrap()).unwrap();
        fs::write(&config.control, "precious").unwrap();
        let error = Seat::take(&config).unwrap_err();
        assert!(matches!(error, SeatError::NotASocket { .. }), "{error}");
    }
}
