//! Blobs: which content has which name. The contents themselves are files, which whoever writes a row here has put on the
//! disk before.
//!
//! A content is kept while something refers to it: a name, a message that waits, or a dead letter. In the transaction in which
//! the last of these goes it is marked as unused, and its row stays until its file is gone.

use agent_core::Event;
use agent_core::event::EventKind;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use crate::error::{Cause, Damage};
use crate::rows;

/// SHA-256 of a content.
pub type ContentDigest = [u8; 32];

/// What has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Which content.
    pub digest: ContentDigest,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its media type.
    pub content_type: String,
    /// When it got the name, microseconds since 1970-01-01 UTC by the gateway's clock.
    pub stored_us: u64,
}

/// A file of a watched folder that was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedFile {
    /// Its length in bytes, as it was then.
    pub bytes: u64,
    /// When it was changed last, nanoseconds since 1970-01-01 UTC, as the file system had it then.
    pub modified_ns: i64,
    /// Its content.
    pub digest: ContentDigest,
}

/// [`Blob`] without its digest, which has a column of its own.
#[derive(Serialize, Deserialize)]
struct BlobRow<'a> {
    bytes: u64,
    content_type: &'a str,
    stored_us: u64,
}

/// The checksum over the name, and the digest, too.
fn checksum(name: &str, digest: &[u8], body: &[u8]) -> u32 {
    rows::keyed_checksum(0, name, digest, body)
}

fn content_checksum(digest: &[u8], bytes: i64) -> u32 {
    rows::keyed_checksum(0, "", digest, &bytes.to_le_bytes())
}

/// The content that an event is about.
pub(crate) fn digest_of(event: &Event) -> Option<ContentDigest> {
    if event.kind != EventKind::Blob {
        return None;
    }
    let mut digest = [0; 32];
    hex::decode_to_slice(attribute(event, "digest")?, &mut digest).ok()?;
    Some(digest)
}

/// The content that an event is about, and how long it is.
pub(crate) fn content_of(event: &Event) -> Option<(ContentDigest, u64)> {
    Some((digest_of(event)?, attribute(event, "size")?.parse().ok()?))
}

fn attribute<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    event.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// The event that a blob is stored.
pub(crate) fn event(name: &str, blob: &Blob) -> Event {
    let (bucket, rest) = name.split_once('/').unwrap_or((name, ""));
    let attributes = [
        ("digest", hex::encode(blob.digest)),
        ("size", blob.bytes.to_string()),
        ("type", blob.content_type.clone()),
        ("bucket", bucket.to_owned()),
        ("name", rest.to_owned()),
    ];
    Event {
        attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into(),
        ..Event::new(EventKind::Blob, "@blob", name, [], blob.stored_us)
    }
}

/// What a row said before it was written.
pub(crate) fn named(connection: &Connection, name: &str) -> Result<Option<Vec<u8>>, Cause> {
    Ok(connection
        .prepare_cached("SELECT digest FROM blobs WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?)
}

/// Gives a name to a content.
pub(crate) fn put(connection: &Connection, scratch: &mut Vec<u8>, name: &str, blob: &Blob) -> Result<(), Cause> {
    let row = BlobRow { bytes: blob.bytes, content_type: &blob.content_type, stored_us: blob.stored_us };
    rows::write_own(scratch, &row);
    connection
        .prepare_cached("REPLACE INTO blobs (name, digest, checksum, body) VALUES (?1, ?2, ?3, ?4)")?
        .execute((name, blob.digest, checksum(name, &blob.digest, scratch), &*scratch))?;
    Ok(())
}

/// Takes a name away.
pub(crate) fn delete(connection: &Connection, name: &str) -> Result<(), Cause> {
    connection.prepare_cached("DELETE FROM blobs WHERE name = ?1")?.execute([name])?;
    Ok(())
}

/// A row of name, digest, checksum and body.
pub(crate) fn read(row: &Row<'_>) -> Result<(String, Blob), String> {
    let name: String = rows::column(row, 0)?;
    let digest: ContentDigest = rows::column(row, 1)?;
    let body = rows::checked_by(row, 2, 3, |body| checksum(&name, &digest, body))?;
    let BlobRow { bytes, content_type, stored_us } = rows::read_own(body)?;
    Ok((name, Blob { digest, bytes, content_type: content_type.to_owned(), stored_us }))
}

/// What has this name.
pub(crate) fn get(connection: &Connection, name: &str) -> Result<Option<Blob>, Cause> {
    let found = connection
        .prepare_cached("SELECT name, digest, checksum, body FROM blobs WHERE name = ?1")?
        .query_row([name], |row| Ok(read(row)))
        .optional()?;
    match found.transpose() {
        Ok(found) => Ok(found.map(|(_, blob)| blob)),
        Err(what) => Err(Damage::Blob { name: name.to_owned(), what }.into()),
    }
}

/// A content is there, and something refers to it. Whether it was not known before.
pub(crate) fn keep(connection: &Connection, digest: &ContentDigest, bytes: u64) -> Result<bool, Cause> {
    let bytes = rows::integer(bytes);
    let new = connection
        .prepare_cached("INSERT OR IGNORE INTO contents (digest, checksum, bytes, unused) VALUES (?1, ?2, ?3, 0)")?
        .execute((digest, content_checksum(digest, bytes), bytes))?;
    if new == 0 {
        refer(connection, digest)?;
    }
    Ok(new > 0)
}

/// Something refers to a content, if that is known.
pub(crate) fn refer(connection: &Connection, digest: &[u8]) -> Result<(), Cause> {
    connection.prepare_cached("UPDATE contents SET unused = 0 WHERE digest = ?1 AND unused = 1")?.execute([digest])?;
    Ok(())
}

/// Something that referred to a content does not any more.
pub(crate) fn release(connection: &Connection, digest: &[u8]) -> Result<(), Cause> {
    connection
        .prepare_cached(
            "UPDATE contents SET unused = 1 WHERE digest = ?1 \
             AND NOT EXISTS (SELECT 1 FROM blobs WHERE blobs.digest = ?1) \
             AND NOT EXISTS (SELECT 1 FROM messages WHERE messages.digest = ?1) \
             AND NOT EXISTS (SELECT 1 FROM dead_letters WHERE dead_letters.digest = ?1)",
        )?
        .execute([digest])?;
    Ok(())
}

/// The file of a content is gone; how long it was, if nothing has referred to it since.
pub(crate) fn gone(connection: &Connection, digest: &ContentDigest) -> Result<Option<u64>, Cause> {
    Ok(connection
        .prepare_cached("DELETE FROM contents WHERE digest = ?1 AND unused = 1 RETURNING bytes")?
        .query_row([digest], |row| row.get(0))
        .optional()?
        .map(rows::number))
}

/// Whether a content is to be kept.
pub(crate) fn is_used(connection: &Connection, digest: &ContentDigest) -> Result<bool, Cause> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM contents WHERE digest = ?1 AND unused = 0")?
        .query_row([digest], |_| Ok(()))
        .optional()?
        .is_some())
}

/// At most `max` contents that nothing refers to.
pub(crate) fn unused(connection: &Connection, max: usize) -> Result<Vec<ContentDigest>, Cause> {
    let mut statement = connection.prepare_cached("SELECT digest FROM contents WHERE unused = 1 LIMIT ?1")?;
    let digests = statement.query_map([rows::bound(max as u64)], |row| row.get(0))?;
    Ok(digests.collect::<Result<_, _>>()?)
}

/// A row of digest, checksum and bytes of the contents.
pub(crate) fn read_content(row: &Row<'_>) -> Result<(ContentDigest, u64), String> {
    let digest: ContentDigest = rows::column(row, 0)?;
    let (stored, bytes): (u32, i64) = (rows::column(row, 1)?, rows::column(row, 2)?);
    if content_checksum(&digest, bytes) != stored {
        return Err(format!("{bytes} is not the length that was stored for the content {}", hex::encode(digest)));
    }
    Ok((digest, rows::number(bytes)))
}

/// Remembers a file of a watched folder, or forgets it.
pub(crate) fn watch(
    connection: &Connection,
    scratch: &mut Vec<u8>,
    path: &str,
    file: Option<&WatchedFile>,
) -> Result<(), Cause> {
    match file {
        Some(file) => {
            rows::write_own(scratch, file);
            connection.prepare_cached("REPLACE INTO watched (path, checksum, body) VALUES (?1, ?2, ?3)")?.execute((
                path,
                rows::named_checksum(path, scratch),
                &*scratch,
            ))?;
        }
        None => {
            connection.prepare_cached("DELETE FROM watched WHERE path = ?1")?.execute([path])?;
        }
    }
    Ok(())
}

/// The files of watched folders that are remembered, by path; and how many rows are damaged, which are as good as not there.
pub(crate) fn watched(connection: &Connection) -> Result<(Vec<(String, WatchedFile)>, u64), Cause> {
    let mut statement = connection.prepare_cached("SELECT path, checksum, body FROM watched ORDER BY path")?;
    let mut found = statement.query([])?;
    let (mut files, mut damaged) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        let read = rows::column::<String>(row, 0).and_then(|path| {
            let body = rows::checked_by(row, 1, 2, |body| rows::named_checksum(&path, body))?;
            Ok((rows::read_own(body)?, path))
        });
        match read {
            Ok((file, path)) => files.push((path, file)),
            Err(_) => damaged += 1,
        }
    }
    Ok((files, damaged))
}
