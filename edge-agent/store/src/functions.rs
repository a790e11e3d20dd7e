//! The functions' numbers, and how much state each of them has.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_core::FunctionId;
use rusqlite::{Connection, OptionalExtension};

use crate::error::{Cause, Damage};
use crate::rows;

/// What a function has in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionUsage {
    /// Its number.
    pub id: FunctionId,
    /// Its name.
    pub name: Arc<str>,
    /// Bytes of the keys and values of its state, over all partitions; those that ended and are not deleted yet included.
    pub state_bytes: u64,
}

/// The state's bytes of each function, as the writer knows them.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    bytes: BTreeMap<u32, u64>,
    // What was there before a change that is not committed.
    before: BTreeMap<u32, u64>,
}

impl Functions {
    /// As it is stored.
    pub(crate) fn open(connection: &Connection) -> Result<Self, Cause> {
        let bytes = read(connection)?.into_iter().map(|of| (of.id.0, of.state_bytes)).collect();
        Ok(Self { bytes, before: BTreeMap::new() })
    }

    /// The number of a function, given to it now if it has none yet.
    pub(crate) fn number(&mut self, connection: &Connection, name: &str) -> Result<u32, Cause> {
        let known = connection
            .prepare_cached("SELECT id FROM functions WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()?;
        if let Some(number) = known {
            return Ok(number);
        }
        // The highest one ever, and one more.
        let number: u32 = connection
            .prepare_cached("SELECT coalesce(max(id), 0) + 1 FROM functions")?
            .query_row([], |row| row.get(0))?;
        insert(connection, number, name)?;
        self.bytes.insert(number, 0);
        Ok(number)
    }

    pub(crate) fn state_bytes(&self, function: u32) -> u64 {
        self.bytes.get(&function).copied().unwrap_or(0)
    }

    /// So many bytes of a function's state come, and so many go.
    pub(crate) fn change(&mut self, function: u32, come: u64, go: u64) {
        let bytes = self.bytes.entry(function).or_default();
        self.before.entry(function).or_insert(*bytes);
        // What goes and was not counted is damage that a survey names.
        *bytes = (*bytes + come).saturating_sub(go);
    }

    /// Stores what was changed.
    pub(crate) fn store(&self, connection: &Connection) -> Result<(), Cause> {
        self.before.keys().try_for_each(|function| put(connection, *function, self.state_bytes(*function)))
    }

    /// What was stored is committed.
    pub(crate) fn committed(&mut self) {
        self.before.clear();
    }

    /// It was not.
    pub(crate) fn roll_back(&mut self) {
        self.bytes.append(&mut self.before);
    }
}

/// The checksum over what stands beside the name. Names are compared with their index.
pub(crate) fn checksum(function: u32, state_bytes: i64) -> u32 {
    rows::checksum([i64::from(function), state_bytes].map(i64::to_le_bytes).as_flattened())
}

/// A function that has no state yet.
pub(crate) fn insert(connection: &Connection, number: u32, name: &str) -> Result<(), Cause> {
    connection
        .prepare_cached("INSERT OR IGNORE INTO functions (id, name, checksum, state_bytes) VALUES (?1, ?2, ?3, 0)")?
        .execute((number, name, checksum(number, 0)))?;
    Ok(())
}

/// Stores how much state a function has.
pub(crate) fn put(connection: &Connection, function: u32, state_bytes: u64) -> Result<(), Cause> {
    let state_bytes = rows::integer(state_bytes);
    connection.prepare_cached("UPDATE functions SET checksum = ?2, state_bytes = ?3 WHERE id = ?1")?.execute((
        function,
        checksum(function, state_bytes),
        state_bytes,
    ))?;
    Ok(())
}

/// The number in a row of (id, checksum, state_bytes, ...), checked.
pub(crate) fn state_bytes(row: &rusqlite::Row<'_>) -> Result<u64, String> {
    let (id, bytes): (u32, i64) = (rows::column(row, 0)?, rows::column(row, 2)?);
    if rows::column::<u32>(row, 1)? == checksum(id, bytes) {
        Ok(rows::number(bytes))
    } else {
        Err(format!("function {id}: {bytes} is not the number of bytes of state that was stored"))
    }
}

/// How much state a function has; 0 for a number that was never given.
pub(crate) fn read_one(connection: &Connection, function: u32) -> Result<u64, Cause> {
    let found = connection
        .prepare_cached("SELECT id, checksum, state_bytes FROM functions WHERE id = ?1")?
        .query_row([function], |row| Ok(state_bytes(row)))
        .optional()?;
    found.unwrap_or(Ok(0)).map_err(|what| Damage::Database(what).into())
}

/// Every row of the table, checked.
pub(crate) fn read(connection: &Connection) -> Result<Vec<FunctionUsage>, Cause> {
    let mut statement =
        connection.prepare_cached("SELECT id, checksum, state_bytes, name FROM functions NOT INDEXED ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut functions = Vec::new();
    while let Some(row) = rows.next()? {
        let state_bytes = state_bytes(row).map_err(Damage::Database)?;
        functions.push(FunctionUsage { id: FunctionId(row.get(0)?), name: row.get(3)?, state_bytes });
    }
    Ok(functions)
}

/// Counts the state of all functions anew, where it was put without counting.
pub(crate) fn recount(connection: &Connection) -> Result<(), Cause> {
    let sql = "SELECT function, sum(length(key) + length(value)) FROM state GROUP BY function";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        put(connection, row.get(0)?, rows::number(row.get(1)?))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_committed_never_was() {
        let mut functions = Functions::default();
        functions.change(1, 10, 0);
        functions.committed();
        functions.change(1, 5, 3);
        functions.change(2, 7, 0);
        assert_eq!((functions.state_bytes(1), functions.state_bytes(2)), (12, 7));
        functions.roll_back();
        assert_eq!((functions.state_bytes(1), functions.state_bytes(2)), (10, 0));
    }
}
