//! The three queues: tables of one shape, numbered without gaps, emptied from the low end.
//!
//! A row of `publishes` is one publish. What else than one record a row of the outbox may be is in [`tiles`].

use std::fmt;

use rusqlite::{Connection, ErrorCode};
use serde::{Deserialize, Serialize};
use sync_protocol::records::Class;

use crate::error::{Cause, Damage};
use crate::{rows, schema, tiles};

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

/// The statements that all queues have. A table for each, with the number as its rowid: against one table with the
/// compound key (class, sequence) without rowid, SQLite appends 2.5 times as many rows of 2,000 bytes a second, on half
/// the pages, for it keeps at most a quarter of a page of such a row in place.
pub(crate) struct Sql {
    /// The table, which is also the name of its mark in `meta`.
    pub(crate) table: &'static str,
    /// What else [`Row::of`] reads of it beside number, checksum and body.
    pub(crate) columns: &'static str,
    /// The column that says which stream it is of.
    pub(crate) stream: &'static str,
    /// From and to, both inclusive.
    pub(crate) delete: &'static str,
    /// Number, size of body and stream (none: it is no record) of at most (limit) rows from (number) to (number).
    pub(crate) sizes: &'static str,
    /// At most (limit) rows above (number), as [`Row::of`] reads them.
    pub(crate) range: &'static str,
    /// The lowest number, the lowest above (number), the highest, and where the row of that ends.
    pub(crate) ends: &'static str,
}

macro_rules! sql {
    ($table:literal, $kind:literal, $last:literal, $stream:literal) => {
        Sql {
            table: $table,
            columns: concat!($kind, ", ", $last),
            stream: $stream,
            delete: concat!("DELETE FROM ", $table, " WHERE id BETWEEN ?1 AND ?2"),
            sizes: concat!(
                "SELECT id, length(body), ",
                $stream,
                " FROM ",
                $table,
                " WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3"
            ),
            range: concat!(
                "SELECT id, checksum, body, ",
                $kind,
                ", ",
                $last,
                " FROM ",
                $table,
                " WHERE id > ?1 ORDER BY id LIMIT ?2"
            ),
            // One look-up each; in one query with two of them SQLite would scan.
            ends: concat!(
                "SELECT (SELECT min(id) FROM ",
                $table,
                "), (SELECT min(id) FROM ",
                $table,
                " WHERE id > ?1), (SELECT max(id) FROM ",
                $table,
                "), (SELECT ",
                $last,
                " FROM ",
                $table,
                " ORDER BY id DESC LIMIT 1)"
            ),
        }
    };
}

static NORMAL: Sql = sql!("outbox_normal", "kind", "last", "stream");
static HIGH: Sql = sql!("outbox_high", "kind", "last", "stream");
static PUBLISHES: Sql = sql!("publishes", "0", "NULL", "NULL");

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

/// What a row stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One record, or one publish.
    Item,
    /// Records that do not exist any more, which the control plane has not heard of. The body is
    /// [`Gone`](sync_protocol::records::Gone).
    Gone,
    /// Records that the control plane has, or knows to be gone. The body is empty.
    Settled,
}

impl Kind {
    pub(crate) const fn number(self) -> i64 {
        match self {
            Self::Item => 0,
            Self::Gone => 1,
            Self::Settled => 2,
        }
    }
}

/// A row of a queue.
pub(crate) struct Row<'a> {
    pub(crate) id: u64,
    /// The last number that it stands for; for an item `id`.
    pub(crate) last: u64,
    pub(crate) kind: Kind,
    pub(crate) body: &'a [u8],
}

impl<'a> Row<'a> {
    /// From id, checksum, body, kind and last, in this order, if the checksum says that they are whole.
    pub(crate) fn of(row: &'a rusqlite::Row<'_>) -> Result<Self, String> {
        let id = rows::number(rows::column(row, 0)?);
        let (kind, last): (i64, Option<i64>) = (rows::column(row, 3)?, rows::column(row, 4)?);
        let kind = match (kind, last) {
            (0, None) => return Ok(Self { id, last: id, kind: Kind::Item, body: rows::checked(row, 1, 2)? }),
            (1, Some(_)) => Kind::Gone,
            (2, Some(_)) => Kind::Settled,
            _ => return Err(format!("{kind} is no kind of row that ends at {last:?}")),
        };
        let last = rows::number(last.unwrap_or_default());
        let body = rows::checked_by(row, 1, 2, |body| rows::run_checksum(kind, id, last, body))?;
        Ok(Self { id, last, kind, body })
    }
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

    /// Where it begins and ends, in the time of five look-ups. Reads several times: be in a transaction, unless nobody
    /// else writes.
    pub(crate) fn ends(self, connection: &Connection) -> Result<Ends, Cause> {
        let done = self.mark(connection)?;
        let [lowest, waiting, highest, end]: [Option<i64>; 4] = connection
            .prepare_cached(self.sql().ends)?
            .query_row([rows::integer(done)], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?;
        for id in [lowest, highest, end].into_iter().flatten() {
            if !(1..rows::integer(MAX_ID)).contains(&id) {
                return Err(Damage::Database(format!("{} has a row with the number {id}", self.sql().table)).into());
            }
        }
        let last = end.or(highest).map_or(0, rows::number).max(done);
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
    /// and no more once `max_bytes` would be passed, but one at least. Begins with the first number that is not settled,
    /// and ends before the next one that is, or before a damaged or missing row, which is the error when it is the first.
    /// Reads several times: be in a transaction, unless nobody else writes.
    pub(crate) fn read(
        self,
        connection: &Connection,
        after: u64,
        max_rows: usize,
        max_bytes: usize,
        mut take: impl FnMut(Row<'_>) -> Result<(), String>,
    ) -> Result<(), Cause> {
        let start = self.start(connection, after)?;
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
            if id != wanted {
                if first {
                    return Err(self.missing(wanted, id - 1).into());
                }
                break;
            }
            let (is_item, damaged) = match Row::of(row) {
                Ok(row) if row.kind == Kind::Settled => break,
                Ok(row) => {
                    bytes = bytes.saturating_add(row.body.len());
                    if !first && bytes > max_bytes {
                        break;
                    }
                    wanted = row.last + 1;
                    (row.kind == Kind::Item, take(row).err())
                }
                Err(what) => (row.get::<_, i64>(3).ok() == Some(0), Some(what)),
            };
            match damaged {
                None => {}
                Some(what) if first && is_item => return Err(self.damaged(id, what).into()),
                Some(what) if first => return Err(self.damaged_run(connection, id, what)?),
                Some(_) => break,
            }
        }
        Ok(())
    }

    /// The number before the first one above `after` and the mark that is not settled, and not within a run that begins
    /// before it.
    fn start(self, connection: &Connection, after: u64) -> Result<u64, Cause> {
        let mark = self.mark(connection)?;
        let mut start = mark.max(after.min(MAX_ID));
        if let Self::Records(class) = self {
            while let Some(run) = tiles::run_at(connection, class, start + 1)?
                && (run.gone.is_none() || run.first <= start)
            {
                start = run.last;
            }
        }
        Ok(start)
    }

    /// Of a run nobody knows how far it goes, if it is damaged: up to the next row.
    pub(crate) fn damaged_run(self, connection: &Connection, first: u64, what: String) -> Result<Cause, Cause> {
        let next = self.ends_above(connection, first)?;
        Ok(match (self, next) {
            (Self::Records(class), Some(next)) => Damage::Run { class, first, last: next - 1, what }.into(),
            _ => Damage::Database(format!("row {first} of {}, the last one: {what}", self.sql().table)).into(),
        })
    }

    fn ends_above(self, connection: &Connection, id: u64) -> Result<Option<u64>, Cause> {
        let next: Option<i64> =
            connection.prepare_cached(self.sql().ends)?.query_row([rows::integer(id)], |row| row.get(1))?;
        Ok(next.map(rows::number))
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
