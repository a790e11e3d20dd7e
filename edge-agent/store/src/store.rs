//! The one that writes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use agent_core::FunctionId;
use agent_core::retention::Refused;
use rusqlite::{Connection, TransactionBehavior};
use sync_protocol::records::{Class, MAX_ENTRIES, StoreEpoch};

use crate::error::{Cause, Damage, ErrorKind, StoreError};
use crate::functions::Functions;
use crate::group::{Changed, Group};
use crate::queue::{Ends, Queue};
use crate::reader::{Reader, read_deployments};
use crate::recover::{self, Recovery};
use crate::schema;
use crate::streams::{StreamUsage, Streams};
use crate::usage::{Metering, Sums};
use crate::witness::{Note, Witness};
use crate::write::Write;

/// Most rows that one commit deletes from each queue. One request of the sync protocol, so that an outbox that is
/// drained request by request never keeps a row longer than its answer; more would make a commit wait for the rest.
pub const TRIM_ROWS: usize = MAX_ENTRIES;

/// Most values of state that one [`Write::StateEnded`] deletes: the commit of others waits for it, some 10 ms.
pub const EXPIRE_ROWS: usize = 1_000;

/// Most bytes that one commit deletes from each queue, a last row that passes it not counted: the pages of a large row
/// are visited one by one. One body of the sync protocol, hence one request.
pub const TRIM_BYTES: usize = sync_protocol::MAX_BODY_BYTES;

/// The writing side of a gateway's store; there is one for each directory, and one thread uses it.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    epoch: StoreEpoch,
    position: Position,
    streams: Streams,
    functions: Functions,
    metering: Metering,
    refused: Refused,
    // Bytes of the row that is being written, kept to be filled again.
    scratch: Vec<u8>,
    // Holds the lock; dropped last, after the connection.
    witness: Witness,
}

/// What the writer knows of the queues without asking; as of the last commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    // By `Queue::index`.
    pub(crate) queues: [Ends; 3],
    pub(crate) dead_letters: u64,
    pub(crate) messages: u64,
    pub(crate) blobs: u64,
    pub(crate) blob_bytes: u64,
}

/// What there is after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The highest sequence ever given, by [`Class::number`]; 0: none yet. Higher than before: the uplink has something
    /// to do.
    pub records: [u64; 2],
    /// The highest id of a publish ever given; 0: none yet. Higher than before: the dispatcher has something to do.
    pub publishes: u64,
    /// How many dead letters are stored.
    pub dead_letters: u64,
    /// How many messages wait, due or not.
    pub messages: u64,
    /// How many blobs there are.
    pub blobs: u64,
    /// The bytes of all their contents, and of those whose files are still there.
    pub blob_bytes: u64,
    /// How many sequences that are done with are still stored, because a commit deletes at most [`TRIM_ROWS`] and
    /// [`TRIM_BYTES`] of each queue. Later commits delete them, also empty ones.
    pub leftover: u64,
}

impl Store {
    /// Opens the store in `dir`, or creates the directory and in it a store with a new epoch. Migrates the store of an
    /// older agent.
    ///
    /// # Errors
    /// If another process has the store open ([`ErrorKind::Busy`]), if a newer agent wrote it
    /// ([`ErrorKind::Newer`]), if the database's head, its small tables or an end of a queue
    /// are damaged ([`ErrorKind::Corrupt`]), or if the disk fails.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("store.db");
        let open = || {
            let witness = lock(dir)?;
            if let Some(condemned) = recover::condemned(dir)? {
                return Err(Damage::Database(condemned.cause).into());
            }
            let opened = open_file(dir, &path, &witness)?;
            Ok((opened, witness))
        };
        match open() {
            Ok((opened, witness)) => Ok(Self::new(opened, path, witness)),
            Err(cause) => Err(Cause::in_operation(cause, "open", &path)),
        }
    }

    /// As [`open`](Self::open), but a damaged store does not stand in the way: its files are moved aside, a fresh store
    /// takes their place, and all that can still be read is carried over, as [`Recovery`] says.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for damage. A disk that cannot be read is no damage. If a recovery fails, for
    /// instance because the disk is full, the next call takes it up again.
    pub fn open_or_recover(dir: &Path) -> Result<(Self, Option<Recovery>), StoreError> {
        let path = dir.join("store.db");
        let open = || {
            let mut witness = lock(dir)?;
            let cause = match recover::condemned(dir)? {
                Some(condemned) => condemned.cause,
                None => match open_file(dir, &path, &witness) {
                    Ok(opened) => return Ok((opened, witness, None)),
                    Err(cause) if cause.kind() == ErrorKind::Corrupt => cause.to_string(),
                    Err(cause) => return Err(cause),
                },
            };
            let recovery = recover::recover(dir, &cause, &mut witness)?;
            let opened = open_file(dir, &path, &witness)?;
            Ok((opened, witness, Some(recovery)))
        };
        match open() {
            Ok((opened, witness, recovery)) => Ok((Self::new(opened, path, witness), recovery)),
            Err(cause) => Err(Cause::in_operation(cause, "open", &path)),
        }
    }

    /// Gives the store up, for something in it was found to be damaged that stands in the way: from now on
    /// [`open`](Self::open) refuses it, and [`open_or_recover`](Self::open_or_recover) recovers what can be read.
    ///
    /// `unwritten` is what could not be committed. What others confirmed in it ([`Write::Delivered`],
    /// [`Write::Published`]) is remembered all the same, or the recovery would carry it over, to be sent a second time
    /// under a new epoch.
    ///
    /// # Errors
    /// If the disk fails; the store is as it was.
    pub fn condemn(self, cause: &str, unwritten: &[Write]) -> Result<(), StoreError> {
        let mut confirmed = Vec::new();
        for write in unwritten {
            match write {
                Write::Delivered { class, ranges } => {
                    confirmed.extend(ranges.iter().map(|(first, last)| (Queue::Records(*class), *first, *last)));
                }
                Write::Published { up_to } => confirmed.push((Queue::Publishes, 1, *up_to)),
                _ => {}
            }
        }
        let dir = self.path.parent().unwrap_or(Path::new("."));
        recover::condemn(dir, cause, &confirmed).map_err(|cause| cause.in_operation("give up", &self.path))
    }

    fn new(
        Opened { connection, epoch, position, streams, functions, metering }: Opened,
        path: PathBuf,
        mut witness: Witness,
    ) -> Self {
        witness.note(position.note(epoch));
        let (refused, scratch) = (Refused::None, Vec::new());
        Self { connection, path, epoch, position, streams, functions, metering, refused, scratch, witness }
    }

    /// The life of the store that its sequences and ids belong to; never 0.
    pub fn epoch(&self) -> StoreEpoch {
        self.epoch
    }

    /// How much of each stream is stored; the first row stands for what [`MAX_STREAMS`](crate::MAX_STREAMS) left over.
    pub fn usage(&self) -> &[StreamUsage] {
        self.streams.usage()
    }

    /// What functions used and measured in the last commit.
    pub fn counted(&self) -> &Sums {
        &self.metering.group
    }

    /// Whose records are refused from now on: a commit gives them their sequence, and keeps nothing of them but that they
    /// were refused. Forgotten when the store is closed.
    pub fn refuse(&mut self, refused: Refused) {
        self.refused = refused;
    }

    /// What [`refuse`](Self::refuse) was told last.
    pub fn refused(&self) -> &Refused {
        &self.refused
    }

    /// A reader with a connection of its own, for another thread. It sees what was committed before each of its calls.
    ///
    /// # Errors
    /// If the database cannot be opened once more.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        Reader::open(&self.path)
    }

    /// The number of a function, given to it now if it has none yet.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn function(&mut self, name: &str) -> Result<FunctionId, StoreError> {
        self.functions
            .number(&self.connection, name)
            .map(FunctionId)
            .map_err(|cause| cause.in_operation("look up a function in", &self.path))
    }

    /// Bytes of the keys and values of a function's state, over all partitions, as of the last commit; 0 for a number that was
    /// never given.
    pub fn state_bytes(&self, function: FunctionId) -> u64 {
        self.functions.state_bytes(function.0)
    }

    /// Stores all of these writes in this order in one transaction, and deletes some rows that are done with; on
    /// return they are on the disk. On an error nothing of them is there, and the same store can be tried again.
    ///
    /// # Errors
    /// If the disk is full or fails; if a write cannot be, such as a record above [`MAX_RECORD_BYTES`](crate::MAX_RECORD_BYTES) or a mark beyond
    /// the last record: [`StoreError::write`] says which one.
    pub fn commit(&mut self, writes: &[Write]) -> Result<Committed, StoreError> {
        let (mut position, mut at) = (self.position, None);
        self.metering.begin();
        match self.write_all(writes, &mut position, &mut at) {
            Ok(()) => {
                self.position = position;
                self.streams.committed();
                self.functions.committed();
                self.metering.committed();
                self.witness.note(position.note(self.epoch));
                Ok(position.committed())
            }
            Err(cause) => {
                self.streams.roll_back();
                self.functions.roll_back();
                self.metering.begin();
                Err(cause.in_operation("commit to", &self.path).at_write(at))
            }
        }
    }

    fn write_all(&mut self, writes: &[Write], position: &mut Position, at: &mut Option<usize>) -> Result<(), Cause> {
        let Self { connection, epoch, streams, functions, metering, refused, scratch, .. } = self;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let changed = Changed { position, streams, functions, metering, scratch };
        let mut group = Group::new(&transaction, *epoch, refused, changed)?;
        for (index, write) in writes.iter().enumerate() {
            *at = Some(index);
            group.write(write)?;
        }
        *at = None;
        group.finish()?;
        transaction.commit()?;
        Ok(())
    }
}

struct Opened {
    connection: Connection,
    epoch: StoreEpoch,
    position: Position,
    streams: Streams,
    functions: Functions,
    metering: Metering,
}

fn lock(dir: &Path) -> Result<Witness, Cause> {
    let failed = |error| Cause::File { what: "its directory cannot be created", error };
    create_directories(dir).map_err(failed)?;
    Witness::open(dir)
}

fn open_file(dir: &Path, path: &Path, witness: &Witness) -> Result<Opened, Cause> {
    // A database without tables is how a store begins, and what is left of one whose log is gone.
    let begins = witness.noted().is_none() || !path.exists();
    let connection = schema::open_writer(path, begins).map_err(|cause| match cause {
        // No other program writes beside our lock.
        Cause::Foreign(_) if witness.noted().is_some() => Damage::Database(cause.to_string()).into(),
        cause => cause,
    })?;
    let failed = |error| Cause::File { what: "its directory cannot be synced", error };
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    let epoch = StoreEpoch(schema::meta(&connection, "epoch")?);
    let [normal, high, publishes] = Queue::ALL.map(|queue| queue.check_ends(&connection));
    let position = Position {
        queues: [normal?, high?, publishes?],
        dead_letters: schema::meta(&connection, "dead_letters")?,
        messages: schema::meta(&connection, "messages")?,
        blobs: schema::meta(&connection, schema::BLOBS)?,
        blob_bytes: schema::meta(&connection, schema::BLOB_BYTES)?,
    };
    // An agent cannot start without them, and they are few.
    read_deployments(&connection)?;
    let (streams, functions) = (Streams::open(&connection)?, Functions::open(&connection)?);
    let metering = Metering::open(&connection)?;
    if let Some(note) = witness.noted().filter(|note| note.epoch == epoch.0) {
        for queue in Queue::ALL {
            let ((done, last), ends) = (note.queues[queue.index()], &position.queues[queue.index()]);
            if last > ends.last {
                return Err(queue.missing(ends.last + 1, last).into());
            }
            if done > ends.done {
                let lost = format!("{queue} were done up to {done}, and it knows {} only", ends.done);
                return Err(Damage::Database(lost).into());
            }
        }
    }
    schema::accept(&connection)?;
    Ok(Opened { connection, epoch, position, streams, functions, metering })
}

/// Creates a directory and those above it so that a power cut cannot take them away again.
fn create_directories(dir: &Path) -> io::Result<()> {
    let missing = dir.ancestors().take_while(|dir| !dir.exists());
    let parents: Vec<_> = missing.filter_map(Path::parent).collect();
    fs::create_dir_all(dir)?;
    for parent in parents {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

impl Position {
    fn note(&self, epoch: StoreEpoch) -> Note {
        Note { epoch: epoch.0, queues: self.queues.map(|ends| (ends.done, ends.last)) }
    }

    fn committed(&self) -> Committed {
        let [normal, high, publishes] = self.queues;
        let mut records = [0; 2];
        records[usize::from(Class::Normal.number())] = normal.last;
        records[usize::from(Class::High.number())] = high.last;
        let leftover = self.queues.iter().map(|ends| (ends.done + 1).saturating_sub(ends.stored)).sum();
        Committed {
            records,
            publishes: publishes.last,
            dead_letters: self.dead_letters,
            messages: self.messages,
            blobs: self.blobs,
            blob_bytes: self.blob_bytes,
            leftover,
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_core::effect::{Effect, Priority};
    use agent_core::event::{Event, EventKind};
    use sync_protocol::records::Stamp;

    use super::*;
    use crate::{Outcome, OutcomeResult};

    fn emit(function: FunctionId, bytes: usize) -> Write {
        Write::Outcome(Outcome {
            function,
            function_name: "f".into(),
            partition: "p".into(),
            seen: None,
            uses: crate::Uses::Nothing,
            event: Event::new(EventKind::Mqtt, "d", "t", [], 0),
            stamp: Stamp { wall_us: 0, monotonic_us: 0, boot: 0, synchronised: false },
            usage: Default::default(),
            result: OutcomeResult::Effects(vec![Effect::Emit {
                stream: "s".into(),
                body: vec![1; bytes],
                priority: Priority::Normal,
            }]),
            blobs: Vec::new(),
        })
    }

    /// A database that may not grow answers as a full disk does.
    #[test]
    fn a_full_disk_takes_nothing_and_is_no_more_than_a_pause() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let function = store.function("f").unwrap();
        store.commit(&[emit(function, 10)]).unwrap();
        let pages: i64 = store.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        let limit = |store: &Store, pages: i64| {
            store.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
        };
        limit(&store, pages + 2);
        let error = store.commit(&[emit(function, 10), emit(function, 100_000)]).unwrap_err();
        assert_eq!((error.kind(), error.write()), (ErrorKind::Full, Some(1)));
        assert!(error.to_string().contains("store.db"), "{error}");
        let mut reader = store.reader().unwrap();
        assert_eq!(reader.outbox().unwrap().class(Class::Normal).next, 2);

        limit(&store, 1 << 20);
        assert_eq!(store.commit(&[emit(function, 100_000)]).unwrap().records, [2, 0]);
        assert_eq!(reader.range(Class::Normal, 0, 10, usize::MAX).unwrap().entries.len(), 2);
    }
}
