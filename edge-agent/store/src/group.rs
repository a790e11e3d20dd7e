//! A transaction while it is being written.

use agent_core::effect::{Effect, Priority};
use agent_core::event::EventKind;
use agent_core::retention::Refused;
use agent_core::state::expiry_us;
use agent_core::{Event, FunctionId};
use rusqlite::{CachedStatement, OptionalExtension, Transaction};
use sync_protocol::dead::{Action, Command, INLET, Note, Payload, Resolved, STREAM, What};
use sync_protocol::records::{Class, Reason, Stamp, StoreEpoch};
use sync_protocol::twin;
use sync_protocol::usage::{self, Counts, Histogram};

use crate::error::Cause;
use crate::functions::Functions;
use crate::queue::{Ends, Queue};
use crate::rows::Emitter;
use crate::store::{EXPIRE_ROWS, Position, TRIM_BYTES, TRIM_ROWS};
use crate::streams::Streams;
use crate::tiles::{self, Run, Tiles};
use crate::usage::Metering;
use crate::write::{BlobWrite, MAX_RECORD_BYTES, Missing, Outcome, OutcomeResult, Uses, Write};
use crate::{blobs, boots, letters, messages, rows, schema};

/// What a transaction changes beside the database.
pub(crate) struct Changed<'a> {
    pub(crate) position: &'a mut Position,
    pub(crate) streams: &'a mut Streams,
    pub(crate) functions: &'a mut Functions,
    pub(crate) metering: &'a mut Metering,
    pub(crate) scratch: &'a mut Vec<u8>,
}

/// A transaction while it is being written.
pub(crate) struct Group<'a> {
    transaction: &'a Transaction<'a>,
    epoch: StoreEpoch,
    policy: &'a Refused,
    position: &'a mut Position,
    streams: &'a mut Streams,
    functions: &'a mut Functions,
    metering: &'a mut Metering,
    scratch: &'a mut Vec<u8>,
    before: Position,
    size: CachedStatement<'a>,
    put: CachedStatement<'a>,
    delete: CachedStatement<'a>,
    seen: CachedStatement<'a>,
    // By `Queue::index`.
    insert: [CachedStatement<'a>; 3],
    // By `Class::number`: records at the end of the outbox that were refused, and are not written yet.
    refusing: [Option<Run>; 2],
}

impl<'a> Group<'a> {
    pub(crate) fn new(
        transaction: &'a Transaction<'a>,
        epoch: StoreEpoch,
        refused: &'a Refused,
        Changed { position, streams, functions, metering, scratch }: Changed<'a>,
    ) -> Result<Self, Cause> {
        let record = |class| transaction.prepare_cached(tiles::sql(class).insert);
        Ok(Self {
            size: transaction.prepare_cached(
                "SELECT length(key) + length(value) FROM state WHERE function = ?1 AND partition = ?2 AND key = ?3",
            )?,
            put: transaction.prepare_cached(
                "REPLACE INTO state (function, partition, key, expires_us, checksum, value) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?,
            delete: transaction
                .prepare_cached("DELETE FROM state WHERE function = ?1 AND partition = ?2 AND key = ?3")?,
            seen: transaction.prepare_cached(
                "REPLACE INTO seen (function, partition, source, checksum, value) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?,
            insert: [
                record(Class::Normal)?,
                record(Class::High)?,
                transaction.prepare_cached("INSERT INTO publishes (id, checksum, body) VALUES (?1, ?2, ?3)")?,
            ],
            refusing: [None, None],
            before: *position,
            transaction,
            epoch,
            policy: refused,
            position,
            streams,
            functions,
            metering,
            scratch,
        })
    }

    pub(crate) fn write(&mut self, write: &Write) -> Result<(), Cause> {
        match write {
            Write::Outcome(outcome) => self.outcome(outcome),
            Write::Delivered { class, ranges } => {
                self.put_refused(*class)?;
                ranges.iter().try_for_each(|(first, last)| {
                    self.was_given(Queue::Records(*class), *last)?;
                    let done = self.tiles(*class).settle(*first, *last)?;
                    self.position.queues[Queue::Records(*class).index()].done = done;
                    Ok(())
                })
            }
            Write::Dropped { class, sequences, reason } => {
                self.put_refused(*class)?;
                self.tiles(*class).drop_records(sequences, *reason)
            }
            Write::Published { up_to } => {
                self.was_given(Queue::Publishes, *up_to)?;
                let ends = &mut self.position.queues[Queue::Publishes.index()];
                ends.done = ends.done.max(*up_to);
                Ok(())
            }
            Write::Lost { class, first, last, reason } => self.lost(*class, *first, *last, reason),
            Write::Told { id } => {
                let told = schema::meta(self.transaction, schema::MISSING_TOLD)?.max(*id);
                schema::set_meta(self.transaction, schema::MISSING_TOLD, told)
            }
            Write::Powered { boot, monotonic_us } => boots::powered(self.transaction, *boot, *monotonic_us),
            Write::Metered(metered) => {
                schema::set_meta(self.transaction, schema::METERED_MONTH, metered.month.into())?;
                schema::set_meta(self.transaction, schema::METERED_BYTES, metered.bytes)
            }
            Write::MessageLost { id } => {
                if messages::delete(self.transaction, *id)? {
                    self.position.messages = self.position.messages.saturating_sub(1);
                }
                Ok(())
            }
            Write::Blob(write) => self.blob(write),
            Write::ContentsGone(digests) => digests.iter().try_for_each(|digest| {
                let bytes = blobs::gone(self.transaction, digest)?.unwrap_or(0);
                self.position.blob_bytes = self.position.blob_bytes.saturating_sub(bytes);
                Ok(())
            }),
            Write::Watched(path, file) => blobs::watch(self.transaction, self.scratch, path, file.as_ref()),
            Write::Requested { id, due_us, attempts } => self.requested(*id, *due_us, *attempts),
            Write::Answered { id, to, event } => {
                if messages::delete(self.transaction, *id)? {
                    self.position.messages = self.position.messages.saturating_sub(1);
                    // Due whatever the clock says. Under a number of its own: that of the request is used up.
                    self.put_message(None, &messages::retry_queue(to), 0, 0, event)?;
                }
                Ok(())
            }
            Write::Scheduled(scheduled) => scheduled.store(self.transaction),
            Write::StateEnded { time_us } => self.state_ended(*time_us),
            Write::TellUsage { stamp } => {
                self.metering.tell = Some(*stamp);
                Ok(())
            }
            Write::Command { command, stamp } => self.command(command, *stamp),
            Write::Deployment(function, Some(deployment)) => {
                rows::write_deployment(self.scratch, deployment);
                self.transaction
                    .prepare_cached("REPLACE INTO deployments (function, checksum, value) VALUES (?1, ?2, ?3)")?
                    .execute((function, rows::named_checksum(function, self.scratch), &*self.scratch))?;
                Ok(())
            }
            Write::Deployment(function, None) => {
                self.transaction.prepare_cached("DELETE FROM deployments WHERE function = ?1")?.execute([function])?;
                Ok(())
            }
        }
    }

    fn outcome(&mut self, outcome: &Outcome) -> Result<(), Cause> {
        let message = match &outcome.uses {
            Uses::Nothing => None,
            Uses::Message(id) => {
                if !messages::delete(self.transaction, *id)? {
                    return Ok(());
                }
                self.position.messages = self.position.messages.saturating_sub(1);
                Some(*id)
            }
            Uses::Moment(moment) => {
                if !moment.serve(self.transaction)? {
                    return Ok(());
                }
                None
            }
        };
        match &outcome.result {
            OutcomeResult::Nothing => return Ok(()),
            OutcomeResult::Retry { due_us, attempts } => {
                let queue = messages::retry_queue(&outcome.function_name);
                self.put_message(message, &queue, *due_us, *attempts, &outcome.event)?;
            }
            OutcomeResult::Effects(effects) => {
                for effect in effects {
                    self.effect(outcome, effect)?;
                }
                for write in &outcome.blobs {
                    self.blob(write)?;
                }
            }
            OutcomeResult::Dead(dead) => {
                rows::write_dead_letter(self.scratch, outcome, dead);
                let id = letters::put(self.transaction, &outcome.event, self.scratch)?;
                self.position.dead_letters += 1;
                let letter = letters::letter(&outcome.function_name, dead, &outcome.event);
                self.tell(&outcome.into(), &Note::new(self.epoch, id, What::Dead(Box::new(letter))))?;
            }
        }
        if outcome.usage.invocations > 0 {
            let hour = usage::hour(outcome.stamp.wall_us);
            let state_peak_bytes = self.functions.state_bytes(outcome.function.0);
            let used = Counts { state_peak_bytes, ..outcome.usage };
            self.metering.group.ran(hour, &outcome.function_name, &outcome.event.device, &used);
            self.metering.ran = Some(outcome.stamp);
        }
        if let Some((source, value)) = &outcome.seen {
            let (FunctionId(function), partition) = (outcome.function, &*outcome.partition);
            let checksum = rows::keyed_checksum(function, partition, source.as_bytes(), value);
            self.seen.execute((function, partition, &**source, checksum, value))?;
        }
        Ok(())
    }

    fn effect(&mut self, outcome: &Outcome, effect: &Effect) -> Result<(), Cause> {
        let (FunctionId(function), partition) = (outcome.function, &*outcome.partition);
        match effect {
            Effect::StatePut { key, value, ttl_s } => {
                let goes = self.state_size(function, partition, key)?;
                let expires_us = expiry_us(outcome.event.time_us, *ttl_s).map(rows::bound);
                let checksum = rows::state_checksum(function, partition, key, expires_us, value);
                self.put.execute((function, partition, key, expires_us, checksum, value))?;
                self.functions.change(function, (key.len() + value.len()) as u64, goes);
                Ok(())
            }
            Effect::StateDelete { key } => {
                let goes = self.state_size(function, partition, key)?;
                self.delete.execute((function, partition, key))?;
                self.functions.change(function, 0, goes);
                Ok(())
            }
            Effect::TwinReport { name, value } => {
                let report = twin::Report { property: name.clone(), value: Payload::of(value) };
                let body = serde_json::to_vec(&report).expect("a report is text, which becomes JSON");
                self.emit(Class::Normal, &outcome.into(), twin::STREAM, &body)
            }
            Effect::Emit { stream, body, priority } => {
                let class = match priority {
                    Priority::Normal => Class::Normal,
                    Priority::High => Class::High,
                };
                self.emit(class, &outcome.into(), stream, body)
            }
            Effect::Enqueue { queue, body, delay_ms } => {
                let event = Event::new(
                    EventKind::Queue,
                    outcome.event.device.clone(),
                    queue.as_str(),
                    body.as_slice(),
                    outcome.stamp.wall_us,
                );
                let due_us = outcome.stamp.wall_us.saturating_add(u64::from(*delay_ms) * 1_000);
                self.put_message(None, queue, due_us, 0, &event)
            }
            Effect::Count { name, value } => {
                let hour = usage::hour(outcome.stamp.wall_us);
                self.metering.group.count(hour, &outcome.function_name, name, value.get());
                Ok(())
            }
            Effect::Observe { name, value } => {
                if let Some(values) = Histogram::of(value.get()) {
                    let hour = usage::hour(outcome.stamp.wall_us);
                    self.metering.group.observe(hour, &outcome.function_name, name, &values);
                }
                Ok(())
            }
            Effect::Request(request) => {
                let event = request.waiting(&outcome.event.device, outcome.stamp.wall_us);
                // Due whatever the clock says.
                self.put_message(None, &messages::request_queue(&outcome.function_name), 0, 0, &event)
            }
            // Given by whoever waits for it, after the commit.
            Effect::Respond(_) => Ok(()),
            // In `Outcome::blobs`, with their contents on the disk.
            Effect::BlobPut { .. } | Effect::BlobDelete { .. } => Ok(()),
            Effect::Publish { topic, payload, flags } => {
                rows::write_publish(self.scratch, &outcome.event.device, topic, payload, *flags);
                let id = self.next(Queue::Publishes);
                self.insert[Queue::Publishes.index()].execute((id, rows::checksum(self.scratch), &*self.scratch))?;
                Ok(())
            }
        }
    }

    /// What a value and its key take; 0 if there is none.
    fn state_size(&mut self, function: u32, partition: &str, key: &[u8]) -> Result<u64, Cause> {
        let size: Option<i64> = self.size.query_row((function, partition, key), |row| row.get(0)).optional()?;
        Ok(size.map_or(0, rows::number))
    }

    /// Deletes values whose time ended, those first that ended first, within the bound.
    fn state_ended(&mut self, time_us: u64) -> Result<(), Cause> {
        let sql = "SELECT function, partition, key, length(key) + length(value) FROM state WHERE expires_us <= ?1 \
                   ORDER BY expires_us LIMIT ?2";
        let mut ended = self.transaction.prepare_cached(sql)?;
        let ended = ended.query_map((rows::bound(time_us), EXPIRE_ROWS as i64), |row| {
            Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?, row.get::<_, i64>(3)?))
        })?;
        for (function, partition, key, size) in ended.collect::<Result<Vec<_>, _>>()? {
            self.delete.execute((function, partition, key))?;
            self.functions.change(function, 0, rows::number(size));
        }
        Ok(())
    }

    fn blob(&mut self, write: &BlobWrite) -> Result<(), Cause> {
        match write {
            BlobWrite::Put { name, blob, wanted } => {
                let before = blobs::named(self.transaction, name)?;
                if blobs::keep(self.transaction, &blob.digest, blob.bytes)? {
                    self.position.blob_bytes += blob.bytes;
                }
                blobs::put(self.transaction, self.scratch, name, blob)?;
                match before {
                    Some(digest) if digest == blob.digest => return Ok(()),
                    Some(digest) => blobs::release(self.transaction, &digest)?,
                    None => self.position.blobs += 1,
                }
                let event = blobs::event(name, blob);
                wanted.iter().try_for_each(|function| {
                    // Due whatever the clock says.
                    self.put_message(None, &messages::retry_queue(function), 0, 0, &event)
                })
            }
            BlobWrite::Delete { name } => {
                if let Some(digest) = blobs::named(self.transaction, name)? {
                    blobs::delete(self.transaction, name)?;
                    blobs::release(self.transaction, &digest)?;
                    self.position.blobs = self.position.blobs.saturating_sub(1);
                }
                Ok(())
            }
        }
    }

    fn requested(&mut self, id: u64, due_us: u64, attempts: u32) -> Result<(), Cause> {
        let Some(found) = messages::find(self.transaction, id)? else { return Ok(()) };
        // What is damaged is found, and passed over, by whoever reads the queue.
        let Ok(message) = found else { return Ok(()) };
        rows::write_message(self.scratch, attempts, &message.event);
        messages::put(self.transaction, Some(id), &message.queue, due_us, &message.event, self.scratch)
    }

    // `id` is that of a message that it takes the place of.
    fn put_message(
        &mut self,
        id: Option<u64>,
        queue: &str,
        due_us: u64,
        attempts: u32,
        event: &Event,
    ) -> Result<(), Cause> {
        rows::write_message(self.scratch, attempts, event);
        messages::put(self.transaction, id, queue, due_us, event, self.scratch)?;
        self.position.messages += 1;
        Ok(())
    }

    fn emit(&mut self, class: Class, emitter: &Emitter<'_>, stream: &str, body: &[u8]) -> Result<(), Cause> {
        if self.policy.holds(stream) {
            return self.refuse(class, stream);
        }
        rows::write_record(self.scratch, emitter, stream, body);
        if self.scratch.len() > MAX_RECORD_BYTES {
            return Err(Cause::TooLarge {
                function: emitter.function.into(),
                stream: stream.into(),
                bytes: self.scratch.len(),
            });
        }
        let sequence = self.next(Queue::Records(class));
        let number = self.streams.add(stream, self.scratch.len());
        let checksum = rows::checksum(self.scratch);
        self.insert[Queue::Records(class).index()].execute((sequence, number, checksum, &*self.scratch))?;
        Ok(())
    }

    /// Tells the control plane what happened to a dead letter.
    fn tell(&mut self, emitter: &Emitter<'_>, note: &Note) -> Result<(), Cause> {
        self.emit(Class::High, emitter, STREAM, &letters::body(note))
    }

    /// Stores what functions used and measured, and tells the control plane if it is time.
    fn put_usage(&mut self) -> Result<(), Cause> {
        let Some(told) = self.metering.store(self.transaction, self.scratch)? else { return Ok(()) };
        let emitter = Emitter { function: "", event: &letters::nobody(), stamp: told.stamp };
        told.bodies.iter().try_for_each(|body| self.emit(Class::High, &emitter, usage::STREAM, body))
    }

    /// Does once what the control plane asks for.
    fn command(&mut self, command: &Command, stamp: Stamp) -> Result<(), Cause> {
        if command.number <= schema::meta(self.transaction, schema::COMMANDS_DONE)? {
            return Ok(());
        }
        for id in &command.letters {
            self.resolve(command, *id, stamp)?;
        }
        schema::set_meta(self.transaction, schema::COMMANDS_DONE, command.number)
    }

    fn resolve(&mut self, command: &Command, id: u64, stamp: Stamp) -> Result<(), Cause> {
        let ours = command.epoch == self.epoch;
        let (resolved, letter) = match if ours { letters::read(self.transaction, id)? } else { None } {
            // Said although it may have been said before: quotas may have taken those words.
            None => (Resolved::Gone, None),
            // It must not fail the commit, which would have the command come again for ever.
            Some(Err(_)) => (Resolved::Damaged, None),
            Some(Ok(letter)) => match command.action {
                // There is no function to give it to.
                Action::Retry if letter.function == INLET => return Ok(()),
                Action::Retry => {
                    // Due whatever the clock says.
                    self.put_message(None, &messages::retry_queue(&letter.function), 0, 0, &letter.event)?;
                    (Resolved::Retried, Some(letter))
                }
                Action::Drop => (Resolved::Dropped, Some(letter)),
            },
        };
        if resolved != Resolved::Gone {
            letters::delete(self.transaction, id)?;
            self.position.dead_letters = self.position.dead_letters.saturating_sub(1);
        }
        let (function, event) =
            letter.map_or_else(|| (String::new(), letters::nobody()), |letter| (letter.function, letter.event));
        let note = Note::new(command.epoch, id, What::Resolved(resolved));
        self.tell(&Emitter { function: &function, event: &event, stamp }, &note)
    }

    /// The number of what is put at a queue's end.
    fn next(&mut self, queue: Queue) -> i64 {
        let last = &mut self.position.queues[queue.index()].last;
        *last += 1;
        rows::integer(*last)
    }

    /// A record gets its sequence, and that is all of it.
    fn refuse(&mut self, class: Class, stream: &str) -> Result<(), Cause> {
        let sequence = rows::number(self.next(Queue::Records(class)));
        let run = Run::one(sequence, stream, Reason::Refused);
        match Run::extend(&mut self.refusing[usize::from(class.number())], run) {
            Some(before) => self.tiles(class).put(before),
            None => Ok(()),
        }
    }

    /// Stores what was refused so far: the writes of a group take effect in their order.
    fn put_refused(&mut self, class: Class) -> Result<(), Cause> {
        match self.refusing[usize::from(class.number())].take() {
            Some(run) => self.tiles(class).put(run),
            None => Ok(()),
        }
    }

    fn tiles(&mut self, class: Class) -> Tiles<'_> {
        let done = self.position.queues[Queue::Records(class).index()].done;
        Tiles { connection: self.transaction, class, done, streams: self.streams, scratch: self.scratch }
    }

    /// What this very group adds cannot have left the gateway yet.
    fn was_given(&self, queue: Queue, up_to: u64) -> Result<(), Cause> {
        let last = self.before.queues[queue.index()].last;
        if up_to > last { Err(Cause::Ahead { queue, up_to, last }) } else { Ok(()) }
    }

    fn lost(&mut self, class: Class, first: u64, last: u64, reason: &str) -> Result<(), Cause> {
        let queue = Queue::Records(class);
        self.was_given(queue, last)?;
        let first = first.max(self.position.queues[queue.index()].done + 1);
        if first > last {
            return Ok(());
        }
        self.put_refused(class)?;
        self.tiles(class).lose(first, last)?;
        let missing = Missing { epoch: self.epoch, queue, first, last: Some(last), reason: reason.to_owned() };
        rows::put_missing(self.transaction, self.scratch, &missing)
    }

    /// Stores the marks that moved, and deletes what is done with.
    pub(crate) fn finish(mut self) -> Result<(), Cause> {
        self.put_usage()?;
        for class in Class::ALL {
            self.put_refused(class)?;
        }
        for queue in Queue::ALL {
            let ends = &mut self.position.queues[queue.index()];
            if ends.done != self.before.queues[queue.index()].done {
                schema::set_meta(self.transaction, queue.sql().table, ends.done)?;
            }
            if ends.stored <= ends.done {
                ends.stored = trim(self.transaction, queue, ends, self.streams)?;
            }
        }
        self.streams.store(self.transaction)?;
        self.functions.store(self.transaction)?;
        if self.position.messages != self.before.messages {
            schema::set_meta(self.transaction, "messages", self.position.messages)?;
        }
        if self.position.dead_letters != self.before.dead_letters {
            schema::set_meta(self.transaction, "dead_letters", self.position.dead_letters)?;
        }
        if self.position.blobs != self.before.blobs {
            schema::set_meta(self.transaction, schema::BLOBS, self.position.blobs)?;
        }
        if self.position.blob_bytes != self.before.blob_bytes {
            schema::set_meta(self.transaction, schema::BLOB_BYTES, self.position.blob_bytes)?;
        }
        Ok(())
    }
}

/// Deletes rows from the low end up to the mark, within the bounds; what then is the lowest.
fn trim(transaction: &Transaction<'_>, queue: Queue, ends: &Ends, streams: &mut Streams) -> Result<u64, Cause> {
    let (from, to) = (rows::integer(ends.stored), rows::integer(ends.done));
    let mut sizes = transaction.prepare_cached(queue.sql().sizes)?;
    let mut sizes = sizes.query((from, to, TRIM_ROWS as i64))?;
    let (mut last, mut count, mut bytes) = (from, 0, 0u64);
    while bytes < TRIM_BYTES as u64 {
        let Some(row) = sizes.next()? else { break };
        last = row.get(0)?;
        let size = rows::number(row.get(1)?);
        if let Some(stream) = row.get(2)? {
            streams.remove(stream, size);
        }
        bytes = bytes.saturating_add(size);
        count += 1;
    }
    drop(sizes);
    transaction.prepare_cached(queue.sql().delete)?.execute((from, last))?;
    // Nothing is left, and a run that was the last row stood for more than its number.
    let all = count < TRIM_ROWS && bytes < TRIM_BYTES as u64;
    Ok(if all { ends.done } else { rows::number(last) } + 1)
}
