//! Categories, in the database.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Transaction};

use crate::error::Error;

/// The row of a category, if there is one.
pub(super) fn find(connection: &Connection, name: &str) -> Result<Option<i64>, Error> {
    Ok(connection
        .prepare_cached("SELECT id FROM category WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?)
}

/// Every category, with the number of its acts.
pub(crate) fn list(connection: &Connection) -> Result<BTreeMap<String, u64>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT name, (SELECT COUNT(*) FROM act WHERE category = category.id) FROM category",
    )?;
    let rows = statement.query_map([], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A new category.
pub(crate) fn create(transaction: &Transaction<'_>, name: &str) -> Result<(), Error> {
    let added = transaction
        .prepare_cached("INSERT INTO category (name) VALUES (?1) ON CONFLICT DO NOTHING")?
        .execute([name])?;
    if added == 0 {
        return Err(Error::CategoryExists {
            name: name.to_owned(),
        });
    }
    Ok(())
}

/// Removes a category and its acts.
pub(crate) fn remove(transaction: &Transaction<'_>, name: &str) -> Result<(), Error> {
    let removed = transaction
        .prepare_cached("DELETE FROM category WHERE name = ?1")?
        .execute([name])?;
    if removed == 0 {
        return Err(Error::NoCategory {
            name: name.to_owned(),
        });
    }
    Ok(())
}
