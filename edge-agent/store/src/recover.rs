//! A fresh store in the place of a damaged one.
//!
//! `condemned` in the directory says that the store is given up, and where its files go. It is there from before the
//! first file is moved until after the fresh store is complete, so a recovery that was cut off is taken up again:
//!
//! 1. `condemned` is written;
//! 2. the log, then the database are moved into the quarantine;
//! 3. a fresh store takes what can be read there; one that is there already was not finished, and is removed first;
//! 4. `condemned` is removed.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use sync_protocol::dead::{self, Resolved, What};
use sync_protocol::records::{Class, StoreEpoch};

use crate::error::{Cause, StoreError};
use crate::queue::Queue;
use crate::rows::Emitter;
use crate::streams::Streams;
use crate::survey::{Piece, Survey, survey};
use crate::tiles::{self, Run, Tiles};
use crate::witness::{Note, Witness};
use crate::write::DeadLetter;
use crate::{blobs, functions, letters, messages, rows, schema, usage};

/// Most ranges, and most damaged rows, that the description of a recovery names: it is one line of the log.
const MAX_LOGGED: usize = 20;

const MARK: &str = "condemned";
const DRAFT: &str = "condemned.draft";
const FILES: [&str; 2] = ["store.db-wal", "store.db"];

/// Rows that share a transaction: the log stays within its usual size.
const BATCH: u64 = 4_096;

/// Set in the number of a function that takes a second name along. Functions are numbered from 1.
const TWIN: u32 = 1 << 31;

/// What became of a damaged store.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// Where its files are now. Nothing of ours reads or deletes them.
    pub quarantine: PathBuf,
    /// What was found to be wrong.
    pub cause: String,
    /// What was in it. All that is whole is in the fresh store, in the same order and under new numbers;
    /// [`Survey::lost`] is not, and is kept in the table of what is missing.
    pub survey: Survey,
    /// The life of the fresh store.
    pub epoch: StoreEpoch,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { quarantine, cause, survey, epoch } = self;
        write!(f, "the store was damaged ({cause}); its files are in {quarantine:?}. ")?;
        write!(f, "A fresh one with the epoch {:016x} took over ", epoch.0)?;
        for queue in &survey.queues {
            write!(f, "{} {}, ", queue.whole, queue.queue)?;
        }
        let (state, sources) =
            survey.functions.iter().fold((0, 0), |(state, sources), of| (state + of.state_rows, sources + of.sources));
        write!(
            f,
            "{} dead letters, {} deployments, {state} values of state and the handled events of {sources} sources. ",
            survey.dead_letters,
            survey.deployments.len()
        )?;
        if survey.lost().next().is_none() {
            f.write_str("Of the queues nothing is missing")?;
        } else {
            f.write_str("Missing are")?;
            for (index, lost) in survey.lost().take(MAX_LOGGED).enumerate() {
                write!(f, "{} {lost}", if index == 0 { "" } else { ";" })?;
            }
            match survey.lost().count().saturating_sub(MAX_LOGGED) {
                0 => {}
                more => write!(f, " and {more} more ranges")?,
            }
        }
        for damage in survey.damage.iter().take(MAX_LOGGED) {
            write!(f, ". {damage}")?;
        }
        match survey.damaged.saturating_sub(MAX_LOGGED as u64) {
            0 => Ok(()),
            more => write!(f, ". And {more} more: see them with `edge-agent doctor {}`", quarantine.display()),
        }
    }
}

impl fmt::Display for crate::Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, queue, first, last, reason } = self;
        write!(f, "{queue} {first} to ")?;
        match last {
            Some(last) => write!(f, "{last}")?,
            None => f.write_str("an unknown end")?,
        }
        write!(f, " of the epoch {:016x} ({reason})", epoch.0)
    }
}

fn file(what: &'static str) -> impl Fn(io::Error) -> Cause {
    move |error| Cause::File { what, error }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A store that is given up.
pub(crate) struct Condemned {
    /// The name of the folder where its files go.
    pub(crate) quarantine: String,
    /// What others confirmed, and could not be written: queue, first and last number.
    pub(crate) confirmed: Vec<(Queue, u64, u64)>,
    /// Why.
    pub(crate) cause: String,
}

impl Condemned {
    /// The quarantine, a line for each range, an empty line, and the cause.
    fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.quarantine);
        for (queue, first, last) in &self.confirmed {
            text.push_str(&format!("{} {first} {last}\n", queue.sql().table));
        }
        text + "\n" + &self.cause
    }

    fn from_text(text: &str) -> Option<Self> {
        let (head, cause) = text.split_once("\n\n")?;
        let mut lines = head.lines();
        let quarantine = lines.next()?;
        quarantine.strip_prefix("quarantine-")?.parse::<u32>().ok()?;
        let confirmed = lines.map(|line| {
            let mut words = line.split(' ');
            let table = words.next()?;
            let queue = Queue::ALL.into_iter().find(|queue| queue.sql().table == table)?;
            Some((queue, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        });
        Some(Self { quarantine: quarantine.into(), confirmed: confirmed.collect::<Option<_>>()?, cause: cause.into() })
    }
}

/// What is said of the store in `dir`, if it is given up.
pub(crate) fn condemned(dir: &Path) -> Result<Option<Condemned>, Cause> {
    match fs::read(dir.join(MARK)) {
        Ok(bytes) => Condemned::from_text(&String::from_utf8_lossy(&bytes)).map(Some).ok_or_else(|| {
            file("the file \"condemned\" beside it is not what was written")(io::ErrorKind::InvalidData.into())
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("the file \"condemned\" beside it cannot be read")(error)),
    }
}

/// Gives the store in `dir` up.
pub(crate) fn condemn(dir: &Path, cause: &str, confirmed: &[(Queue, u64, u64)]) -> Result<(), Cause> {
    let quarantine = (1..u32::MAX)
        .map(|number| format!("quarantine-{number}"))
        .find(|name| !dir.join(name).exists())
        .expect("no directory has four thousand million quarantines");
    let condemned = Condemned { quarantine, confirmed: confirmed.to_vec(), cause: cause.into() };
    let write = || {
        let mut draft = File::create(dir.join(DRAFT))?;
        draft.write_all(condemned.to_text().as_bytes())?;
        draft.sync_all()?;
        fs::rename(dir.join(DRAFT), dir.join(MARK))?;
        sync(dir)
    };
    write().map_err(file("the file \"condemned\" beside it cannot be written"))
}

/// Moves the store in `dir` aside, and makes a fresh one of what can be read.
pub(crate) fn recover(dir: &Path, cause: &str, witness: &mut Witness) -> Result<Recovery, Cause> {
    if condemned(dir)?.is_none() {
        condemn(dir, cause, &[])?;
    }
    let Some(Condemned { quarantine, confirmed, cause }) = condemned(dir)? else {
        return Err(file("the file \"condemned\" beside it is gone")(io::ErrorKind::NotFound.into()));
    };
    let quarantine = dir.join(quarantine);
    quarantine_files(dir, &quarantine).map_err(file("its files cannot be moved into the quarantine"))?;
    let (survey, epoch) = salvage(&quarantine, dir, &confirmed)?;
    // What was noted belongs to the old one.
    witness.note(Note { epoch: epoch.0, queues: [(0, 0); 3] });
    fs::remove_file(dir.join(MARK))
        .and_then(|()| sync(dir))
        .map_err(file("the file \"condemned\" beside it cannot be removed"))?;
    Ok(Recovery { quarantine, cause, survey, epoch })
}

fn quarantine_files(dir: &Path, quarantine: &Path) -> io::Result<()> {
    if !quarantine.join("store.db").exists() {
        fs::create_dir_all(quarantine)?;
        fs::copy(dir.join("lock"), quarantine.join("lock"))?;
        File::open(quarantine.join("lock"))?.sync_all()?;
        sync(dir)?;
        for name in FILES {
            match fs::rename(dir.join(name), quarantine.join(name)) {
                // Moved before, or never there.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => sync(quarantine)?,
            }
        }
    }
    for name in FILES.into_iter().chain(["store.db-shm"]) {
        match fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync(dir)
}

/// Makes a fresh store in `to`, where there is none, of what can be read of the one in `from`.
fn salvage(from: &Path, to: &Path, confirmed: &[(Queue, u64, u64)]) -> Result<(Survey, StoreEpoch), Cause> {
    let repaired = to.join("repaired");
    let from = if repair_head(from, &repaired)? { &repaired } else { from };
    let connection = schema::open_writer(&to.join("store.db"), true)?;
    let mut fresh = Fresh {
        connection: &connection,
        in_batch: 0,
        named: BTreeSet::new(),
        twins: BTreeSet::new(),
        last: [0; 3],
        streams: Streams::new(),
        dead_letters: Vec::new(),
        messages: 0,
        blobs: 0,
        blob_bytes: 0,
        told: 0,
        scratch: Vec::new(),
    };
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let survey = survey(from, confirmed, |piece| fresh.take(&piece))?;
    for id in survey.functions.iter().filter(|function| function.names.is_empty()).map(|function| function.id) {
        // Keeps its number, and with it its state, from being given to another.
        functions::insert(&connection, id, &format!("@unnamed-{id}"))?;
    }
    functions::recount(&connection)?;
    for lost in survey.lost() {
        rows::put_missing(&connection, &mut fresh.scratch, lost)?;
    }
    let epoch = schema::new_epoch(survey.epoch.map_or(0, |epoch| epoch.0))?;
    fresh.tell_letters(survey.epoch, StoreEpoch(epoch))?;
    fresh.streams.store(&connection)?;
    schema::set_meta(&connection, "dead_letters", fresh.dead_letters.len() as u64)?;
    schema::set_meta(&connection, "messages", fresh.messages)?;
    schema::set_meta(&connection, schema::BLOBS, fresh.blobs)?;
    schema::set_meta(&connection, schema::BLOB_BYTES, fresh.blob_bytes)?;
    schema::set_meta(&connection, schema::MISSING_TOLD, fresh.told)?;
    schema::set_meta(&connection, "epoch", epoch)?;
    connection.execute_batch("COMMIT")?;
    schema::accept(&connection)?;
    drop(connection);
    remove_repaired(&repaired).map_err(file("the repaired copy cannot be removed"))?;
    sync(to).map_err(file("its directory cannot be synced"))?;
    Ok((survey, StoreEpoch(epoch)))
}

/// If the head of the store in `from` cannot be read, makes a copy in `to` with the head that a new store has: the
/// tables of all stores begin on the same pages. If there is no room for a copy, the head stays as it is.
fn repair_head(from: &Path, to: &Path) -> Result<bool, Cause> {
    let failed = file("its head cannot be repaired in a copy");
    remove_repaired(to).map_err(&failed)?;
    if schema::open_survey(&from.join("store.db")).and_then(|connection| schema::version(&connection)).is_ok() {
        return Ok(false);
    }
    let path = to.join("store.db");
    fs::create_dir(to).map_err(&failed)?;
    let connection = schema::open_writer(&path, true)?;
    schema::accept(&connection)?;
    drop(connection);
    let copy = || {
        let mut head = [0; schema::PAGE_BYTES];
        File::open(&path)?.read_exact(&mut head)?;
        for name in ["store.db", "store.db-wal", "lock"].into_iter().filter(|name| from.join(name).exists()) {
            fs::copy(from.join(name), to.join(name))?;
        }
        let copy = OpenOptions::new().write(true).open(&path)?;
        // The size of the database in pages, and no free pages; the rest is the same in every store.
        let pages = u32::try_from(copy.metadata()?.len() / schema::PAGE_BYTES as u64).unwrap_or(u32::MAX);
        head[28..40].fill(0);
        head[28..32].copy_from_slice(&pages.to_be_bytes());
        copy.write_all_at(&head, 0)
    };
    match copy() {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            remove_repaired(to).map_err(failed)?;
            Ok(false)
        }
        Err(error) => Err(failed(error)),
    }
}

fn remove_repaired(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a fresh store in `out`, which must be empty or not there, of what can be read of the one in `dir`, which is
/// not changed. Says what was in it.
///
/// # Errors
/// If the old one cannot be opened at all, `out` is not empty, or the disk fails.
pub fn salvage_copy(dir: &Path, out: &Path) -> Result<Survey, StoreError> {
    let path = out.join("store.db");
    let make = || {
        fs::create_dir_all(out).map_err(file("its directory cannot be created"))?;
        if fs::read_dir(out).map_err(file("its directory cannot be read"))?.next().is_some() {
            return Err(file("its directory is not empty")(io::ErrorKind::AlreadyExists.into()));
        }
        let confirmed = condemned(dir)?.map(|condemned| condemned.confirmed).unwrap_or_default();
        salvage(dir, out, &confirmed)
    };
    make().map(|(survey, _)| survey).map_err(|cause| Cause::in_operation(cause, "salvage into", &path))
}

/// A store while it is being filled.
struct Fresh<'a> {
    connection: &'a Connection,
    in_batch: u64,
    named: BTreeSet<u32>,
    // Numbers with two names, of which nobody knows which one is right: both get the state, the second under a number
    // of its own.
    twins: BTreeSet<u32>,
    // By `Queue::index`.
    last: [u64; 3],
    streams: Streams,
    // The numbers that they had.
    dead_letters: Vec<u64>,
    messages: u64,
    blobs: u64,
    blob_bytes: u64,
    // Up to which row of `missing` the control plane was told.
    told: u64,
    scratch: Vec<u8>,
}

impl Fresh<'_> {
    /// The numbers under which a function's rows go on.
    fn numbers(&self, function: u32) -> impl Iterator<Item = u32> + use<> {
        [function].into_iter().chain(self.twins.contains(&function).then_some(function | TWIN))
    }

    /// The dead letters have other numbers now, by which the control plane must know them.
    fn tell_letters(&mut self, old: Option<StoreEpoch>, new: StoreEpoch) -> Result<(), Cause> {
        for (number, before) in (1..).zip(std::mem::take(&mut self.dead_letters)) {
            self.dead_letters.push(before);
            let Some(Ok(letter)) = letters::read(self.connection, number)? else { continue };
            let DeadLetter { function, event, stamp, dead: cause, .. } = &letter;
            let told = What::Dead(Box::new(letters::letter(function, cause, event)));
            let notes = [
                old.map(|old| dead::Note::new(old, before, What::Resolved(Resolved::Moved))),
                Some(dead::Note::new(new, number, told)),
            ];
            for note in notes.into_iter().flatten() {
                let emitter = Emitter { function, event, stamp: *stamp };
                let mut record = Vec::new();
                rows::write_record(&mut record, &emitter, dead::STREAM, &letters::body(&note));
                self.put_record(Class::High, dead::STREAM, &record)?;
            }
            self.taken()?;
        }
        Ok(())
    }

    fn put_record(&mut self, class: Class, stream: &str, body: &[u8]) -> Result<(), Cause> {
        let last = &mut self.last[Queue::Records(class).index()];
        *last += 1;
        let stream = self.streams.add(stream, body.len());
        self.connection.prepare_cached(tiles::sql(class).insert)?.execute((
            rows::integer(*last),
            stream,
            rows::checksum(body),
            body,
        ))?;
        Ok(())
    }

    fn take(&mut self, piece: &Piece<'_>) -> Result<(), Cause> {
        let put = |sql| self.connection.prepare_cached(sql);
        match *piece {
            Piece::Function { id, name } => {
                let id = if self.named.insert(id) {
                    id
                } else {
                    self.twins.insert(id);
                    id | TWIN
                };
                functions::insert(self.connection, id, name)?;
            }
            Piece::State { function, partition, key, expires_us, value } => {
                let sql = "REPLACE INTO state (function, partition, key, expires_us, checksum, value) \
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
                for function in self.numbers(function) {
                    let checksum = rows::state_checksum(function, partition, key, expires_us, value);
                    put(sql)?.execute((function, partition, key, expires_us, checksum, value))?;
                }
            }
            Piece::Seen { function, partition, source, value } => {
                let sql =
                    "REPLACE INTO seen (function, partition, source, checksum, value) VALUES (?1, ?2, ?3, ?4, ?5)";
                for function in self.numbers(function) {
                    let checksum = rows::keyed_checksum(function, partition, source.as_bytes(), value);
                    put(sql)?.execute((function, partition, source, checksum, value))?;
                }
            }
            Piece::Queued { queue: Queue::Records(class), body, .. } => {
                let head = rows::read_record_head(body);
                self.put_record(class, head.as_ref().map_or("", |head| head.stream), body)?;
            }
            Piece::Queued { queue: queue @ Queue::Publishes, body, .. } => {
                let last = &mut self.last[queue.index()];
                *last += 1;
                put("INSERT INTO publishes (id, checksum, body) VALUES (?1, ?2, ?3)")?.execute((
                    rows::integer(*last),
                    rows::checksum(body),
                    body,
                ))?;
            }
            Piece::Gone { class, ref run } => {
                let last = &mut self.last[Queue::Records(class).index()];
                let first = *last + 1;
                *last += run.last - run.first + 1;
                let run = Run { first, last: *last, gone: run.gone.clone() };
                let (streams, scratch) = (&mut self.streams, &mut self.scratch);
                Tiles { connection: self.connection, class, done: 0, streams, scratch }.write(&run)?;
            }
            Piece::Message { message, body } => {
                self.messages += 1;
                messages::put(self.connection, None, &message.queue, message.due_us, &message.event, body)?;
                self.keep(blobs::content_of(&message.event))?;
            }
            Piece::Blob { name, blob } => {
                self.blobs += 1;
                blobs::put(self.connection, &mut self.scratch, name, blob)?;
                self.keep(Some((blob.digest, blob.bytes)))?;
            }
            // What refers to it brings it.
            Piece::Content { .. } => {}
            Piece::Watched { path, file } => blobs::watch(self.connection, &mut self.scratch, path, Some(file))?,
            Piece::Scheduled(of) => of.store(self.connection)?,
            Piece::Usage { body } => usage::insert(self.connection, body)?,
            Piece::Boot(boot) => boot.store(self.connection)?,
            Piece::Metered(metered) => {
                schema::set_meta(self.connection, schema::METERED_MONTH, metered.month.into())?;
                schema::set_meta(self.connection, schema::METERED_BYTES, metered.bytes)?;
            }
            Piece::DeadLetter { id, body } => {
                self.dead_letters.push(id);
                let event = rows::read_dead_letter(id, body).map_or_else(|_| letters::nobody(), |letter| letter.event);
                letters::put(self.connection, &event, body)?;
                self.keep(blobs::content_of(&event))?;
            }
            Piece::Deployment { function, value } => {
                let checksum = rows::named_checksum(function, value);
                let sql = "REPLACE INTO deployments (function, checksum, value) VALUES (?1, ?2, ?3)";
                put(sql)?.execute((function, checksum, value))?;
            }
            Piece::Missing { told, missing } => {
                rows::put_missing(self.connection, &mut self.scratch, missing)?;
                if told {
                    self.told = rows::number(self.connection.last_insert_rowid());
                }
            }
        }
        self.taken()
    }

    /// Whatever refers to a content brings it.
    fn keep(&mut self, content: Option<(blobs::ContentDigest, u64)>) -> Result<(), Cause> {
        let Some((digest, bytes)) = content else { return Ok(()) };
        if blobs::keep(self.connection, &digest, bytes)? {
            self.blob_bytes += bytes;
        }
        Ok(())
    }

    fn taken(&mut self) -> Result<(), Cause> {
        self.in_batch += 1;
        if self.in_batch == BATCH {
            self.in_batch = 0;
            self.connection.execute_batch("COMMIT; BEGIN IMMEDIATE")?;
        }
        Ok(())
    }
}
