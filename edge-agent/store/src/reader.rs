//! The ones that read.

use std::path::{Path, PathBuf};

use agent_core::StateValue;
use agent_core::pace::Metered;
use rusqlite::{Connection, OptionalExtension, Params};
use sync_protocol::records::MAX_RANGE_BYTES;

use crate::blobs::{Blob, ContentDigest, WatchedFile};
use crate::boots::Boot;
use crate::error::{Cause, Damage, StoreError};
use crate::functions::{self, FunctionUsage};
use crate::messages::Message;
use crate::queue::Queue;
use crate::schedules::Scheduled;
use crate::streams::StreamUsage;
use crate::write::{DeadLetter, Deployment, Missing, Publish};
use crate::{blobs, boots, messages, rows, schedules, schema, streams};
use agent_core::FunctionId;

mod outbox;

pub use outbox::{Head, Heads, Outbox, Untold};

/// Most bytes that [`Reader::publishes`] and [`Reader::dead_letters`] take into memory, a first row that is larger not
/// counted: what a range of records takes.
pub const MAX_READ_BYTES: usize = MAX_RANGE_BYTES;

/// A reading side of a store, with a connection of its own. No call leaves anything open, so that no reader keeps the
/// write-ahead log from being carried over.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
    // Rows of `missing` up to here need not be told.
    told: u64,
}

impl Reader {
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = schema::open_reader(path).map_err(|cause| cause.in_operation("open for reading", path))?;
        Ok(Self { connection, path: path.to_owned(), told: 0 })
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(Cause) -> StoreError {
        move |cause| cause.in_operation(operation, &self.path)
    }

    /// What `read` sees is of one moment, between two commits.
    fn snapshot<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Cause>) -> Result<T, Cause> {
        // Checked by nobody, but none is ever open: each ends before its call does.
        let transaction = self.connection.unchecked_transaction()?;
        read(&transaction)
    }

    /// A value of a function's state; `None` if there is none. One that has ended is still there until it is deleted.
    ///
    /// # Errors
    /// If the value is damaged, or the disk fails.
    pub fn state(
        &mut self,
        function: FunctionId,
        partition: &str,
        key: &[u8],
    ) -> Result<Option<StateValue>, StoreError> {
        self.read_state(function, partition, key)
            .map_err(|cause| {
                cause.or_damage(|what| Damage::State {
                    function: function.0,
                    partition: partition.into(),
                    key: key.into(),
                    what,
                })
            })
            .map_err(self.failed("read state from"))
    }

    fn read_state(
        &self,
        FunctionId(function): FunctionId,
        partition: &str,
        key: &[u8],
    ) -> Result<Option<StateValue>, RowError> {
        let sql = "SELECT checksum, value, expires_us FROM state WHERE function = ?1 AND partition = ?2 AND key = ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query((function, partition, key))?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let expires_us: Option<i64> = rows::column(row, 2).map_err(RowError::Damaged)?;
        let checksum = |value: &[u8]| rows::state_checksum(function, partition, key, expires_us, value);
        let bytes = rows::checked_by(row, 0, 1, checksum).map_err(RowError::Damaged)?;
        Ok(Some(StateValue { bytes: bytes.into(), expires_us: expires_us.map(rows::number) }))
    }

    /// The first key of a function's state that begins with `prefix` and comes after `after`, bytewise, and has a value for an
    /// event of this time.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn next_key(
        &mut self,
        function: FunctionId,
        partition: &str,
        prefix: &[u8],
        after: &[u8],
        time_us: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || -> Result<Option<Vec<u8>>, Cause> {
            // A key that is the prefix itself is the first of them.
            let sql = if after < prefix {
                "SELECT key FROM state WHERE function = ?1 AND partition = ?2 AND key >= ?3 \
                 AND (expires_us IS NULL OR expires_us > ?4) ORDER BY key LIMIT 1"
            } else {
                "SELECT key FROM state WHERE function = ?1 AND partition = ?2 AND key > ?3 \
                 AND (expires_us IS NULL OR expires_us > ?4) ORDER BY key LIMIT 1"
            };
            let found: Option<Vec<u8>> = self
                .connection
                .prepare_cached(sql)?
                .query_row((function.0, partition, after.max(prefix), rows::bound(time_us)), |row| row.get(0))
                .optional()?;
            Ok(found.filter(|key| key.starts_with(prefix)))
        };
        read().map_err(self.failed("look for a key of the state in"))
    }

    /// Bytes of the keys and values of a function's state, over all partitions; 0 for a number that was never given.
    ///
    /// # Errors
    /// If the number is damaged, or the disk fails.
    pub fn state_bytes(&mut self, function: FunctionId) -> Result<u64, StoreError> {
        functions::read_one(&self.connection, function.0).map_err(self.failed("read how much state there is in"))
    }

    /// Every function that ever had a number, with how much state it has; in the order of their numbers.
    ///
    /// # Errors
    /// If the table is damaged, or the disk fails.
    pub fn functions(&mut self) -> Result<Vec<FunctionUsage>, StoreError> {
        functions::read(&self.connection).map_err(self.failed("read the functions of"))
    }

    /// Whether there are values of state that no event of this time or later finds.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn has_ended_state(&mut self, time_us: u64) -> Result<bool, StoreError> {
        let read = || -> Result<bool, Cause> {
            let sql = "SELECT EXISTS (SELECT 1 FROM state WHERE expires_us <= ?1)";
            Ok(self.connection.prepare_cached(sql)?.query_row([rows::bound(time_us)], |row| row.get(0))?)
        };
        read().map_err(self.failed("look for state that has ended in"))
    }

    /// The bytes of [`agent_core::dedup::Seen`] for a source; `None` if it was never heard.
    ///
    /// # Errors
    /// If they are damaged, or the disk fails.
    pub fn seen(&mut self, function: FunctionId, partition: &str, source: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT checksum, value FROM seen WHERE function = ?1 AND partition = ?2 AND source = ?3";
        self.keyed(sql, (function.0, partition, source), |value| {
            rows::keyed_checksum(function.0, partition, source.as_bytes(), value)
        })
        .map_err(|cause| {
            cause.or_damage(|what| Damage::Seen {
                function: function.0,
                partition: partition.into(),
                of: source.into(),
                what,
            })
        })
        .map_err(self.failed("read handled events from"))
    }

    fn keyed(
        &self,
        sql: &str,
        key: impl Params,
        checksum: impl FnOnce(&[u8]) -> u32,
    ) -> Result<Option<Vec<u8>>, RowError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(key)?;
        match rows.next()? {
            None => Ok(None),
            Some(row) => {
                rows::checked_by(row, 0, 1, checksum).map(|value| Some(value.to_vec())).map_err(RowError::Damaged)
            }
        }
    }

    /// How much of each stream is stored; the first row stands for what [`MAX_STREAMS`](crate::MAX_STREAMS) left over.
    ///
    /// # Errors
    /// If the table is damaged, or the disk fails.
    pub fn usage(&mut self) -> Result<Vec<StreamUsage>, StoreError> {
        streams::read(&self.connection).map_err(self.failed("read the streams of"))
    }

    /// The system's starts that are remembered, the latest last. One that is damaged is left out.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn boots(&mut self) -> Result<Vec<Boot>, StoreError> {
        boots::read(&self.connection).map(|(boots, _)| boots).map_err(self.failed("read the starts of the system in"))
    }

    /// What was used of a metered link, as [`Write::Metered`](crate::Write::Metered) said last.
    ///
    /// # Errors
    /// If it is damaged, or the disk fails.
    pub fn metered(&mut self) -> Result<Metered, StoreError> {
        let read = || {
            let month = schema::meta(&self.connection, schema::METERED_MONTH)?;
            let bytes = schema::meta(&self.connection, schema::METERED_BYTES)?;
            Ok(Metered { month: u32::try_from(month).unwrap_or(u32::MAX), bytes })
        };
        read().map_err(self.failed("read what was metered in"))
    }

    /// The publishes after `after`, without those that were handed over, in order: at most `max`, and no more than
    /// [`MAX_READ_BYTES`].
    ///
    /// # Errors
    /// If the first of them is damaged or missing (a later one ends the list before it), or if the disk fails.
    pub fn publishes(&mut self, after: u64, max: usize) -> Result<Vec<Publish>, StoreError> {
        let mut publishes = Vec::new();
        self.snapshot(|connection| {
            Queue::Publishes.read(connection, after, max, MAX_READ_BYTES, |row| {
                publishes.push(rows::read_publish(row.id, row.body)?);
                Ok(())
            })
        })
        .map_err(self.failed("read publishes from"))?;
        Ok(publishes)
    }

    /// The dead letters with an id above `after`, in order: at most `max`, and no more than [`MAX_READ_BYTES`].
    ///
    /// # Errors
    /// If the first of them is damaged (a later one ends the list before it), or if the disk fails.
    pub fn dead_letters(&mut self, after: u64, max: usize) -> Result<Vec<DeadLetter>, StoreError> {
        self.read_dead_letters(after, max).map_err(self.failed("read dead letters from"))
    }

    fn read_dead_letters(&self, after: u64, max: usize) -> Result<Vec<DeadLetter>, Cause> {
        let sql = "SELECT id, checksum, body FROM dead_letters WHERE id > ?1 ORDER BY id LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query((rows::bound(after), rows::bound(max as u64)))?;
        let (mut letters, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let id = rows::number(row.get(0)?);
            match rows::checked(row, 1, 2).and_then(|body| Ok((body.len(), rows::read_dead_letter(id, body)?))) {
                Ok((size, _)) if !letters.is_empty() && bytes + size > MAX_READ_BYTES => break,
                Ok((size, letter)) => {
                    bytes += size;
                    letters.push(letter);
                }
                Err(what) if letters.is_empty() => return Err(Damage::DeadLetter { id, what }.into()),
                Err(_) => break,
            }
        }
        Ok(letters)
    }

    /// At most `max` messages of a queue that are due at this time by the wall clock, those first that have been for longest;
    /// and when the next one is due after them, if there is one.
    ///
    /// # Errors
    /// If one of them is damaged, with [`StoreError::damage`] naming its id, or if the disk fails.
    pub fn messages(
        &mut self,
        queue: &str,
        now_us: u64,
        max: usize,
    ) -> Result<(Vec<Message>, Option<u64>), StoreError> {
        messages::due(&self.connection, queue, now_us, max).map_err(self.failed("read messages from"))
    }

    /// The queues of HTTP requests that hold any, in order.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn request_queues(&mut self) -> Result<Vec<String>, StoreError> {
        messages::request_queues(&self.connection).map_err(self.failed("look for requests in"))
    }

    /// How many HTTP requests have no answer yet; `max`, if there are more.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn request_count(&mut self, max: usize) -> Result<u64, StoreError> {
        messages::requests(&self.connection, max).map_err(self.failed("count the requests in"))
    }

    /// How many messages wait, due or not.
    ///
    /// # Errors
    /// If the count is damaged, or the disk fails.
    pub fn message_count(&mut self) -> Result<u64, StoreError> {
        schema::meta(&self.connection, "messages").map_err(self.failed("count the messages of"))
    }

    /// What has this name, a bucket and a name in it; `None` if nothing does.
    ///
    /// # Errors
    /// If the row is damaged, or the disk fails.
    pub fn blob(&mut self, name: &str) -> Result<Option<Blob>, StoreError> {
        blobs::get(&self.connection, name).map_err(self.failed("read a blob of"))
    }

    /// How many blobs there are, and the bytes of all contents.
    ///
    /// # Errors
    /// If a count is damaged, or the disk fails.
    pub fn blob_usage(&mut self) -> Result<(u64, u64), StoreError> {
        let read = || {
            Ok((schema::meta(&self.connection, schema::BLOBS)?, schema::meta(&self.connection, schema::BLOB_BYTES)?))
        };
        read().map_err(self.failed("count the blobs of"))
    }

    /// Whether something refers to a content.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn is_used(&mut self, content: &ContentDigest) -> Result<bool, StoreError> {
        blobs::is_used(&self.connection, content).map_err(self.failed("look for a content in"))
    }

    /// At most `max` contents that nothing refers to.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn unused_contents(&mut self, max: usize) -> Result<Vec<ContentDigest>, StoreError> {
        blobs::unused(&self.connection, max).map_err(self.failed("look for contents in"))
    }

    /// The files of watched folders that were stored, by path. One that is damaged is left out.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn watched(&mut self) -> Result<Vec<(String, WatchedFile)>, StoreError> {
        blobs::watched(&self.connection).map(|(files, _)| files).map_err(self.failed("read the watched files in"))
    }

    /// Up to which moments schedules were served. One that is damaged is left out.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn schedules(&mut self) -> Result<Vec<Scheduled>, StoreError> {
        schedules::read(&self.connection).map(|(schedules, _)| schedules).map_err(self.failed("read the schedules in"))
    }

    /// The number of the last command of the control plane that was carried out; 0: none was.
    ///
    /// # Errors
    /// If it is damaged, or the disk fails.
    pub fn commands_done(&mut self) -> Result<u64, StoreError> {
        schema::meta(&self.connection, schema::COMMANDS_DONE).map_err(self.failed("read which commands were done in"))
    }

    /// How many dead letters are stored.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn dead_letter_count(&mut self) -> Result<u64, StoreError> {
        schema::meta(&self.connection, "dead_letters").map_err(self.failed("count the dead letters of"))
    }

    /// Ranges that are lost, with an id that grows, above `after`: at most `max`, which bounds what is taken into
    /// memory, for each is small.
    ///
    /// # Errors
    /// If one of them is damaged, or the disk fails.
    pub fn missing(&mut self, after: u64, max: usize) -> Result<Vec<(u64, Missing)>, StoreError> {
        self.read_missing(after, max).map_err(self.failed("read what is missing from"))
    }

    fn read_missing(&self, after: u64, max: usize) -> Result<Vec<(u64, Missing)>, Cause> {
        let sql = "SELECT id, checksum, body FROM missing WHERE id > ?1 ORDER BY id LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query((rows::bound(after), rows::bound(max as u64)))?;
        let mut missing = Vec::new();
        while let Some(row) = rows.next()? {
            let id = rows::number(row.get(0)?);
            match rows::checked(row, 1, 2).and_then(rows::read_missing) {
                Ok(range) => missing.push((id, range)),
                Err(what) => return Err(Damage::Database(format!("row {id} of the table missing: {what}")).into()),
            }
        }
        Ok(missing)
    }

    /// What runs, by the functions' names. There are as many as were deployed on this gateway.
    ///
    /// # Errors
    /// If one of them is damaged, or the disk fails.
    pub fn deployments(&mut self) -> Result<Vec<(String, Deployment)>, StoreError> {
        read_deployments(&self.connection).map_err(self.failed("read deployments from"))
    }
}

/// Every row of the table, checked.
pub(crate) fn read_deployments(connection: &Connection) -> Result<Vec<(String, Deployment)>, Cause> {
    let sql = "SELECT function, checksum, value FROM deployments ORDER BY function";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut deployments = Vec::new();
    while let Some(row) = rows.next()? {
        let function: String = row.get(0)?;
        match rows::checked_by(row, 1, 2, |value| rows::named_checksum(&function, value))
            .and_then(rows::read_deployment)
        {
            Ok(deployment) => deployments.push((function, deployment)),
            Err(what) => return Err(Damage::Deployment { function, what }.into()),
        }
    }
    Ok(deployments)
}

/// Why a row cannot be read, before it is said which one it was.
enum RowError {
    Sqlite(rusqlite::Error),
    Damaged(String),
}

impl From<rusqlite::Error> for RowError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl RowError {
    fn or_damage(self, name: impl FnOnce(String) -> Damage) -> Cause {
        match self {
            Self::Sqlite(error) => error.into(),
            Self::Damaged(what) => name(what).into(),
        }
    }
}
