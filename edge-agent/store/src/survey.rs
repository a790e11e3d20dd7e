//! Reading all of a store that may be damaged: what is whole is handed over, what is not is named and passed.

use std::collections::BTreeMap;
use std::path::Path;

use agent_core::pace::Metered;
use rusqlite::{Connection, Row};
use sync_protocol::records::{Class, Record, StoreEpoch, Tally};

use crate::blobs::{Blob, ContentDigest, WatchedFile};
use crate::boots::Boot;
use crate::error::{Cause, StoreError};
use crate::messages::Message;
use crate::queue::Queue;
use crate::scan::{each, is_damage, readable};
use crate::schedules::Scheduled;
use crate::tiles::Run;
use crate::witness::{self, Note};
use crate::write::{DeadLetter, Deployment, Missing, Publish};
use crate::{recover, rows, schema};

mod queues;
mod tables;

/// Most descriptions of damage that a survey keeps, and most for each queue: enough for a person to see what happened,
/// and a bound on memory where a whole disk rots.
const MAX_NAMED: usize = 1_000;

/// What is in a store.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The life of the store; `None` if it cannot be read.
    pub epoch: Option<StoreEpoch>,
    /// The three queues, in the order of [`Queue::ALL`].
    pub queues: Vec<QueueSurvey>,
    /// By stream: how many of its records wait and are whole, and their bytes. Streams beyond the first 1,000 are under no
    /// name.
    pub streams: BTreeMap<String, (u64, u64)>,
    /// The functions that have a number.
    pub functions: Vec<FunctionSurvey>,
    /// Dead letters that are whole.
    pub dead_letters: u64,
    /// Messages that wait and are whole, by queue.
    pub messages: BTreeMap<String, u64>,
    /// Blobs that are whole.
    pub blobs: u64,
    /// Contents of blobs that are to be there, and their bytes. Whether their files are is not known here.
    pub contents: (u64, u64),
    /// What runs.
    pub deployments: Vec<(String, Deployment)>,
    /// What this store knows to be lost, from before.
    pub missing: Vec<Missing>,
    /// Rows and tables that are damaged, each in one line for a person; at most 1,000 of them.
    pub damage: Vec<String>,
    /// How many there are.
    pub damaged: u64,
}

/// What is in a queue.
#[derive(Clone, Debug)]
pub struct QueueSurvey {
    /// Which one.
    pub queue: Queue,
    /// Everything up to this number is done.
    pub done: u64,
    /// The number that would come next.
    pub next: u64,
    /// Rows that wait and are whole.
    pub whole: u64,
    /// The bytes of these, as stored.
    pub bytes: u64,
    /// How many the control plane has, or knows of, above the mark.
    pub settled: u64,
    /// What is gone and the control plane has not heard of, by stream and reason.
    pub gone: Vec<Tally>,
    /// What should wait and does not, or cannot be read.
    pub lost: Vec<Missing>,
}

/// What a function has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionSurvey {
    /// Its number.
    pub id: u32,
    /// Its name; two if its two copies differ, none if none can be read.
    pub names: Vec<String>,
    /// Values of its state that are whole.
    pub state_rows: u64,
    /// Bytes of their keys and values.
    pub state_bytes: u64,
    /// How many of these values end by themselves.
    pub ending_rows: u64,
    /// Sources whose handled events are remembered.
    pub sources: u64,
}

/// A row that is whole, as [`inspect`] hands it over.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Item {
    /// A record that waits.
    Record {
        /// Its class.
        class: Class,
        /// Its sequence.
        sequence: u64,
        /// What it is.
        record: Record,
    },
    /// A message that waits to be published.
    Publish(Publish),
    /// A dead letter.
    DeadLetter(DeadLetter),
    /// A blob.
    Blob {
        /// Bucket and name.
        name: String,
        /// What it names.
        blob: Blob,
    },
    /// A content of which there must be a file.
    Content {
        /// Which one.
        digest: ContentDigest,
        /// Its length.
        bytes: u64,
    },
}

/// Reads all of the store in `dir` and verifies every checksum, without changing a byte of it and without keeping a
/// running agent from anything. Hands every whole record, publish and dead letter to `take`, in order, until that says
/// `false`.
///
/// # Errors
/// If it cannot be opened at all: it is not there, of a newer version, or the disk fails. Damage is no error.
pub fn inspect(dir: &Path, mut take: impl FnMut(Item) -> bool) -> Result<Survey, StoreError> {
    let path = dir.join("store.db");
    let mut goes_on = true;
    let mut hand = |item| {
        goes_on = goes_on && take(item);
        Ok(())
    };
    let confirmed = match recover::condemned(dir) {
        Ok(Some(condemned)) => condemned.confirmed,
        _ => Vec::new(),
    };
    survey(dir, &confirmed, |piece| match piece {
        Piece::Queued { queue: Queue::Records(class), id, body } => match rows::read_record(body) {
            Ok(record) => hand(Item::Record { class, sequence: id, record }),
            Err(_) => Ok(()),
        },
        Piece::Queued { queue: Queue::Publishes, id, body } => match rows::read_publish(id, body) {
            Ok(publish) => hand(Item::Publish(publish)),
            Err(_) => Ok(()),
        },
        Piece::DeadLetter { id, body } => match rows::read_dead_letter(id, body) {
            Ok(letter) => hand(Item::DeadLetter(letter)),
            Err(_) => Ok(()),
        },
        Piece::Blob { name, blob } => hand(Item::Blob { name: name.to_owned(), blob: blob.clone() }),
        Piece::Content { digest, bytes } => hand(Item::Content { digest: *digest, bytes }),
        _ => Ok(()),
    })
    .map_err(|cause| cause.in_operation("read", &path))
}

/// A row that is whole.
pub(crate) enum Piece<'a> {
    Function { id: u32, name: &'a str },
    State { function: u32, partition: &'a str, key: &'a [u8], expires_us: Option<i64>, value: &'a [u8] },
    Seen { function: u32, partition: &'a str, source: &'a str, value: &'a [u8] },
    Queued { queue: Queue, id: u64, body: &'a [u8] },
    DeadLetter { id: u64, body: &'a [u8] },
    Deployment { function: &'a str, value: &'a [u8] },
    Missing { told: bool, missing: &'a Missing },
    Gone { class: Class, run: Run },
    Boot(Boot),
    Metered(Metered),
    Message { message: &'a Message, body: &'a [u8] },
    Scheduled(&'a Scheduled),
    Usage { body: &'a [u8] },
    Blob { name: &'a str, blob: &'a Blob },
    Content { digest: &'a ContentDigest, bytes: u64 },
    Watched { path: &'a str, file: &'a WatchedFile },
}

/// Walks through all of a store: first the functions, then what belongs to them, then the queues. What was `confirmed`
/// (queue, first and last number) counts as settled.
pub(crate) fn survey(
    dir: &Path,
    confirmed: &[(Queue, u64, u64)],
    take: impl FnMut(Piece<'_>) -> Result<(), Cause>,
) -> Result<Survey, Cause> {
    let path = dir.join("store.db");
    if let Err(error) = std::fs::File::open(&path) {
        return Err(Cause::File { what: "its file cannot be opened", error });
    }
    let mut walk = Walk { found: Survey::default(), note: witness::peek(dir), confirmed, take };
    let connection = schema::open_survey(&path)?;
    // One moment of a store that is being written.
    let opened = connection
        .execute_batch("BEGIN")
        .map_err(Cause::from)
        .and_then(|()| schema::check_identity(&connection).map(|_| ()));
    match opened {
        Ok(()) => {}
        Err(cause) if is_damage(&cause) || matches!(cause, Cause::Foreign(_)) && walk.note.is_some() => {
            walk.name(format!("the database: {cause}"));
        }
        Err(cause) => return Err(cause),
    }
    if let Ok(Some(condemned)) = recover::condemned(dir) {
        walk.name(format!("it was given up: {}", condemned.cause));
    }
    walk.functions(&connection)?;
    let damaged = walk.found.damaged;
    walk.keyed(&connection)?;
    // Where rows are damaged, their number says nothing.
    if walk.found.damaged == damaged {
        walk.state_bytes(&connection)?;
    }
    walk.deployments(&connection)?;
    walk.dead_letters(&connection)?;
    walk.messages(&connection)?;
    walk.schedules(&connection)?;
    walk.usage(&connection)?;
    walk.blobs(&connection)?;
    walk.watched(&connection)?;
    walk.missing(&connection)?;
    walk.epoch(&connection)?;
    for queue in Queue::ALL {
        walk.queue(&connection, queue)?;
    }
    walk.streams(&connection)?;
    walk.boots(&connection)?;
    walk.metered(&connection)?;
    Ok(walk.found)
}

struct Walk<'a, F> {
    found: Survey,
    note: Option<Note>,
    confirmed: &'a [(Queue, u64, u64)],
    take: F,
}

impl<F: FnMut(Piece<'_>) -> Result<(), Cause>> Walk<'_, F> {
    fn name(&mut self, damage: String) {
        self.found.name(damage);
    }

    fn function(&mut self, id: u32) -> &mut FunctionSurvey {
        let functions = &mut self.found.functions;
        let at = functions.binary_search_by_key(&id, |function| function.id).unwrap_or_else(|at| {
            functions.insert(at, FunctionSurvey { id, ..FunctionSurvey::default() });
            at
        });
        &mut functions[at]
    }

    fn functions(&mut self, connection: &Connection) -> Result<(), Cause> {
        let mut named = Vec::new();
        // The table, and the copy of it in the index.
        for sql in [
            "SELECT id, name FROM functions NOT INDEXED ORDER BY id",
            "SELECT id, name FROM functions INDEXED BY sqlite_autoindex_functions_1 ORDER BY name",
        ] {
            let broken = each(connection, sql, [], |row| {
                match (rows::column::<u32>(row, 0), rows::column::<String>(row, 1)) {
                    (Ok(id), Ok(name)) => named.push((id, name)),
                    (Err(what), _) | (_, Err(what)) => self.name(format!("a function's name: {what}")),
                }
                Ok(())
            })?;
            if let Some(what) = broken {
                self.name(format!("the table functions: {what}"));
            }
        }
        for (id, name) in named {
            let names = &mut self.function(id).names;
            if names.contains(&name) {
                continue;
            }
            names.push(name.clone());
            if let [first, second] = names.as_slice() {
                let differs = format!("function {id} is named {first:?} and {second:?}");
                self.name(differs);
            }
            (self.take)(Piece::Function { id, name: &name })?;
        }
        Ok(())
    }

    fn keyed(&mut self, connection: &Connection) -> Result<(), Cause> {
        for (table, key, expires_us) in [("state", "key", "expires_us"), ("seen", "source", "NULL")] {
            // From both ends, if there is an unreadable page between.
            for order in ["ASC", "DESC"] {
                let sql = format!(
                    "SELECT function, partition, CAST({key} AS BLOB), checksum, value, {expires_us} FROM {table} \
                     ORDER BY function {order}, partition {order}, {key} {order}"
                );
                let broken = each(connection, &sql, [], |row| match self.keyed_row(table, row) {
                    Ok(()) => Ok(()),
                    Err(RowError::Damaged(what)) => {
                        self.name(format!("{table}: {what}"));
                        Ok(())
                    }
                    Err(RowError::Failed(cause)) => Err(cause),
                })?;
                let Some(what) = broken else { break };
                if order == "ASC" {
                    self.name(format!("the table {table} in part: {what}"));
                }
            }
        }
        Ok(())
    }

    fn keyed_row(&mut self, table: &str, row: &Row<'_>) -> Result<(), RowError> {
        let function: u32 = rows::column(row, 0)?;
        let partition: String = rows::column(row, 1)?;
        let key: Vec<u8> = rows::column(row, 2)?;
        let expires_us: Option<i64> = rows::column(row, 5)?;
        let value =
            rows::checked_by(row, 3, 4, |value| rows::state_checksum(function, &partition, &key, expires_us, value))
                .map_err(|what| format!("function {function}, partition {partition:?}, {key:02x?}: {what}"))?;
        let of = self.function(function);
        let piece = if table == "state" {
            of.state_rows += 1;
            of.state_bytes += (key.len() + value.len()) as u64;
            of.ending_rows += u64::from(expires_us.is_some());
            Piece::State { function, partition: &partition, key: &key, expires_us, value }
        } else {
            of.sources += 1;
            let source = str::from_utf8(&key).map_err(|error| error.to_string())?;
            Piece::Seen { function, partition: &partition, source, value }
        };
        (self.take)(piece).map_err(RowError::Failed)
    }

    fn epoch(&mut self, connection: &Connection) -> Result<(), Cause> {
        match readable(schema::meta(connection, "epoch"))? {
            Ok(epoch) => self.found.epoch = Some(StoreEpoch(epoch)),
            Err(what) => {
                self.name(format!("the epoch: {what}"));
                self.found.epoch = self.note.map(|note| StoreEpoch(note.epoch));
            }
        }
        Ok(())
    }
}

impl Survey {
    fn name(&mut self, damage: String) {
        self.damaged += 1;
        if self.damage.len() < MAX_NAMED {
            self.damage.push(damage);
        }
    }

    /// What is lost of the queues.
    pub fn lost(&self) -> impl Iterator<Item = &Missing> {
        self.queues.iter().flat_map(|queue| &queue.lost)
    }

    /// Whether everything is whole and nothing is lost that is not known to be.
    pub fn is_whole(&self) -> bool {
        self.damaged == 0 && self.lost().next().is_none()
    }
}

/// Why a row cannot be taken.
enum RowError {
    Damaged(String),
    Failed(Cause),
}

impl From<String> for RowError {
    fn from(what: String) -> Self {
        Self::Damaged(what)
    }
}
