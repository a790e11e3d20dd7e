//! The tables that are no queues.

use agent_core::pace::Metered;
use rusqlite::Connection;

use super::{Piece, Walk};
use crate::error::Cause;
use crate::scan::{by_number, each, readable};
use crate::{blobs, boots, functions, messages, rows, schedules, schema, usage};

impl<F: FnMut(Piece<'_>) -> Result<(), Cause>> Walk<'_, F> {
    pub(super) fn deployments(&mut self, connection: &Connection) -> Result<(), Cause> {
        let sql = "SELECT function, checksum, value FROM deployments ORDER BY function";
        let broken = each(connection, sql, [], |row| {
            let read = rows::column::<String>(row, 0).and_then(|function| {
                let value = rows::checked_by(row, 1, 2, |value| rows::named_checksum(&function, value))
                    .map_err(|what| format!("of {function:?}: {what}"))?;
                Ok((rows::read_deployment(value)?, value, function))
            });
            match read {
                Ok((deployment, value, function)) => {
                    (self.take)(Piece::Deployment { function: &function, value })?;
                    self.found.deployments.push((function, deployment));
                }
                Err(what) => self.name(format!("a deployment {what}")),
            }
            Ok(())
        })?;
        if let Some(what) = broken {
            self.name(format!("the table deployments: {what}"));
        }
        Ok(())
    }

    /// Whether the table `functions` says how much state there is.
    pub(super) fn state_bytes(&mut self, connection: &Connection) -> Result<(), Cause> {
        let sql = "SELECT id, checksum, state_bytes FROM functions NOT INDEXED ORDER BY id";
        // What cannot be read of it is named where the names are read.
        each(connection, sql, [], |row| {
            let id = rows::column::<u32>(row, 0);
            match (id, functions::state_bytes(row)) {
                (Ok(id), Ok(stored)) => {
                    let found = self.function(id).state_bytes;
                    if found != stored {
                        self.name(format!("function {id} has {found} bytes of state, and {stored} were counted"));
                    }
                }
                (_, Err(what)) | (Err(what), _) => self.name(what),
            }
            Ok(())
        })?;
        Ok(())
    }

    pub(super) fn dead_letters(&mut self, connection: &Connection) -> Result<(), Cause> {
        let scan = by_number(connection, "dead_letters", "0", 0, 0, |id, row| {
            match rows::checked(row, 1, 2).and_then(|body| rows::read_dead_letter(id, body).map(|_| body)) {
                Ok(body) => {
                    self.found.dead_letters += 1;
                    (self.take)(Piece::DeadLetter { id, body })?;
                }
                Err(what) => self.found.name(format!("dead letter {id}: {what}")),
            }
            Ok(())
        })?;
        if let Some(what) = scan.broken {
            self.name(format!("the table dead_letters in part: {what}"));
        }
        let found = self.found.dead_letters;
        match readable(schema::meta(connection, "dead_letters"))? {
            Ok(count) if count == found => {}
            Ok(count) => self.name(format!("{count} dead letters were stored, and {found} are whole")),
            Err(what) => self.name(format!("the number of dead letters: {what}")),
        }
        Ok(())
    }

    pub(super) fn messages(&mut self, connection: &Connection) -> Result<(), Cause> {
        let sql = "SELECT id, queue, due_us, checksum, body FROM messages NOT INDEXED ORDER BY id";
        let broken = each(connection, sql, [], |row| {
            match messages::read(row) {
                Ok((message, body)) => {
                    *self.found.messages.entry(message.queue.to_string()).or_default() += 1;
                    (self.take)(Piece::Message { message: &message, body })?;
                }
                Err(what) => self.found.name(format!("message {}: {what}", row.get::<_, i64>(0).unwrap_or_default())),
            }
            Ok(())
        })?;
        if let Some(what) = broken {
            self.name(format!("the table messages in part: {what}"));
        }
        let found: u64 = self.found.messages.values().sum();
        match readable(schema::meta(connection, "messages"))? {
            Ok(count) if count == found => {}
            Ok(count) => self.name(format!("{count} messages were stored, and {found} are whole")),
            Err(what) => self.name(format!("the number of messages: {what}")),
        }
        Ok(())
    }

    pub(super) fn blobs(&mut self, connection: &Connection) -> Result<(), Cause> {
        let sql = "SELECT name, digest, checksum, body FROM blobs NOT INDEXED ORDER BY name";
        let broken = each(connection, sql, [], |row| {
            match blobs::read(row) {
                Ok((name, blob)) => {
                    self.found.blobs += 1;
                    (self.take)(Piece::Blob { name: &name, blob: &blob })?;
                }
                Err(what) => {
                    let name: String = row.get(0).unwrap_or_default();
                    self.found.name(format!("blob {name:?}: {what}"));
                }
            }
            Ok(())
        })?;
        if let Some(what) = broken {
            self.name(format!("the table blobs in part: {what}"));
        }
        let sql = "SELECT digest, checksum, bytes FROM contents NOT INDEXED WHERE unused = 0 ORDER BY digest";
        let broken = each(connection, sql, [], |row| {
            match blobs::read_content(row) {
                Ok((digest, bytes)) => {
                    self.found.contents.0 += 1;
                    self.found.contents.1 += bytes;
                    (self.take)(Piece::Content { digest: &digest, bytes })?;
                }
                Err(what) => self.found.name(format!("the table contents: {what}")),
            }
            Ok(())
        })?;
        if let Some(what) = broken {
            self.name(format!("the table contents in part: {what}"));
        }
        let found = self.found.blobs;
        match readable(schema::meta(connection, schema::BLOBS))? {
            Ok(count) if count == found => {}
            Ok(count) => self.name(format!("{count} blobs were stored, and {found} are whole")),
            Err(what) => self.name(format!("the number of blobs: {what}")),
        }
        Ok(())
    }

    pub(super) fn watched(&mut self, connection: &Connection) -> Result<(), Cause> {
        match readable(blobs::watched(connection))? {
            Ok((files, damaged)) => {
                if damaged > 0 {
                    self.name(format!("the table watched: {damaged} rows are not what was stored"));
                }
                files.iter().try_for_each(|(path, file)| (self.take)(Piece::Watched { path, file }))
            }
            Err(what) => {
                self.name(format!("the table watched: {what}"));
                Ok(())
            }
        }
    }

    pub(super) fn schedules(&mut self, connection: &Connection) -> Result<(), Cause> {
        match readable(schedules::read(connection))? {
            Ok((schedules, damaged)) => {
                if damaged > 0 {
                    self.name(format!("the table schedules: {damaged} rows are not what was stored"));
                }
                schedules.iter().try_for_each(|of| (self.take)(Piece::Scheduled(of)))
            }
            Err(what) => {
                self.name(format!("the table schedules: {what}"));
                Ok(())
            }
        }
    }

    pub(super) fn usage(&mut self, connection: &Connection) -> Result<(), Cause> {
        let scan = by_number(connection, "usage", "0", 0, 0, |id, row| {
            match rows::checked(row, 1, 2).and_then(|body| usage::read(body).map(|_| body)) {
                Ok(body) => (self.take)(Piece::Usage { body })?,
                Err(what) => self.found.name(format!("row {id} of the table usage: {what}")),
            }
            Ok(())
        })?;
        if let Some(what) = scan.broken {
            self.name(format!("the table usage in part: {what}"));
        }
        Ok(())
    }

    pub(super) fn missing(&mut self, connection: &Connection) -> Result<(), Cause> {
        let told = match readable(schema::meta(connection, schema::MISSING_TOLD))? {
            Ok(told) => told,
            Err(what) => {
                self.name(format!("up to where the control plane was told of what is missing: {what}"));
                0
            }
        };
        let scan = by_number(connection, "missing", "0", 0, 0, |id, row| {
            match rows::checked(row, 1, 2).and_then(rows::read_missing) {
                Ok(missing) => {
                    (self.take)(Piece::Missing { told: id <= told, missing: &missing })?;
                    self.found.missing.push(missing);
                }
                Err(what) => self.found.name(format!("row {id} of the table missing: {what}")),
            }
            Ok(())
        })?;
        if let Some(what) = scan.broken {
            self.name(format!("the table missing in part: {what}"));
        }
        Ok(())
    }

    pub(super) fn boots(&mut self, connection: &Connection) -> Result<(), Cause> {
        match readable(boots::read(connection))? {
            Ok((boots, damaged)) => {
                if damaged > 0 {
                    self.name(format!("the table boots: {damaged} rows are not what was stored"));
                }
                boots.into_iter().try_for_each(|boot| (self.take)(Piece::Boot(boot)))
            }
            Err(what) => {
                self.name(format!("the table boots: {what}"));
                Ok(())
            }
        }
    }

    pub(super) fn metered(&mut self, connection: &Connection) -> Result<(), Cause> {
        let number = |name| schema::meta(connection, name);
        let read = number(schema::METERED_MONTH).and_then(|month| Ok((month, number(schema::METERED_BYTES)?)));
        match readable(read)? {
            Ok((month, bytes)) => {
                let month = u32::try_from(month).unwrap_or_default();
                (self.take)(Piece::Metered(Metered { month, bytes }))
            }
            Err(what) => {
                self.name(format!("what was metered: {what}"));
                Ok(())
            }
        }
    }
}
