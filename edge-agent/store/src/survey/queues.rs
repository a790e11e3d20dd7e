//! The queues, and how much of each stream they hold.

use std::collections::BTreeMap;

use rusqlite::Connection;
use sync_protocol::records::{StoreEpoch, Tally};

use super::{MAX_NAMED, Piece, QueueSurvey, Walk};
use crate::error::Cause;
use crate::queue::{Kind, MAX_ID, Queue, Row};
use crate::scan::{Runs, by_number, each, readable};
use crate::streams::{self, MAX_STREAMS, StreamUsage};
use crate::write::Missing;
use crate::{rows, tiles};

impl<F: FnMut(Piece<'_>) -> Result<(), Cause>> Walk<'_, F> {
    pub(super) fn queue(&mut self, connection: &Connection, queue: Queue) -> Result<(), Cause> {
        let epoch = self.found.epoch;
        let note = self.note.filter(|note| epoch.is_some_and(|epoch| epoch.0 == note.epoch));
        let (noted_done, noted_last) = note.map_or((0, 0), |note| note.queues[queue.index()]);
        let mark = match readable(queue.mark(connection))? {
            Ok(mark) => mark,
            Err(what) => {
                self.name(format!("the mark of the {queue}: {what}"));
                0
            }
        };
        let done = mark.max(noted_done);
        let mut found =
            QueueSurvey { queue, done, next: 0, whole: 0, bytes: 0, settled: 0, gone: Vec::new(), lost: Vec::new() };
        let (mut runs, mut damaged, mut last) = (Runs::default(), BTreeMap::new(), noted_last.max(done));
        let confirmed = self.confirmed.iter().filter(|(of, ..)| *of == queue).map(|(_, first, last)| (*first, *last));
        let confirmed: Vec<(u64, u64)> = confirmed.collect();
        let is_confirmed = |of: &Row<'_>| confirmed.iter().any(|(first, last)| *first <= of.id && of.last <= *last);
        let scan = by_number(connection, queue.sql().table, queue.sql().columns, done, last, |id, row| {
            let checked = Row::of(row).and_then(|row| {
                let content = match (queue, row.kind) {
                    (Queue::Records(_), Kind::Item) => Content::Record(rows::read_record(row.body)?.stream),
                    (Queue::Records(_), _) => Content::Run(tiles::run(&row)?),
                    (Queue::Publishes, _) => rows::read_publish(id, row.body).map(|_| Content::Publish)?,
                };
                Ok((row, content))
            });
            let end = checked.as_ref().map_or(id, |(row, _)| row.last);
            if end < MAX_ID {
                last = last.max(end);
            }
            match checked {
                Ok((row, content)) => {
                    runs.add(row.id, row.last);
                    match (queue, content) {
                        _ if is_confirmed(&row) => found.settled += row.last - row.id + 1,
                        (Queue::Records(class), Content::Run(run)) => match &run.gone {
                            None => found.settled += run.last - run.first + 1,
                            Some(gone) => {
                                found.tally(&gone.tally);
                                (self.take)(Piece::Gone { class, run })?;
                            }
                        },
                        (_, content) => {
                            let bytes = row.body.len() as u64;
                            found.whole += 1;
                            found.bytes += bytes;
                            if let Content::Record(stream) = content {
                                self.found.add_to_stream(stream, bytes);
                            }
                            (self.take)(Piece::Queued { queue, id, body: row.body })?;
                        }
                    }
                }
                Err(what) if damaged.len() < MAX_NAMED => {
                    damaged.insert(id, what);
                }
                Err(_) => {}
            }
            Ok(())
        })?;
        for (first, last) in confirmed {
            runs.add(first, last);
        }
        found.next = last + 1;
        for (first, last) in runs.holes(done + 1, last) {
            let mut reason = match damaged.range(first..=last).next() {
                Some((id, what)) => format!("{id}: {what}"),
                None => match &scan.broken {
                    Some(what) => what.clone(),
                    None => "there is no such row".into(),
                },
            };
            reason.truncate(reason.floor_char_boundary(300));
            let epoch = epoch.unwrap_or(StoreEpoch(0));
            found.lost.push(Missing { epoch, queue, first, last: Some(last), reason });
        }
        if scan.open {
            let reason = scan.broken.unwrap_or_default();
            let epoch = epoch.unwrap_or(StoreEpoch(0));
            match found.lost.last_mut() {
                // Up to the last number that is known, and more perhaps.
                Some(lost) if lost.last == Some(last) => lost.last = None,
                _ => found.lost.push(Missing { epoch, queue, first: last + 1, last: None, reason }),
            }
        }
        self.found.queues.push(found);
        Ok(())
    }

    /// Whether the table `streams` says how much of each stream is stored.
    pub(super) fn streams(&mut self, connection: &Connection) -> Result<(), Cause> {
        let mut counted: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for queue in Queue::ALL {
            let sql = format!("SELECT id, length(body), {} FROM {}", queue.sql().stream, queue.sql().table);
            let broken = each(connection, &sql, [], |row| {
                if let (Ok(bytes), Ok(Some(stream))) = (rows::column(row, 1), rows::column::<Option<u32>>(row, 2)) {
                    let (records, sum) = counted.entry(stream).or_default();
                    *records += 1;
                    *sum += rows::number(bytes);
                }
                Ok(())
            })?;
            if broken.is_some() {
                // Named where the queue is read; what is stored of its streams nobody can tell.
                return Ok(());
            }
        }
        match readable(streams::read(connection))? {
            Err(what) => self.name(what),
            Ok(stored) => {
                for (number, stream) in (0..).zip(&stored) {
                    let found = counted.remove(&number).unwrap_or_default();
                    if found != (stream.records, stream.bytes) {
                        let StreamUsage { name, records, bytes } = stream;
                        let (rows, size) = found;
                        self.name(format!(
                            "the stream {name:?} has {rows} records of {size} bytes, and {records} of {bytes} were counted"
                        ));
                    }
                }
                if !counted.is_empty() {
                    self.name(format!("records of {} streams have numbers that were never given", counted.len()));
                }
            }
        }
        Ok(())
    }
}

enum Content {
    Record(String),
    Run(tiles::Run),
    Publish,
}

impl QueueSurvey {
    fn tally(&mut self, tally: &[Tally]) {
        for of in tally {
            let same = |known: &&mut Tally| known.reason == of.reason && known.stream == of.stream;
            if let Some(known) = self.gone.iter_mut().find(same) {
                known.count += of.count;
            } else if self.gone.len() < MAX_STREAMS {
                self.gone.push(of.clone());
            } else if let Some(last) = self.gone.last_mut() {
                // Too many to be told apart.
                last.stream.clear();
                last.count += of.count;
            }
        }
    }
}

impl super::Survey {
    fn add_to_stream(&mut self, stream: String, bytes: u64) {
        let full = self.streams.len() >= MAX_STREAMS && !self.streams.contains_key(&stream);
        let (records, sum) = self.streams.entry(if full { String::new() } else { stream }).or_default();
        *records += 1;
        *sum += bytes;
    }
}
