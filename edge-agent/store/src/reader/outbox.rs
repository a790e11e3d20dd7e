//! Reading the outbox.

use agent_core::uplink::Waiting;
use rusqlite::{Connection, OptionalExtension};
use sync_protocol::records::{Class, Entry, Range, Stamp, StoreEpoch};

use super::Reader;
use crate::error::{Cause, StoreError};
use crate::queue::{Kind, Queue, Row};
use crate::streams::OTHERS;
use crate::tiles::{self, Run};
use crate::write::Missing;
use crate::{rows, schema};

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

impl Outbox {
    /// What waits of a class.
    pub fn class(&self, class: Class) -> Waiting {
        self.classes[usize::from(class.number())]
    }
}

impl Reader {
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
