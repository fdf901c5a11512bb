//! One connection to the database.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::Error;

/// How long a writer waits for those of other copies.
const BUSY: Duration = Duration::from_secs(5);
/// Pause before another try at what `SQLite` does not wait for by itself.
const RETRY: Duration = Duration::from_millis(5);

const SETTINGS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA foreign_keys = ON;
    PRAGMA temp_store = MEMORY;";

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS category (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    );
    CREATE TABLE IF NOT EXISTS act (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        category INTEGER NOT NULL REFERENCES category (id) ON DELETE CASCADE,
        username TEXT NOT NULL,
        timestamp TEXT NOT NULL,
        caption TEXT NOT NULL,
        upvotes INTEGER NOT NULL DEFAULT 0,
        image BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS act_by_category ON act (category, id);
    CREATE TABLE IF NOT EXISTS probe (id INTEGER PRIMARY KEY, beat INTEGER NOT NULL);";

/// A connection, and the file that it is to: `SQLite` writes on to a file that was removed or
/// replaced, where no other copy finds it.
pub(super) struct Open {
    /// The connection.
    pub(super) connection: Connection,
    file: (u64, u64),
}

impl Open {
    /// Opens the database, and creates it where it is missing.
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        // Changing to WAL mode takes a lock that `SQLite` gives up on at once when another copy,
        // started at the same time, is doing the same.
        let limit = Instant::now() + BUSY;
        loop {
            match Self::connect(path, OpenFlags::SQLITE_OPEN_CREATE, SCHEMA) {
                Err(Error::Store(error)) if is_busy(&error) && Instant::now() < limit => {
                    thread::sleep(RETRY);
                }
                result => return result,
            }
        }
    }

    /// Opens a database that must be there: one that vanishes while copies run is a fault that
    /// their health has to show, not a reason to begin with an empty one.
    pub(super) fn existing(path: &Path) -> Result<Self, Error> {
        Self::connect(path, OpenFlags::empty(), "")
    }

    /// Whether the file at `path` is the one that this connection is to.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        identify(path).is_ok_and(|file| file == self.file)
    }

    fn connect(path: &Path, create: OpenFlags, schema: &str) -> Result<Self, Error> {
        // A connection is used by one thread at a time, so that `SQLite` needs no lock of its own.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.execute_batch(SETTINGS)?;
        connection.execute_batch(schema)?;
        let file = identify(path).map_err(|source| Error::StoreGone {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self { connection, file })
    }
}

fn identify(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}
