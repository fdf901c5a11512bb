//! The database that all copies share: `SQLite` in WAL mode, where readers never wait, and a writer
//! waits for other writers only.

pub(crate) mod acts;
pub(crate) mod categories;
mod open;
mod probe;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::task;

use self::open::Open;
pub(crate) use self::probe::probe;
use crate::error::{Error, StartError};

/// The way to the database, with a few open connections.
pub(crate) struct Store {
    path: PathBuf,
    idle: Mutex<Vec<Open>>,
    /// Writers of this copy queue here: `SQLite` itself lets a waiting writer sleep and try again.
    writing: Mutex<()>,
}

impl Store {
    /// Opens the database in `directory`, and creates what is missing.
    pub(crate) fn create(directory: &Path) -> Result<Self, StartError> {
        fs::create_dir_all(directory).map_err(|source| StartError::Directory {
            path: directory.to_owned(),
            source,
        })?;
        let path = directory.join("acts.db");
        let first = Open::create(&path).map_err(|source| StartError::Database {
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            path,
            idle: Mutex::new(vec![first]),
            writing: Mutex::new(()),
        })
    }

    /// Runs a query on a thread for such.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(self);
        task::spawn_blocking(move || store.with(|connection| query(connection)))
            .await
            .unwrap_or(Err(Error::QueryLost))
    }

    /// Runs a change as one transaction, which other copies see at once when this returns.
    pub(crate) async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(self);
        task::spawn_blocking(move || {
            let _turn = store.writing.lock().unwrap_or_else(PoisonError::into_inner);
            store.with(|connection| {
                // Immediate: a reader that turns writer late fails at once instead of waiting.
                let transaction =
                    connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let result = change(&transaction)?;
                transaction.commit()?;
                Ok(result)
            })
        })
        .await
        .unwrap_or(Err(Error::QueryLost))
    }

    fn with<T>(&self, query: impl FnOnce(&mut Connection) -> Result<T, Error>) -> Result<T, Error> {
        let idle = self.idle().pop();
        let mut open = match idle.filter(|open| open.is_at(&self.path)) {
            Some(open) => open,
            None => Open::existing(&self.path)?,
        };
        let result = query(&mut open.connection);
        self.idle().push(open);
        result
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Open>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
