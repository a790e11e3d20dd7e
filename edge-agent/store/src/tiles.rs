//! The rows of an outbox: above the mark they tile its sequences.
//!
//! A row is a record, or a run: consecutive sequences of which nothing exists any more ([`Kind::Gone`], with a tally of
//! what it was), or that the control plane has or knows of ([`Kind::Settled`]). The row after the mark is never settled:
//! the mark takes it in. Runs that touch each other are one, unless their tallies together are too long.
//!
//! Only ends of requests confirm: what lies wholly between the ends is settled, and a run that has grown since it was
//! sent sticks out, stays, and is told again. So nothing here has to know what is on its way.

use rusqlite::Connection;
use sync_protocol::records::{Class, Gone, MAX_TALLY, Reason, Tally};

use crate::error::Cause;
use crate::queue::{Kind, Queue, Row};
use crate::rows;
use crate::streams::Streams;

/// The statements that outboxes have beside those of all queues.
pub(crate) struct Sql {
    /// Number, stream, checksum and body of a record.
    pub(crate) insert: &'static str,
    /// Number, kind, last, checksum and body of a run.
    put_run: &'static str,
    /// The highest row that is not above (number), as [`Row::of`] reads it.
    at: &'static str,
    /// Stream, size and body of the record (number).
    record: &'static str,
    /// At most (limit) runs of what is gone above (number), as [`Row::of`] reads them.
    pub(crate) gone: &'static str,
    /// Number, checksum, body, kind, last and stream of at most (limit) rows above (number).
    pub(crate) heads: &'static str,
    /// Stream and size of the records from (number) to (number).
    sizes: &'static str,
}

macro_rules! sql {
    ($table:literal) => {
        Sql {
            insert: concat!("INSERT INTO ", $table, " (id, kind, stream, checksum, body) VALUES (?1, 0, ?2, ?3, ?4)"),
            put_run: concat!("REPLACE INTO ", $table, " (id, kind, last, checksum, body) VALUES (?1, ?2, ?3, ?4, ?5)"),
            at: concat!(
                "SELECT id, checksum, body, kind, last FROM ",
                $table,
                " WHERE id <= ?1 ORDER BY id DESC LIMIT 1"
            ),
            record: concat!("SELECT stream, length(body), body FROM ", $table, " WHERE id = ?1 AND kind = 0"),
            gone: concat!(
                "SELECT id, checksum, body, kind, last FROM ",
                $table,
                " INDEXED BY ",
                $table,
                "_gone WHERE kind = 1 AND id > ?1 ORDER BY id LIMIT ?2"
            ),
            heads: concat!(
                "SELECT id, checksum, body, kind, last, stream FROM ",
                $table,
                " WHERE id > ?1 ORDER BY id LIMIT ?2"
            ),
            sizes: concat!("SELECT stream, length(body) FROM ", $table, " WHERE id BETWEEN ?1 AND ?2 AND kind = 0"),
        }
    };
}

static NORMAL: Sql = sql!("outbox_normal");
static HIGH: Sql = sql!("outbox_high");

pub(crate) fn sql(class: Class) -> &'static Sql {
    match class {
        Class::Normal => &NORMAL,
        Class::High => &HIGH,
    }
}

/// Consecutive sequences without a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// What they were; `None`: they are settled.
    pub(crate) gone: Option<Gone>,
}

impl Run {
    /// One record goes.
    pub(crate) fn one(sequence: u64, stream: &str, reason: Reason) -> Self {
        let tally = vec![Tally { stream: stream.into(), reason, count: 1 }];
        Self { first: sequence, last: sequence, gone: Some(Gone { tally }) }
    }

    /// Takes in the run that follows it, if that touches it, is of the same kind, and the tally does not get too long.
    pub(crate) fn take_in(&mut self, next: &Self) -> bool {
        if self.last.checked_add(1) != Some(next.first) {
            return false;
        }
        let merged = match (&mut self.gone, &next.gone) {
            (None, None) => true,
            (Some(gone), Some(next)) => merge(gone, next),
            _ => false,
        };
        if merged {
            self.last = next.last;
        }
        merged
    }

    /// Goes on with what is open, or opens it; what is then to be stored.
    pub(crate) fn extend(open: &mut Option<Self>, run: Self) -> Option<Self> {
        if let Some(before) = open
            && before.take_in(&run)
        {
            return None;
        }
        open.replace(run)
    }

    fn kind(&self) -> Kind {
        if self.gone.is_some() { Kind::Gone } else { Kind::Settled }
    }
}

/// Adds one tally to another, or nothing if it would get too long.
fn merge(gone: &mut Gone, other: &Gone) -> bool {
    let same = |one: &Tally, other: &Tally| one.reason == other.reason && one.stream == other.stream;
    let new = other.tally.iter().filter(|tally| !gone.tally.iter().any(|known| same(known, tally))).count();
    if gone.tally.len() + new > MAX_TALLY {
        return false;
    }
    for tally in &other.tally {
        match gone.tally.iter_mut().find(|known| same(known, tally)) {
            Some(known) => known.count += tally.count,
            None => gone.tally.push(tally.clone()),
        }
    }
    true
}

/// The run that a sequence lies in, if it is one.
pub(crate) fn run_at(connection: &Connection, class: Class, sequence: u64) -> Result<Option<Run>, Cause> {
    let queue = Queue::Records(class);
    let mut statement = connection.prepare_cached(sql(class).at)?;
    let mut found = statement.query([rows::bound(sequence)])?;
    let Some(row) = found.next()? else { return Ok(None) };
    if row.get::<_, i64>(3)? == Kind::Item.number() {
        return Ok(None);
    }
    let id = rows::number(row.get(0)?);
    match Row::of(row).and_then(|row| run(&row)) {
        Ok(run) if run.last < sequence => Ok(None),
        run => run.map(Some).or_else(|what| Err(queue.damaged_run(connection, id, what)?)),
    }
}

/// A row that is a run.
pub(crate) fn run(row: &Row<'_>) -> Result<Run, String> {
    let gone = match row.kind {
        Kind::Settled => None,
        Kind::Gone => Some(rows::read_gone(row.body)?),
        Kind::Item => return Err("it is a record".into()),
    };
    if row.last < row.id {
        return Err(format!("it ends at {}", row.last));
    }
    Ok(Run { first: row.id, last: row.last, gone })
}

/// Changes the outbox of a class within a transaction.
pub(crate) struct Tiles<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) class: Class,
    /// The mark: nothing up to it is looked at.
    pub(crate) done: u64,
    pub(crate) streams: &'a mut Streams,
    pub(crate) scratch: &'a mut Vec<u8>,
}

impl Tiles<'_> {
    /// The control plane has what was sent from `first` to `last`. What then is the mark.
    pub(crate) fn settle(&mut self, first: u64, last: u64) -> Result<u64, Cause> {
        let (mut first, mut last) = (first.max(self.done + 1), last);
        // What sticks out has grown since.
        if let Some(run) = self.run_at(first)?.filter(|run| run.first < first) {
            first = run.last + 1;
        }
        if let Some(run) = self.run_at(last)?.filter(|run| run.last > last) {
            last = run.first - 1;
        }
        if first > last {
            return Ok(self.done);
        }
        if first > self.done + 1 {
            self.clear(first, last)?;
            self.put(Run { first, last, gone: None })?;
            return Ok(self.done);
        }
        self.done = last;
        // There is one at most, since those that touch are one; it is deleted with all else that is done.
        while let Some(run) = self.run_at(self.done + 1)?.filter(|run| run.gone.is_none()) {
            self.done = run.last;
        }
        Ok(self.done)
    }

    /// Gives up records that wait; what of these numbers is none is passed over.
    pub(crate) fn drop_records(&mut self, sequences: &[u64], reason: Reason) -> Result<(), Cause> {
        let mut open: Option<Run> = None;
        let done = self.done;
        for sequence in sequences.iter().copied().filter(|sequence| *sequence > done) {
            if let Some(stream) = self.remove_record(sequence)?
                && let Some(before) = Run::extend(&mut open, Run::one(sequence, &stream, reason))
            {
                self.put(before)?;
            }
        }
        open.map_or(Ok(()), |run| self.put(run))
    }

    /// What cannot be read from `first`, which is above the mark, to `last` is gone.
    pub(crate) fn lose(&mut self, first: u64, last: u64) -> Result<(), Cause> {
        self.clear(first, last)?;
        let tally = vec![Tally { stream: String::new(), reason: Reason::Damaged, count: last - first + 1 }];
        self.put(Run { first, last, gone: Some(Gone { tally }) })
    }

    fn run_at(&self, sequence: u64) -> Result<Option<Run>, Cause> {
        Ok(run_at(self.connection, self.class, sequence)?.filter(|run| run.first > self.done))
    }

    /// Stores a run where there is nothing, together with those of its kind that it touches.
    pub(crate) fn put(&mut self, mut run: Run) -> Result<(), Cause> {
        if let Some(mut before) = self.run_at(run.first - 1)?
            && before.take_in(&run)
        {
            run = before;
        }
        if let Some(after) = self.run_at(run.last + 1)?
            && run.take_in(&after)
        {
            self.delete(after.first, after.first)?;
        }
        self.write(&run)
    }

    /// Stores a run as it is.
    pub(crate) fn write(&mut self, run: &Run) -> Result<(), Cause> {
        match &run.gone {
            Some(gone) => rows::write_gone(self.scratch, gone),
            None => self.scratch.clear(),
        }
        let checksum = rows::run_checksum(run.kind(), run.first, run.last, self.scratch);
        self.connection.prepare_cached(sql(self.class).put_run)?.execute((
            rows::integer(run.first),
            run.kind().number(),
            rows::integer(run.last),
            checksum,
            &*self.scratch,
        ))?;
        Ok(())
    }

    /// Deletes a record; its stream.
    fn remove_record(&mut self, sequence: u64) -> Result<Option<String>, Cause> {
        let mut statement = self.connection.prepare_cached(sql(self.class).record)?;
        let mut found = statement.query([rows::integer(sequence)])?;
        let Some(row) = found.next()? else { return Ok(None) };
        let (number, bytes): (u32, i64) = (row.get(0)?, row.get(1)?);
        let name = match self.streams.name(number) {
            Some(name) => name.to_string(),
            None => {
                let head = rows::read_record_head(row.get_ref(2)?.as_blob().unwrap_or_default());
                head.map_or_else(|_| String::new(), |head| head.stream.to_owned())
            }
        };
        drop(found);
        self.streams.remove(number, rows::number(bytes));
        self.delete(sequence, sequence)?;
        Ok(Some(name))
    }

    /// Deletes all rows from `first` to `last`.
    fn clear(&mut self, first: u64, last: u64) -> Result<(), Cause> {
        let mut statement = self.connection.prepare_cached(sql(self.class).sizes)?;
        let mut found = statement.query((rows::integer(first), rows::bound(last)))?;
        while let Some(row) = found.next()? {
            self.streams.remove(row.get(0)?, rows::number(row.get(1)?));
        }
        drop(found);
        self.delete(first, last)
    }

    fn delete(&self, first: u64, last: u64) -> Result<(), Cause> {
        let sql = Queue::Records(self.class).sql().delete;
        self.connection.prepare_cached(sql)?.execute((rows::integer(first), rows::bound(last)))?;
        Ok(())
    }
}
