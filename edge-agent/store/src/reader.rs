//! The ones that read.

use std::path::{Path, PathBuf};

use agent_core::pace::Metered;
use rusqlite::{Connection, OptionalExtension, Params};
use sync_protocol::records::{Class, Entry, MAX_RANGE_BYTES, Range, Stamp, StoreEpoch};

use crate::boots::Boot;
use crate::error::{Cause, Damage, StoreError};
use crate::messages::Message;
use crate::queue::{Kind, Queue, Row};
use crate::schedules::Scheduled;
use crate::streams::{OTHERS, StreamUsage};
use crate::tiles::Run;
use crate::write::{DeadLetter, Deployment, Missing, Publish};
use crate::{boots, messages, rows, schedules, schema, streams, tiles};
use agent_core::FunctionId;

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

/// The beginning of a record that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its sequence.
    pub sequence: u64,
    /// The room it takes, in bytes.
    pub bytes: u64,
    /// When it was made.
    pub stamp: Stamp,
}

/// Beginnings of records of one class, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Those that were asked for and are whole.
    pub heads: Vec<Head>,
    /// Everything up to this sequence was looked at.
    pub seen_to: u64,
}

/// Records that were lost with a store whose place this one took, and that the control plane has not heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Untold {
    /// For [`Write::Told`](crate::Write::Told).
    pub id: u64,
    /// The life of the store that numbered them.
    pub epoch: StoreEpoch,
    /// Their class.
    pub class: Class,
    /// The first sequence.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// What waits for the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outbox {
    // By `Class::number`.
    classes: [Waiting; 2],
}

/// What waits of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The lowest sequence that the control plane does not know of, or the next one if there is none: below it nothing
    /// exists any more.
    pub first: u64,
    /// The sequence that the next record will have.
    pub next: u64,
}

impl Outbox {
    /// What waits of a class.
    pub fn class(&self, class: Class) -> Waiting {
        self.classes[usize::from(class.number())]
    }
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

    /// A value of a function's state; `None` if there is none.
    ///
    /// # Errors
    /// If the value is damaged, or the disk fails.
    pub fn state(&mut self, function: FunctionId, partition: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT checksum, value FROM state WHERE function = ?1 AND partition = ?2 AND key = ?3";
        self.keyed(sql, (function.0, partition, key), |value| rows::keyed_checksum(function.0, partition, key, value))
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

    /// What there is of a class from the first sequence above `after` that is not settled: records, and runs of what is
    /// gone, in order and without gaps, up to where the next run that is settled begins. At most `max_entries`, and
    /// together at most `max_bytes` as stored, but one at least if one waits; without entries if none does.
    ///
    /// # Errors
    /// If the first of them is damaged or missing, with [`StoreError::damage`] naming class and sequence (a later one
    /// ends the range before it, and is the error of the next call), or if the disk fails.
    pub fn range(
        &mut self,
        class: Class,
        after: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Range, StoreError> {
        self.snapshot(|connection| read_range(connection, class, after, max_entries, max_bytes).map(|(range, _)| range))
            .map_err(self.failed("read records from"))
    }

    /// The same beyond the runs that are settled: at most `max_ranges`, together of the size that [`range`](Self::range)
    /// has alone; none if nothing waits.
    ///
    /// # Errors
    /// As [`range`](Self::range) for the first of them; in a later one it ends the list.
    pub fn ranges(
        &mut self,
        class: Class,
        after: u64,
        max_ranges: usize,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Range>, StoreError> {
        let read = |connection: &Connection| {
            let (mut ranges, mut after) = (Vec::<Range>::new(), after);
            let (mut entries, mut bytes) = (max_entries, max_bytes);
            while ranges.len() < max_ranges && entries > 0 && bytes > 0 {
                let (range, size) = match read_range(connection, class, after, entries, bytes) {
                    Err(error) if ranges.is_empty() => return Err(error),
                    Err(_) => break,
                    Ok(found) => found,
                };
                let Some(last) = range.last() else { break };
                // The first of a range is never too large for it, but may be for what is left.
                if size > bytes && !ranges.is_empty() {
                    break;
                }
                after = last;
                entries -= range.entries.len();
                bytes = bytes.saturating_sub(size);
                ranges.push(range);
            }
            Ok(ranges)
        };
        self.snapshot(read).map_err(self.failed("read records from"))
    }

    /// The runs of a class of which nothing exists any more and the control plane has not heard, above `after`: at most
    /// `max`. Costs the same however much waits.
    ///
    /// # Errors
    /// If the first of them is damaged (a later one ends the list before it), or if the disk fails.
    pub fn gone(&mut self, class: Class, after: u64, max: usize) -> Result<Vec<Range>, StoreError> {
        self.snapshot(|connection| {
            let queue = Queue::Records(class);
            let after = queue.mark(connection)?.max(after);
            let mut statement = connection.prepare_cached(tiles::sql(class).gone)?;
            let mut found = statement.query((rows::bound(after), rows::bound(max as u64)))?;
            let mut ranges = Vec::new();
            while let Some(row) = found.next()? {
                let id = rows::number(row.get(0)?);
                match Row::of(row).and_then(|row| tiles::run(&row)) {
                    Ok(Run { first, gone: Some(gone), .. }) => {
                        ranges.push(Range { first, entries: vec![Entry::Gone(gone)] });
                    }
                    Err(what) if ranges.is_empty() => return Err(queue.damaged_run(connection, id, what)?),
                    _ => break,
                }
            }
            Ok(ranges)
        })
        .map_err(self.failed("read what is gone from"))
    }

    /// Looks at no more than `max_rows` rows of a class above `after`, and hands over the beginnings of the records among
    /// them: those of one stream, or all. A damaged one is left out: it is found when its turn to be delivered comes.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn heads(
        &mut self,
        class: Class,
        after: u64,
        stream: Option<&str>,
        max_rows: usize,
    ) -> Result<Heads, StoreError> {
        self.snapshot(|connection| {
            let after = Queue::Records(class).mark(connection)?.max(after);
            let number: Option<u32> = match stream {
                Some(stream) => connection
                    .prepare_cached("SELECT id FROM streams WHERE name = ?1")?
                    .query_row([stream], |row| row.get(0))
                    .optional()?,
                None => None,
            };
            let mut statement = connection.prepare_cached(tiles::sql(class).heads)?;
            let mut found = statement.query((rows::bound(after), rows::bound(max_rows as u64)))?;
            let mut heads = Heads { heads: Vec::new(), seen_to: after };
            while let Some(row) = found.next()? {
                let of: Option<u32> = row.get(5)?;
                // The body, which may be large, is read only where it has to be.
                let wanted = stream.is_none() || of == Some(OTHERS) || of.is_some() && of == number;
                if !wanted {
                    heads.seen_to = rows::number(row.get::<_, Option<i64>>(4)?.unwrap_or(row.get(0)?));
                    continue;
                }
                let id = rows::number(row.get(0)?);
                heads.seen_to = heads.seen_to.max(id);
                let Ok(row) = Row::of(row) else { continue };
                heads.seen_to = heads.seen_to.max(row.last);
                if row.kind == Kind::Item
                    && let Ok(head) = rows::read_record_head(row.body)
                    && stream.is_none_or(|stream| stream == head.stream)
                {
                    heads.heads.push(Head { sequence: id, bytes: row.body.len() as u64, stamp: head.stamp });
                }
            }
            Ok(heads)
        })
        .map_err(self.failed("look at records in"))
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

    /// The first records that were lost with a store whose place this one took, and that the control plane has not heard
    /// of. (What this store lost itself is among what is [`gone`](Self::gone). Where nobody knows how many there were,
    /// there is nothing to tell but by the log.)
    ///
    /// # Errors
    /// If it is damaged, or the disk fails.
    pub fn untold(&mut self) -> Result<Option<Untold>, StoreError> {
        let read = || {
            let epoch = StoreEpoch(schema::meta(&self.connection, "epoch")?);
            let mut after = schema::meta(&self.connection, schema::MISSING_TOLD)?.max(self.told);
            loop {
                let Some((id, missing)) = self.read_missing(after, 1)?.pop() else { return Ok((after, None)) };
                match missing {
                    Missing { epoch: of, queue: Queue::Records(class), first, last: Some(last), .. }
                        if of != epoch && of.0 != 0 =>
                    {
                        return Ok((after, Some(Untold { id, epoch: of, class, first, last })));
                    }
                    _ => after = id,
                }
            }
        };
        let (told, untold) = read().map_err(self.failed("read what is missing from"))?;
        self.told = told;
        Ok(untold)
    }

    /// Where the outbox begins and ends. Takes the same time however much waits.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn outbox(&mut self) -> Result<Outbox, StoreError> {
        let waiting = |class| {
            let ends = self.snapshot(|connection| Queue::Records(class).ends(connection))?;
            Ok(Waiting { first: ends.waiting, next: ends.last + 1 })
        };
        let mut classes = [Waiting { first: 1, next: 1 }; 2];
        for class in Class::ALL {
            classes[usize::from(class.number())] = waiting(class).map_err(self.failed("read the outbox of"))?;
        }
        Ok(Outbox { classes })
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

    /// How many messages wait, due or not.
    ///
    /// # Errors
    /// If the count is damaged, or the disk fails.
    pub fn message_count(&mut self) -> Result<u64, StoreError> {
        schema::meta(&self.connection, "messages").map_err(self.failed("count the messages of"))
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

fn read_range(
    connection: &Connection,
    class: Class,
    after: u64,
    max_entries: usize,
    max_bytes: usize,
) -> Result<(Range, usize), Cause> {
    let (mut range, mut bytes) = (Range { first: after.saturating_add(1), entries: Vec::new() }, 0);
    Queue::Records(class).read(connection, after, max_entries, max_bytes, |row| {
        let entry = match tiles::run(&row) {
            Ok(Run { gone: Some(gone), .. }) => Entry::Gone(gone),
            Ok(Run { gone: None, .. }) => return Err("it is settled".into()),
            Err(what) if row.kind != Kind::Item => return Err(what),
            Err(_) => Entry::Record(rows::read_record(row.body)?),
        };
        if range.entries.is_empty() {
            range.first = row.id;
        }
        bytes += row.body.len();
        range.entries.push(entry);
        Ok(())
    })?;
    Ok((range, bytes))
}
