//! Going through tables that may be damaged: past what cannot be read, to what can.

use rusqlite::{Connection, ErrorCode, Row};

use crate::error::Cause;
use crate::queue::MAX_ID;
use crate::rows;

/// Most ranges of numbers that are told apart in a table: a bound on memory where a whole disk rots.
const MAX_RANGES: usize = 1_000;

/// How many numbers are tried after an unreadable page to find the next readable one. A page that only points to
/// others stands for some 10,000 rows of the smallest sort.
const PROBES: u64 = 1 << 17;

/// What was read, or the damage in words; a failure that is no damage stays one.
pub(crate) fn readable<T>(read: Result<T, Cause>) -> Result<Result<T, String>, Cause> {
    match read {
        Ok(value) => Ok(Ok(value)),
        Err(cause) if is_damage(&cause) => Ok(Err(cause.to_string())),
        Err(cause) => Err(cause),
    }
}

/// Whether something cannot be read, now and whenever it is tried: also a bad sector, and a table that is not there.
pub(crate) fn is_damage(cause: &Cause) -> bool {
    match cause {
        Cause::Damage(_) => true,
        Cause::Sqlite(error) => matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::TypeMismatch
                    | ErrorCode::Unknown
            ) | None
        ),
        _ => false,
    }
}

/// Hands over the rows of a query up to its end or to where it cannot be read; then why.
pub(crate) fn each(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
    mut take: impl FnMut(&Row<'_>) -> Result<(), Cause>,
) -> Result<Option<String>, Cause> {
    let walk = || -> Result<(), Result<Cause, Cause>> {
        let mut statement = connection.prepare(sql).map_err(|error| Err(error.into()))?;
        let mut rows = statement.query(parameters).map_err(|error| Err(error.into()))?;
        while let Some(row) = rows.next().map_err(|error| Err(error.into()))? {
            take(row).map_err(Ok)?;
        }
        Ok(())
    };
    match walk() {
        Ok(()) => Ok(None),
        Err(Err(cause)) if is_damage(&cause) => Ok(Some(cause.to_string())),
        // What `take` failed with is another matter than what it was handed.
        Err(Ok(cause) | Err(cause)) => Err(cause),
    }
}

/// How a table was read.
pub(crate) struct Scan {
    /// Why some of it could not be.
    pub(crate) broken: Option<String>,
    /// Whether its end is among that.
    pub(crate) open: bool,
}

/// Hands over all rows above `after` of a table (id, checksum, body, and `columns`), passing what cannot be read; `last`
/// is known to have been given.
pub(crate) fn by_number(
    connection: &Connection,
    table: &str,
    columns: &str,
    after: u64,
    last: u64,
    mut take: impl FnMut(u64, &Row<'_>) -> Result<(), Cause>,
) -> Result<Scan, Cause> {
    let sql = format!("SELECT id, checksum, body, {columns} FROM {table} WHERE id > ?1 ORDER BY id");
    let probe = format!("SELECT id FROM {table} WHERE id > ?1 ORDER BY id LIMIT 1");
    let (mut after, mut broken) = (after, None);
    loop {
        let stopped = each(connection, &sql, [rows::bound(after)], |row| {
            if let Ok(id @ 1..) = rows::column::<i64>(row, 0) {
                after = after.max(rows::number(id));
                take(rows::number(id), row)?;
            }
            Ok(())
        })?;
        let Some(why) = stopped else { return Ok(Scan { broken, open: false }) };
        broken.get_or_insert(why);
        // The end, unless it is on an unreadable page itself.
        let sql = format!("SELECT max(id) FROM {table}");
        let max = readable(connection.query_row(&sql, [], |row| row.get::<_, Option<i64>>(0)).map_err(Cause::from))?;
        let end = max.as_ref().map_or(last, |max| max.map_or(0, rows::number).max(last)).min(MAX_ID);
        let mut next = None;
        if let Ok(mut statement) = connection.prepare(&probe) {
            let tried = after + 1..end.min(after.saturating_add(PROBES));
            next = tried.into_iter().find(|id| statement.query_row([rows::bound(*id)], |_| Ok(())).is_ok());
        }
        match next {
            Some(id) => after = id,
            None => return Ok(Scan { broken, open: max.is_err() && last <= after }),
        }
    }
}

/// Numbers, kept as ranges.
#[derive(Default)]
pub(crate) struct Runs(Vec<(u64, u64)>);

impl Runs {
    pub(crate) fn add(&mut self, first: u64, end: u64) {
        let full = self.0.len() == MAX_RANGES;
        match self.0.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(first) => *last = end,
            // Beyond the bound the last range takes in what it should not; what is lost in it is not named any more.
            Some((_, last)) if full => *last = end.max(*last),
            _ => self.0.push((first, end)),
        }
    }

    /// What is between `first` and `last`, both inclusive, and not in here.
    pub(crate) fn holes(mut self, first: u64, last: u64) -> Vec<(u64, u64)> {
        // A row whose number was damaged stands among others.
        self.0.sort_unstable();
        let (mut wanted, mut holes) = (first, Vec::new());
        for (start, end) in self.0 {
            if start > wanted && wanted <= last {
                holes.push((wanted, last.min(start - 1)));
            }
            wanted = wanted.max(end.saturating_add(1));
        }
        if wanted <= last {
            holes.push((wanted, last));
        }
        holes
    }
}
