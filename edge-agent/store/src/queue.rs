//! The three queues: tables of one shape, numbered without gaps, emptied from the low end.

use std::fmt;

use rusqlite::{Connection, ErrorCode};
use serde::{Deserialize, Serialize};
use sync_protocol::records::Class;

use crate::error::{Cause, Damage};
use crate::{rows, schema};

/// More rows than any gateway can write: above it, a number is damage and not a number to count on from.
pub(crate) const MAX_ID: u64 = 1 << 62;

/// A queue. The order is that of the stored numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Queue {
    /// The records of a class.
    Records(Class),
    /// The messages to be published.
    Publishes,
}

/// The statements of one queue. A table for each, with the number as its rowid: against one table with the compound
/// key (class, sequence) without rowid, SQLite appends 2.5 times as many rows of 2,000 bytes a second, on half the
/// pages, for it keeps at most a quarter of a page of such a row in place.
pub(crate) struct Sql {
    /// The table, which is also the name of its mark in `meta`.
    pub(crate) table: &'static str,
    /// Number, checksum, body.
    pub(crate) insert: &'static str,
    /// From and to, both inclusive.
    pub(crate) delete: &'static str,
    /// Number and size of body of at most (limit) rows from (number) to (number).
    pub(crate) sizes: &'static str,
    /// Number, checksum and body of at most (limit) rows above (number).
    pub(crate) range: &'static str,
    /// The lowest number, the lowest above (number), and the highest.
    pub(crate) ends: &'static str,
}

macro_rules! sql {
    ($table:literal) => {
        Sql {
            table: $table,
            insert: concat!("INSERT INTO ", $table, " (id, checksum, body) VALUES (?1, ?2, ?3)"),
            delete: concat!("DELETE FROM ", $table, " WHERE id BETWEEN ?1 AND ?2"),
            sizes: concat!("SELECT id, length(body) FROM ", $table, " WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3"),
            range: concat!("SELECT id, checksum, body FROM ", $table, " WHERE id > ?1 ORDER BY id LIMIT ?2"),
            // One look-up each; in one query with two of them SQLite would scan.
            ends: concat!(
                "SELECT (SELECT min(id) FROM ",
                $table,
                "), (SELECT min(id) FROM ",
                $table,
                " WHERE id > ?1), (SELECT max(id) FROM ",
                $table,
                ")"
            ),
        }
    };
}

static NORMAL: Sql = sql!("outbox_normal");
static HIGH: Sql = sql!("outbox_high");
static PUBLISHES: Sql = sql!("publishes");

/// Where a queue begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The lowest row that is still stored, or the one that would come next.
    pub(crate) stored: u64,
    /// Everything up to here is done.
    pub(crate) done: u64,
    /// The lowest row above `done`, or the one that would come next. More than `done + 1` is damage.
    pub(crate) waiting: u64,
    /// The highest number ever given.
    pub(crate) last: u64,
}

/// A row of a queue, its checksum verified.
pub(crate) struct Row<'a> {
    pub(crate) id: u64,
    pub(crate) body: &'a [u8],
}

impl Queue {
    /// All queues.
    pub const ALL: [Self; 3] = [Self::Records(Class::Normal), Self::Records(Class::High), Self::Publishes];

    /// Place in arrays that hold something for each queue; for records the class's number.
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Records(class) => class.number() as usize,
            Self::Publishes => 2,
        }
    }

    pub(crate) fn sql(self) -> &'static Sql {
        match self {
            Self::Records(Class::Normal) => &NORMAL,
            Self::Records(Class::High) => &HIGH,
            Self::Publishes => &PUBLISHES,
        }
    }

    pub(crate) fn damaged(self, id: u64, what: String) -> Damage {
        match self {
            Self::Records(class) => Damage::Record { class, sequence: id, what },
            Self::Publishes => Damage::Publish { id, what },
        }
    }

    pub(crate) fn missing(self, first: u64, last: u64) -> Damage {
        match self {
            Self::Records(class) => Damage::MissingRecords { class, first, last },
            Self::Publishes => Damage::MissingPublishes { first, last },
        }
    }

    /// The number up to which everything is done.
    pub(crate) fn mark(self, connection: &Connection) -> Result<u64, Cause> {
        let table = self.sql().table;
        match schema::meta(connection, table)? {
            mark if mark < MAX_ID => Ok(mark),
            mark => Err(Damage::Database(format!("{mark} is no mark that {table} can have")).into()),
        }
    }

    /// Where it begins and ends, in the time of four look-ups. Reads several times: be in a transaction, unless nobody
    /// else writes.
    pub(crate) fn ends(self, connection: &Connection) -> Result<Ends, Cause> {
        let done = self.mark(connection)?;
        let (lowest, waiting, highest): (Option<i64>, Option<i64>, Option<i64>) = connection
            .prepare_cached(self.sql().ends)?
            .query_row([rows::integer(done)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        for id in [lowest, highest].into_iter().flatten() {
            if !(1..rows::integer(MAX_ID)).contains(&id) {
                return Err(Damage::Database(format!("{} has a row with the number {id}", self.sql().table)).into());
            }
        }
        let last = highest.map_or(0, rows::number).max(done);
        let or_next = |id: Option<i64>| id.map_or(last + 1, rows::number);
        Ok(Ends { stored: or_next(lowest), done, waiting: or_next(waiting), last })
    }

    /// As [`ends`](Self::ends), and whether the first row that waits is there, and it and the last one are whole.
    pub(crate) fn check_ends(self, connection: &Connection) -> Result<Ends, Cause> {
        let ends = self.ends(connection)?;
        for after in [ends.done, ends.last.max(1) - 1] {
            self.read(connection, after, 1, usize::MAX, |_| Ok(()))?;
        }
        Ok(ends)
    }

    /// Hands the rows above `after` (or above the mark, if that is higher) to `take`, in order: at most `max_rows`,
    /// and no more once `max_bytes` would be passed, but one at least. Ends before a damaged or missing row, which is
    /// the error when it is the first. Reads twice: be in a transaction, unless nobody else writes.
    pub(crate) fn read(
        self,
        connection: &Connection,
        after: u64,
        max_rows: usize,
        max_bytes: usize,
        mut take: impl FnMut(Row<'_>) -> Result<(), String>,
    ) -> Result<(), Cause> {
        let start = self.mark(connection)?.max(after.min(MAX_ID));
        let mut statement = connection.prepare_cached(self.sql().range)?;
        let mut rows = statement.query((rows::integer(start), rows::bound(max_rows as u64)))?;
        let (mut wanted, mut bytes) = (start + 1, 0usize);
        loop {
            let first = wanted == start + 1;
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => break,
                // What was whole up to a damaged page can still be delivered.
                Err(error) if !first && error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => break,
                Err(error) => return Err(error.into()),
            };
            let id = rows::number(row.get(0)?);
            let checked = if id == wanted {
                let body = rows::checked(row, 1, 2);
                bytes = bytes.saturating_add(body.as_ref().map_or(0, |body| body.len()));
                if !first && bytes > max_bytes {
                    break;
                }
                body.and_then(|body| take(Row { id, body })).map_err(|what| self.damaged(id, what))
            } else {
                Err(self.missing(wanted, id - 1))
            };
            match checked {
                Ok(()) => wanted += 1,
                Err(damage) if first => return Err(damage.into()),
                Err(_) => break,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Records(class) => write!(f, "records of class {class:?}"),
            Self::Publishes => f.write_str("publishes"),
        }
    }
}
