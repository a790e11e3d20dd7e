//! Messages: events that wait to be given to a function, for another function put them into a queue, or for they are to
//! be tried again.

use std::sync::Arc;

use agent_core::Event;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::error::{Cause, Damage};
use crate::{blobs, rows};

/// An event that waits for its function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Never given twice in the life of a store epoch, and the same until a function has handled it.
    pub id: u64,
    /// The queue, or `@retry/FUNCTION` for an event that a function is given once more.
    pub queue: Arc<str>,
    /// Not before this time by the wall clock, microseconds since 1970-01-01 UTC.
    pub due_us: u64,
    /// How often it was given to the function before.
    pub attempts: u32,
    /// The event.
    pub event: Event,
}

/// The queue of the events that a function of this name is given once more. No queue that a function names begins so.
pub fn retry_queue(function: &str) -> String {
    format!("@retry/{function}")
}

/// What the queues of requests begin with.
const REQUESTS: &str = "@request/";

/// What comes after every queue of requests in the order of bytes.
const AFTER_REQUESTS: &str = "@request0";

/// The queue of the HTTP requests that a function of this name wants sent: each is the event that
/// [`Request::waiting`](agent_core::request::Request::waiting) makes. No queue that a function names begins so.
pub fn request_queue(function: &str) -> String {
    format!("{REQUESTS}{function}")
}

/// The checksum over what decides when who gets it, too.
fn checksum(queue: &str, due_us: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&due_us.to_le_bytes());
    hasher.update(&rows::named_checksum(queue, body).to_le_bytes());
    hasher.finalize()
}

/// Stores a message: under a new number, or in place of what has this one. A content that it is about is kept for it.
pub(crate) fn put(
    connection: &Connection,
    id: Option<u64>,
    queue: &str,
    due_us: u64,
    event: &Event,
    body: &[u8],
) -> Result<(), Cause> {
    let digest = blobs::digest_of(event);
    connection
        .prepare_cached(
            "REPLACE INTO messages (id, queue, due_us, checksum, digest, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute((id.map(rows::integer), queue, rows::bound(due_us), checksum(queue, due_us, body), digest, body))?;
    digest.map_or(Ok(()), |digest| blobs::refer(connection, &digest))
}

/// Deletes a message; whether there was one.
pub(crate) fn delete(connection: &Connection, id: u64) -> Result<bool, Cause> {
    let deleted: Option<Option<Vec<u8>>> = connection
        .prepare_cached("DELETE FROM messages WHERE id = ?1 RETURNING digest")?
        .query_row([rows::integer(id)], |row| row.get(0))
        .optional()?;
    if let Some(Some(digest)) = &deleted {
        blobs::release(connection, digest)?;
    }
    Ok(deleted.is_some())
}

/// Reads the message of this number, if there is one; the inner error says what is wrong with it.
pub(crate) fn find(connection: &Connection, id: u64) -> Result<Option<Result<Message, String>>, Cause> {
    let found = connection
        .prepare_cached("SELECT id, queue, due_us, checksum, body FROM messages WHERE id = ?1")?
        .query_row([rows::integer(id)], |row| Ok(read(row).map(|(message, _)| message)))
        .optional()?;
    Ok(found)
}

/// A row of id, queue, due_us, checksum and body; the body, too.
pub(crate) fn read<'a>(row: &'a Row<'_>) -> Result<(Message, &'a [u8]), String> {
    let id = rows::number(rows::column(row, 0)?);
    let queue: String = rows::column(row, 1)?;
    let due_us = rows::number(rows::column(row, 2)?);
    let body = rows::checked_by(row, 3, 4, |body| checksum(&queue, due_us, body))?;
    let (attempts, event) = rows::read_message(body)?;
    Ok((Message { id, queue: queue.into(), due_us, attempts, event }, body))
}

/// The queues of requests that hold any. Each is found by itself, for what lies in them is not to be read.
pub(crate) fn request_queues(connection: &Connection) -> Result<Vec<String>, Cause> {
    let mut statement = connection
        .prepare_cached("SELECT queue FROM messages WHERE queue > ?1 AND queue < ?2 ORDER BY queue LIMIT 1")?;
    let mut queues: Vec<String> = Vec::new();
    loop {
        let after = queues.last().map_or(REQUESTS, String::as_str);
        match statement.query_row((after, AFTER_REQUESTS), |row| row.get(0)).optional()? {
            Some(queue) => queues.push(queue),
            None => return Ok(queues),
        }
    }
}

/// How many requests wait, counted up to `max`.
pub(crate) fn requests(connection: &Connection, max: usize) -> Result<u64, Cause> {
    let count = connection
        .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM messages WHERE queue > ?1 AND queue < ?2 LIMIT ?3)")?
        .query_row((REQUESTS, AFTER_REQUESTS, rows::bound(max as u64)), |row| row.get(0))?;
    Ok(rows::number(count))
}

/// At most `max` messages of a queue that are due, those first that have been for longest; and when the next one is due
/// after them, if there is one.
pub(crate) fn due(
    connection: &Connection,
    queue: &str,
    now_us: u64,
    max: usize,
) -> Result<(Vec<Message>, Option<u64>), Cause> {
    let mut statement = connection.prepare_cached(
        "SELECT id, queue, due_us, checksum, body FROM messages WHERE queue = ?1 AND due_us <= ?2 \
         ORDER BY due_us, id LIMIT ?3",
    )?;
    let mut found = statement.query((queue, rows::bound(now_us), rows::bound(max as u64)))?;
    let mut messages = Vec::new();
    while let Some(row) = found.next()? {
        let id = rows::number(row.get(0)?);
        let (message, _) = read(row).map_err(|what| Damage::Message { id, what })?;
        messages.push(message);
    }
    let next = connection
        .prepare_cached("SELECT due_us FROM messages WHERE queue = ?1 AND due_us > ?2 ORDER BY due_us LIMIT 1")?
        .query_row((queue, rows::bound(now_us)), |row| row.get(0))
        .optional()?;
    Ok((messages, next.map(rows::number)))
}
