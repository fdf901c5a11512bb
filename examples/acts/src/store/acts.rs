//! Acts, in the database.

use rusqlite::{Connection, ErrorCode, Row, Transaction, params};

use super::categories;
use crate::error::Error;

/// Acts in one answer.
const MOST_ACTS: u32 = 100;
/// Bytes of pictures in one answer, which is built in memory.
const MOST_BYTES: u64 = 64 << 20;

/// An act that is to be stored.
pub(crate) struct NewAct {
    /// Its number, or none for the next free one.
    pub(crate) id: Option<i64>,
    /// Who did it.
    pub(crate) username: String,
    /// When, as `DD-MM-YYYY:SS-MM-HH`, or none for now.
    pub(crate) timestamp: Option<String>,
    /// What it was.
    pub(crate) caption: String,
    /// The category's name.
    pub(crate) category: String,
    /// The picture.
    pub(crate) image: Vec<u8>,
}

/// An act as it is stored.
pub(crate) struct Act {
    /// Its number.
    pub(crate) id: i64,
    /// Who did it.
    pub(crate) username: String,
    /// When.
    pub(crate) timestamp: String,
    /// What it was.
    pub(crate) caption: String,
    /// How many liked it.
    pub(crate) upvotes: u64,
    /// The picture.
    pub(crate) image: Vec<u8>,
}

/// The acts from number `start` to number `end` of a category, the newest being number 1.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    /// The first.
    pub(crate) start: u32,
    /// The last.
    pub(crate) end: u32,
}

/// How many acts there are.
pub(crate) fn count(connection: &Connection) -> Result<u64, Error> {
    let count: i64 = connection
        .prepare_cached("SELECT COUNT(*) FROM act")?
        .query_row([], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Stores an act and tells its number.
pub(crate) fn create(transaction: &Transaction<'_>, act: NewAct) -> Result<i64, Error> {
    let Some(category) = categories::find(transaction, &act.category)? else {
        return Err(Error::UnknownCategory { name: act.category });
    };
    let inserted = transaction
        .prepare_cached(
            "INSERT INTO act (id, category, username, timestamp, caption, image) VALUES
             (?1, ?2, ?3, COALESCE(?4, strftime('%d-%m-%Y:%S-%M-%H', 'now')), ?5, ?6)",
        )?
        .insert(params![
            act.id,
            category,
            act.username,
            act.timestamp,
            act.caption,
            act.image
        ]);
    match (inserted, act.id) {
        (Err(error), Some(id))
            if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) =>
        {
            Err(Error::ActExists { id })
        }
        (result, _) => Ok(result?),
    }
}

/// The acts of a category, newest first.
pub(crate) fn list(
    connection: &Connection,
    name: &str,
    range: Option<Range>,
) -> Result<Vec<Act>, Error> {
    let Some(category) = categories::find(connection, name)? else {
        return Err(Error::NoCategory {
            name: name.to_owned(),
        });
    };
    // One more than allowed, without a range, to learn whether there are too many.
    let range = range.unwrap_or(Range {
        start: 1,
        end: MOST_ACTS + 1,
    });
    let window = params![category, range.end - range.start + 1, range.start - 1];
    let (acts, bytes): (u32, i64) = connection
        .prepare_cached(
            "SELECT COUNT(*), COALESCE(SUM(size), 0) FROM (SELECT LENGTH(image) AS size
             FROM act WHERE category = ?1 ORDER BY id DESC LIMIT ?2 OFFSET ?3)",
        )?
        .query_row(window, |row| Ok((row.get(0)?, row.get(1)?)))?;
    if acts > MOST_ACTS {
        return Err(Error::TooManyActs { limit: MOST_ACTS });
    }
    if bytes.unsigned_abs() > MOST_BYTES {
        return Err(Error::TooManyBytes { limit: MOST_BYTES });
    }
    let mut statement = connection.prepare_cached(
        "SELECT id, username, timestamp, caption, upvotes, image FROM act
         WHERE category = ?1 ORDER BY id DESC LIMIT ?2 OFFSET ?3",
    )?;
    let rows = statement.query_map(window, from_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Removes an act.
pub(crate) fn remove(transaction: &Transaction<'_>, id: i64) -> Result<(), Error> {
    change_one(transaction, id, "DELETE FROM act WHERE id = ?1")
}

/// Counts one who likes an act.
pub(crate) fn upvote(transaction: &Transaction<'_>, id: i64) -> Result<(), Error> {
    let sql = "UPDATE act SET upvotes = upvotes + 1 WHERE id = ?1";
    change_one(transaction, id, sql)
}

fn change_one(transaction: &Transaction<'_>, id: i64, sql: &str) -> Result<(), Error> {
    match transaction.prepare_cached(sql)?.execute([id])? {
        0 => Err(Error::NoAct { id }),
        _ => Ok(()),
    }
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Act> {
    Ok(Act {
        id: row.get(0)?,
        username: row.get(1)?,
        timestamp: row.get(2)?,
        caption: row.get(3)?,
        upvotes: row.get::<_, i64>(4)?.unsigned_abs(),
        image: row.get(5)?,
    })
}
