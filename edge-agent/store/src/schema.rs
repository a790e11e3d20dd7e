//! The database file: its tables, how it is opened, and how it comes to be.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use crate::error::{Cause, Damage, ErrorKind};
use crate::queue::Queue;
use crate::rows;
use crate::streams::Streams;

/// "EDGE" in ASCII, so that `file` and we tell a store from another program's database.
const APPLICATION_ID: i64 = 0x4544_4745;

/// What leads from each version to the next; `user_version` is how many of them a database has seen. What was released
/// is never edited.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE meta (name TEXT PRIMARY KEY, checksum INTEGER NOT NULL, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE functions (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, checksum INTEGER NOT NULL, state_bytes INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE state (
        function INTEGER NOT NULL, partition TEXT NOT NULL, key BLOB NOT NULL,
        expires_us INTEGER, checksum INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (function, partition, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX state_expiring ON state (expires_us) WHERE expires_us IS NOT NULL;
    CREATE TABLE seen (
        function INTEGER NOT NULL, partition TEXT NOT NULL, source TEXT NOT NULL,
        checksum INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (function, partition, source)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE outbox_normal (
        id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, last INTEGER, stream INTEGER,
        checksum INTEGER NOT NULL, body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX outbox_normal_gone ON outbox_normal (id) WHERE kind = 1;
    CREATE TABLE outbox_high (
        id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, last INTEGER, stream INTEGER,
        checksum INTEGER NOT NULL, body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX outbox_high_gone ON outbox_high (id) WHERE kind = 1;
    CREATE TABLE streams (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, checksum INTEGER NOT NULL,
        records INTEGER NOT NULL, bytes INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE boots (
        boot INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, base_us INTEGER NOT NULL, last_us INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE publishes (id INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, body BLOB NOT NULL) STRICT;
    CREATE TABLE dead_letters (
        id INTEGER PRIMARY KEY AUTOINCREMENT, checksum INTEGER NOT NULL, digest BLOB, body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX dead_letters_digest ON dead_letters (digest) WHERE digest IS NOT NULL;
    CREATE TABLE deployments (
        function TEXT PRIMARY KEY, checksum INTEGER NOT NULL, value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE missing (id INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, body BLOB NOT NULL) STRICT;
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, due_us INTEGER NOT NULL,
        checksum INTEGER NOT NULL, digest BLOB, body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX messages_due ON messages (queue, due_us, id);
    CREATE INDEX messages_digest ON messages (digest) WHERE digest IS NOT NULL;
    CREATE TABLE schedules (
        function TEXT NOT NULL, schedule TEXT NOT NULL, checksum INTEGER NOT NULL, up_to_us INTEGER NOT NULL,
        PRIMARY KEY (function, schedule)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE usage (id INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, body BLOB NOT NULL) STRICT;
    CREATE TABLE blobs (
        name TEXT PRIMARY KEY, digest BLOB NOT NULL, checksum INTEGER NOT NULL, body BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX blobs_digest ON blobs (digest);
    CREATE TABLE contents (
        digest BLOB PRIMARY KEY, checksum INTEGER NOT NULL, bytes INTEGER NOT NULL, unused INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX contents_unused ON contents (digest) WHERE unused = 1;
    CREATE TABLE watched (path TEXT PRIMARY KEY, checksum INTEGER NOT NULL, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
"];

/// Tables without which there is no store.
const TABLES: [&str; 18] = [
    "meta",
    "functions",
    "state",
    "seen",
    "outbox_normal",
    "outbox_high",
    "streams",
    "boots",
    "publishes",
    "dead_letters",
    "deployments",
    "missing",
    "messages",
    "schedules",
    "usage",
    "blobs",
    "contents",
    "watched",
];

/// Names in `meta`: up to which row of `missing` the control plane was told; the month that is metered (see
/// [`agent_core::pace::Metered`]); the bytes of that; and the last command of the control plane that was carried out.
pub(crate) const MISSING_TOLD: &str = "missing_told";
pub(crate) const METERED_MONTH: &str = "metered_month";
pub(crate) const METERED_BYTES: &str = "metered_bytes";
pub(crate) const COMMANDS_DONE: &str = "commands_done";
/// How many blobs there are, and the bytes of all contents.
pub(crate) const BLOBS: &str = "blobs";
pub(crate) const BLOB_BYTES: &str = "blob_bytes";

/// The size of a page, which SQLite's build sets.
pub(crate) const PAGE_BYTES: usize = 4_096;

/// Pages in the write-ahead log at which a commit also carries it over into the database: some 1 MB. Larger makes the
/// pause of that one commit longer (1,000 pages take 10 ms, 4,096 pages 40 to 70), and gains nothing that was measured.
const CHECKPOINT_PAGES: i64 = 250;

/// To what size in bytes the log's file is cut after it has grown beyond: 16 times what it has when nothing holds a
/// checkpoint back and commits are small, so that it is not cut and grown again all the time. A reader holds one back only for
/// the length of one call, since none keeps a statement open between two.
const LOG_BYTES: i64 = 16 * CHECKPOINT_PAGES * PAGE_BYTES as i64;

/// How long a statement waits for a lock. Nobody of ours holds one for long; a person with a SQLite shell might.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Prepared statements kept for each connection; we have some 60.
const STATEMENTS: usize = 96;

/// The writer's connection, the store migrated where needed, and created if it may begin here. Until [`accept`] is called, closing it leaves
/// the log as it is: what turns out to be damaged is kept as it was found.
pub(crate) fn open_writer(path: &Path, begins: bool) -> Result<Connection, Cause> {
    let mut connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Before anything is written: it may be somebody else's.
    let version = check_identity(&connection)?;
    if version == 0 && !begins {
        return Err(Damage::Database("it is empty, and there was a store in it".into()).into());
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Cause::NoWal(mode));
    }
    connection.execute_batch(&format!(
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF;
         PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}; PRAGMA journal_size_limit = {LOG_BYTES};"
    ))?;
    if version < MIGRATIONS.len() {
        migrate(&mut connection, version)?;
    }
    check_tables(&connection)?;
    Ok(connection)
}

/// Everything was found to be well: the log is carried over into the database and begins anew, and closing the connection
/// does so, too.
///
/// A sync that failed may have left in the log what looks whole and is not on the disk, and no later sync brings it there: to
/// Linux a page is clean after it could not be written. So what is seen of it is written once more, elsewhere.
pub(crate) fn accept(connection: &Connection) -> Result<(), Cause> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    // If another connection reads, it may stay undone, which is no error: others only have a log open that was whole before.
    match connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(Cause::from) {
        // There may be room again before the next commit needs it.
        Err(error) if error.kind() == ErrorKind::Full => Ok(()),
        done => done,
    }
}

/// A connection that looks at a store without changing a byte of it, whether somebody writes it or not.
///
/// Whoever writes has the index of the log beside it, and a reader shares it. Without that index nobody is there: then
/// the files are read without locks and without the index, which SQLite would otherwise create.
pub(crate) fn open_survey(path: &Path) -> Result<Connection, Cause> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        Path::new(&name).exists()
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = if beside("-shm") {
        Connection::open_with_flags(path, flags)?
    } else if beside("-wal") {
        let connection = Connection::open_with_flags_and_vfs(path, flags, c"unix-none")?;
        connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE;")?;
        connection
    } else {
        let mut uri = String::from("file:");
        for byte in path.as_os_str().as_encoded_bytes() {
            match byte {
                b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
                _ => uri.push_str(&format!("%{byte:02x}")),
            }
        }
        uri.push_str("?immutable=1");
        Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?
    };
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    set_up(&connection)?;
    connection.execute_batch("PRAGMA query_only = ON;")?;
    Ok(connection)
}

/// A reader's connection to a store that is open.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, Cause> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.execute_batch("PRAGMA query_only = ON;")?;
    Ok(connection)
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, Cause> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    set_up(&connection)?;
    Ok(connection)
}

fn set_up(connection: &Connection) -> Result<(), Cause> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Otherwise a statement with a bound LIMIT is prepared anew each time that it has another.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Without mapping, a bad sector is an error; with it, a signal. Cells are checked so that a damaged page is
    // reported instead of believed.
    connection.execute_batch("PRAGMA mmap_size = 0; PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF;")?;
    Ok(())
}

/// How many migrations the database has seen, if it is a store that we know.
pub(crate) fn check_identity(connection: &Connection) -> Result<usize, Cause> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let (application, version) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
    if (application, version) == (0, 0) && number("SELECT count(*) FROM sqlite_schema")? == 0 {
        return Ok(0);
    }
    if application != APPLICATION_ID {
        return Err(Cause::Foreign(application));
    }
    match usize::try_from(version) {
        Ok(known) if (1..=MIGRATIONS.len()).contains(&known) => Ok(known),
        Ok(0) | Err(_) => Err(Damage::Database(format!("its version is {version}")).into()),
        Ok(_) => Err(Cause::Newer { found: version, known: MIGRATIONS.len() as i64 }),
    }
}

/// How many migrations the database has seen, if that can be read.
pub(crate) fn version(connection: &Connection) -> Result<i64, Cause> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Brings the tables up to date in one transaction, and gives a new database its epoch.
fn migrate(connection: &mut Connection, from: usize) -> Result<(), Cause> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for migration in &MIGRATIONS[from..] {
        transaction.execute_batch(migration)?;
    }
    if from == 0 {
        set_meta(&transaction, "epoch", new_epoch(0)?)?;
        let numbers = ["dead_letters", "messages", MISSING_TOLD, METERED_MONTH, METERED_BYTES, COMMANDS_DONE];
        for name in numbers.into_iter().chain([BLOBS, BLOB_BYTES]) {
            set_meta(&transaction, name, 0)?;
        }
        Streams::create(&transaction)?;
        for queue in Queue::ALL {
            set_meta(&transaction, queue.sql().table, 0)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    transaction.commit()?;
    Ok(())
}

/// An epoch above that of the store whose place it takes (0: of none): events that the gateway itself numbers carry the
/// epoch, and what is far below the newest one counts as too old to be known.
pub(crate) fn new_epoch(old: u64) -> Result<u64, Cause> {
    // Half of all numbers for a first one, so that there is always room above; 2^32 for each that follows.
    let drawn = getrandom::u64().map_err(Cause::Random)?;
    let step = if old == 0 { drawn >> 1 } else { drawn >> 32 };
    Ok(old.saturating_add(step).saturating_add(1))
}

/// Whether all tables are there, and the small ones whole. The large ones are checked row by row, when they are read.
/// Of `functions` this compares each name with its copy in the index: a name that changed would cost a function its
/// state without a word.
fn check_tables(connection: &Connection) -> Result<(), Cause> {
    for table in TABLES {
        let there = connection
            .query_row("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1", [table], |_| Ok(()))
            .optional()?;
        if there.is_none() {
            return Err(Damage::Database(format!("the table {table} is missing")).into());
        }
    }
    for table in ["meta", "functions", "deployments", "streams", "boots"] {
        let verdict: String =
            connection.query_row(&format!("PRAGMA integrity_check('{table}')"), [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(Damage::Database(format!("the table {table}: {verdict}")).into());
        }
    }
    Ok(())
}

/// A number of `meta`.
pub(crate) fn meta(connection: &Connection, name: &str) -> Result<u64, Cause> {
    let row: Option<(i64, u32)> = connection
        .prepare_cached("SELECT value, checksum FROM meta WHERE name = ?1")?
        .query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match row {
        Some((value, checksum)) if checksum == meta_checksum(name, value) => Ok(rows::number(value)),
        Some((value, _)) => {
            Err(Damage::Database(format!("{value} is not the number that was stored for {name}")).into())
        }
        None => Err(Damage::Database(format!("the number {name} is missing")).into()),
    }
}

/// Stores a number of `meta`.
pub(crate) fn set_meta(connection: &Connection, name: &str, value: u64) -> Result<(), Cause> {
    let value = rows::integer(value);
    connection.prepare_cached("REPLACE INTO meta (name, checksum, value) VALUES (?1, ?2, ?3)")?.execute((
        name,
        meta_checksum(name, value),
        value,
    ))?;
    Ok(())
}

fn meta_checksum(name: &str, value: i64) -> u32 {
    rows::named_checksum(name, &value.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the promises rest on.
    #[test]
    fn connections_are_set_as_they_should_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let (writer, reader) = (open_writer(&path, true).unwrap(), open_reader(&path).unwrap());
        let number = |connection: &Connection, name: &str| {
            connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0)).unwrap()
        };
        let mode: String = writer.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!((mode.as_str(), number(&writer, "synchronous")), ("wal", 2));
        for connection in [&writer, &reader] {
            assert_eq!(number(connection, "cell_size_check"), 1);
        }
        assert!(reader.execute_batch("DELETE FROM meta").is_err());
    }
}
