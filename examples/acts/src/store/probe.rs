//! The question whether the database works.

use rusqlite::Transaction;

use crate::error::Error;

const BEAT: &str = "
    INSERT INTO probe (id, beat) VALUES (1, 1)
    ON CONFLICT (id) DO UPDATE SET beat = beat + 1 RETURNING beat";

/// Writes one small row and reads it again.
pub(crate) fn probe(transaction: &Transaction<'_>) -> Result<(), Error> {
    let written: i64 = transaction
        .prepare_cached(BEAT)?
        .query_row([], |row| row.get(0))?;
    let read: i64 = transaction
        .prepare_cached("SELECT beat FROM probe WHERE id = 1")?
        .query_row([], |row| row.get(0))?;
    if read == written {
        Ok(())
    } else {
        Err(Error::StoreForgets)
    }
}
