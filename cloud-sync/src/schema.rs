//! The tables, and how older ones become these.

use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite says no.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A newer program wrote it.
    #[error(
        "it was written by a newer cloud-sync (version {found} of its tables; this one knows {known}): use that one"
    )]
    Newer {
        /// What it says.
        found: i64,
        /// What this program knows.
        known: i64,
    },
    /// No thread for it.
    #[error("no thread could be started for it: {0}")]
    Thread(io::Error),
}

/// Step `n` leads from `user_version` n to n + 1. Steps that were released are never edited.
///
/// Numbers of 64 bits without a sign are stored as SQLite's signed ones, bit by bit: epochs, boots, event identities
/// and the stamps, so that each comes back as it was sent. Sequences are checked to fit.
///
/// Of each (gateway, epoch, class), all sequences up to the mark and in the islands are known: stored, missing, or in a
/// tombstone. A run of what is gone that has records stored in between is several tombstones: the first holds the
/// tally of all, the others hold NULL.
///
/// Of each device's property, `twins` has the record of the latest report.
///
/// A dead letter has no record if only its end became known. What is to be done with it is in `wanted` and waits for as
/// long as its `command` is there.
const STEPS: [&str; 1] = ["
CREATE TABLE gateways (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    credential_hash BLOB NOT NULL UNIQUE,
    agent_version TEXT NOT NULL,
    enrolled_us INTEGER NOT NULL,
    last_seen_us INTEGER,
    generation INTEGER NOT NULL,
    commands INTEGER NOT NULL DEFAULT 0,
    reported TEXT,
    stored INTEGER NOT NULL DEFAULT 0,
    duplicates INTEGER NOT NULL DEFAULT 0,
    missing INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0,
    conflicts INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE labels (
    gateway INTEGER NOT NULL REFERENCES gateways,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (gateway, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX labels_by_pair ON labels (key, value);
CREATE TABLE claims (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    hash BLOB NOT NULL UNIQUE,
    salt BLOB NOT NULL,
    labels TEXT NOT NULL,
    expires_us INTEGER NOT NULL,
    gateway INTEGER REFERENCES gateways,
    nonce_hash BLOB
) STRICT;
CREATE TABLE publishers (
    key_id TEXT PRIMARY KEY,
    public_key TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE functions (
    key INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    size INTEGER NOT NULL,
    signature TEXT NOT NULL,
    verified INTEGER NOT NULL,
    pushed_us INTEGER NOT NULL,
    UNIQUE (name, version)
) STRICT;
CREATE TABLE packages (
    function INTEGER PRIMARY KEY REFERENCES functions,
    bytes BLOB NOT NULL
) STRICT;
CREATE TABLE deployments (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    target TEXT NOT NULL,
    function INTEGER REFERENCES functions,
    config TEXT NOT NULL,
    created_us INTEGER NOT NULL
) STRICT;
CREATE INDEX deployments_newest ON deployments (name, target, number);
CREATE TABLE marks (
    gateway INTEGER NOT NULL REFERENCES gateways,
    epoch INTEGER NOT NULL,
    class INTEGER NOT NULL,
    high_water INTEGER NOT NULL,
    PRIMARY KEY (gateway, epoch, class)
) STRICT, WITHOUT ROWID;
CREATE TABLE missing (
    gateway INTEGER NOT NULL REFERENCES gateways,
    epoch INTEGER NOT NULL,
    class INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (gateway, epoch, class, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE islands (
    gateway INTEGER NOT NULL REFERENCES gateways,
    epoch INTEGER NOT NULL,
    class INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (gateway, epoch, class, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE tombstones (
    gateway INTEGER NOT NULL REFERENCES gateways,
    epoch INTEGER NOT NULL,
    class INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    tally BLOB,
    told_us INTEGER NOT NULL,
    PRIMARY KEY (gateway, epoch, class, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE sums (
    gateway INTEGER NOT NULL REFERENCES gateways,
    stream TEXT NOT NULL,
    what INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (gateway, stream, what)
) STRICT, WITHOUT ROWID;
CREATE TABLE streams (
    key INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    records INTEGER NOT NULL
) STRICT;
CREATE TABLE records (
    key INTEGER PRIMARY KEY,
    gateway INTEGER NOT NULL REFERENCES gateways,
    epoch INTEGER NOT NULL,
    class INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    stream INTEGER NOT NULL REFERENCES streams,
    function TEXT NOT NULL,
    device TEXT NOT NULL,
    topic TEXT NOT NULL,
    boot_epoch INTEGER,
    event_sequence INTEGER,
    wall_us INTEGER NOT NULL,
    monotonic_us INTEGER NOT NULL,
    boot INTEGER NOT NULL,
    synchronised INTEGER NOT NULL,
    received_us INTEGER NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (gateway, epoch, class, sequence)
) STRICT;
CREATE INDEX records_by_stream ON records (stream);
CREATE INDEX records_by_device ON records (device);
CREATE TABLE dead_letters (
    key INTEGER PRIMARY KEY,
    gateway INTEGER NOT NULL REFERENCES gateways,
    letter INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    record INTEGER REFERENCES records,
    function TEXT,
    kind TEXT,
    reason TEXT,
    wanted TEXT,
    command INTEGER,
    resolved TEXT,
    UNIQUE (gateway, letter, epoch)
) STRICT;
CREATE INDEX dead_letters_open ON dead_letters (key) WHERE resolved IS NULL;
CREATE INDEX dead_letters_of_gateway ON dead_letters (gateway, key) WHERE resolved IS NULL;
CREATE INDEX dead_letters_of_function ON dead_letters (function, key) WHERE resolved IS NULL;
CREATE TABLE twins (
    key INTEGER PRIMARY KEY,
    gateway INTEGER NOT NULL REFERENCES gateways,
    device TEXT NOT NULL,
    property TEXT NOT NULL,
    record INTEGER NOT NULL REFERENCES records,
    UNIQUE (gateway, device, property)
) STRICT;
CREATE TABLE usage (
    gateway INTEGER NOT NULL REFERENCES gateways,
    hour INTEGER NOT NULL,
    function TEXT NOT NULL,
    device TEXT NOT NULL,
    invocations INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    fuel INTEGER NOT NULL,
    busy_ns INTEGER NOT NULL,
    memory_peak INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    state_peak INTEGER NOT NULL,
    PRIMARY KEY (gateway, hour, function, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_by_hour ON usage (hour);
CREATE TABLE metrics (
    gateway INTEGER NOT NULL REFERENCES gateways,
    hour INTEGER NOT NULL,
    function TEXT NOT NULL,
    name TEXT NOT NULL,
    kind INTEGER NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (gateway, hour, function, name, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX metrics_by_hour ON metrics (hour);
CREATE TABLE commands (
    gateway INTEGER NOT NULL REFERENCES gateways,
    number INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    action TEXT NOT NULL,
    letters TEXT NOT NULL,
    PRIMARY KEY (gateway, number)
) STRICT, WITHOUT ROWID;
"];

/// The connection that writes. WAL, and a commit returns when it is on the disk.
pub(crate) fn open(path: &Path) -> Result<Connection, OpenError> {
    let connection = Connection::open(path)?;
    configure(&connection)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

/// A connection that reads. (It may have to write the shared memory of the WAL, but no table.)
pub(crate) fn open_read_only(path: &Path) -> Result<Connection, OpenError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    configure(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn configure(connection: &Connection) -> Result<(), OpenError> {
    // A backup by SQLite's own tool may hold a lock for a moment.
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    // Otherwise a statement with a bound LIMIT is prepared anew each time that it has another.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // 16 MiB of pages: the indices' inner pages of some ten million records.
    connection.pragma_update(None, "cache_size", -16_384)?;
    Ok(())
}

/// Brings the tables up to date, in one transaction.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let transaction = connection.transaction()?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = i64::try_from(STEPS.len()).expect("there are few steps");
    let done = usize::try_from(found).ok().filter(|done| *done <= STEPS.len());
    let done = done.ok_or(OpenError::Newer { found, known })?;
    for step in &STEPS[done..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_made_once_and_newer_ones_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut connection = open(&path).unwrap();
        migrate(&mut connection).unwrap();
        migrate(&mut connection).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(migrate(&mut connection), Err(OpenError::Newer { found: 99, known: 1 })));
        assert!(open_read_only(&path).unwrap().execute("DELETE FROM records", []).is_err());
    }
}
