//! Up to which moment each schedule was served.

use rusqlite::{Connection, OptionalExtension};

use crate::error::Cause;
use crate::rows;

/// A schedule of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// The function's name.
    pub function: String,
    /// The schedule's.
    pub schedule: String,
    /// Every moment up to this one was served or passed over, microseconds since 1970-01-01 UTC.
    pub up_to_us: u64,
}

impl Scheduled {
    fn checksum(&self) -> u32 {
        let both = rows::named_checksum(&self.function, self.schedule.as_bytes());
        rows::checksum(&[&both.to_le_bytes()[..], &self.up_to_us.to_le_bytes()].concat())
    }

    /// Stores it, unless as much was served before; whether it was not.
    pub(crate) fn serve(&self, connection: &Connection) -> Result<bool, Cause> {
        let served: Option<i64> = connection
            .prepare_cached("SELECT up_to_us FROM schedules WHERE function = ?1 AND schedule = ?2")?
            .query_row((&self.function, &self.schedule), |row| row.get(0))
            .optional()?;
        if served.is_some_and(|served| rows::number(served) >= self.up_to_us) {
            return Ok(false);
        }
        self.store(connection)?;
        Ok(true)
    }

    pub(crate) fn store(&self, connection: &Connection) -> Result<(), Cause> {
        connection
            .prepare_cached("REPLACE INTO schedules (function, schedule, checksum, up_to_us) VALUES (?1, ?2, ?3, ?4)")?
            .execute((&self.function, &self.schedule, self.checksum(), rows::bound(self.up_to_us)))?;
        Ok(())
    }
}

/// Those that are whole, and how many are not. Of one that is damaged nothing is made up for.
pub(crate) fn read(connection: &Connection) -> Result<(Vec<Scheduled>, usize), Cause> {
    let mut statement =
        connection.prepare_cached("SELECT function, schedule, checksum, up_to_us FROM schedules ORDER BY 1, 2")?;
    let mut found = statement.query([])?;
    let (mut schedules, mut damaged) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        let read = || {
            let up_to_us = rows::number(rows::column(row, 3)?);
            let of = Scheduled { function: rows::column(row, 0)?, schedule: rows::column(row, 1)?, up_to_us };
            let stored: u32 = rows::column(row, 2)?;
            Ok::<_, String>((stored == of.checksum()).then_some(of))
        };
        match read() {
            Ok(Some(of)) => schedules.push(of),
            Ok(None) | Err(_) => damaged += 1,
        }
    }
    Ok((schedules, damaged))
}
