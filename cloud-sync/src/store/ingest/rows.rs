//! The records themselves.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};
use sync_core::ingest::Offer;
use sync_core::spans::Spans;
use sync_protocol::records::Record;
use sync_protocol::{dead, twin, usage};

use super::Place;
use crate::fault::Fault;
use crate::store::sums::{self, Change, What};
use crate::store::{self, signed};

/// The offered records that are among these sequences, with their checksums.
fn among<'a>(
    offer: &'a Offer<'_>,
    checksums: &'a [u32],
    sequences: &'a Spans,
) -> impl Iterator<Item = (u64, &'a Record, u32)> {
    let records = offer.records.iter().zip(checksums).map(|((sequence, record), sum)| (*sequence, *record, *sum));
    records.filter(|(sequence, ..)| sequences.contains(*sequence))
}

/// Compares what came again with what is stored: the first sequence that differs, and how many do.
pub(super) fn conflicts(
    connection: &Connection,
    place: Place,
    offer: &Offer<'_>,
    checksums: &[u32],
    duplicates: &Spans,
) -> Result<Option<(u64, u64)>, Fault> {
    let mut find = connection.prepare_cached(
        "SELECT checksum FROM records WHERE gateway = ?1 AND epoch = ?2 AND class = ?3 AND sequence = ?4",
    )?;
    let mut found: Option<(u64, u64)> = None;
    for (sequence, _, checksum) in among(offer, checksums, duplicates) {
        let Place { gateway, epoch, class } = place;
        let values = params![gateway.0, epoch, class, signed(sequence)];
        let stored: Option<u32> = find.query_row(values, |row| row.get(0)).optional()?;
        let stored = stored.ok_or_else(|| {
            let place = format!("gateway {}, epoch {epoch:x}, class {class}", gateway.0);
            Fault::Damaged(format!("{place}: sequence {sequence} was stored and is not there"))
        })?;
        if stored != checksum {
            found = Some(found.map_or((sequence, 1), |(first, count)| (first, count + 1)));
        }
    }
    Ok(found)
}

/// Stores the offered records that are among these sequences.
pub(super) fn store(
    connection: &Connection,
    place: Place,
    offer: &Offer<'_>,
    checksums: &[u32],
    new: &Spans,
    now_us: u64,
) -> Result<(), Fault> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO records (gateway, epoch, class, sequence, checksum, stream, function, device, topic, boot_epoch, \
         event_sequence, wall_us, monotonic_us, boot, synchronised, received_us, body) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
    )?;
    // Key and number of new records of each stream.
    let mut streams: HashMap<&str, (i64, u64)> = HashMap::new();
    for (sequence, record, checksum) in among(offer, checksums, new) {
        let Record { stream, function, origin, stamp, body } = record;
        let stream = match streams.get_mut(stream.as_str()) {
            Some(known) => known,
            None => {
                let key = stream_key(connection, stream)?;
                streams.entry(stream).or_insert((key, 0))
            }
        };
        stream.1 += 1;
        insert.execute(params![
            place.gateway.0,
            place.epoch,
            place.class,
            signed(sequence),
            checksum,
            stream.0,
            function,
            origin.device,
            origin.topic,
            origin.identity.map(|(boot_epoch, _)| boot_epoch.cast_signed()),
            origin.identity.map(|(_, sequence)| sequence.cast_signed()),
            stamp.wall_us.cast_signed(),
            stamp.monotonic_us.cast_signed(),
            stamp.boot.cast_signed(),
            stamp.synchronised,
            signed(now_us),
            body,
        ])?;
        let key = connection.last_insert_rowid();
        match record.stream.as_str() {
            dead::STREAM => store::dead::note(connection, place.gateway, key, record)?,
            twin::STREAM => store::twins::note(connection, place.gateway, key, record)?,
            usage::STREAM => store::usage::add(connection, place.gateway, record)?,
            _ => {}
        }
    }
    let mut add = connection.prepare_cached("UPDATE streams SET records = records + ?2 WHERE key = ?1")?;
    for (name, (key, new)) in streams {
        add.execute(params![key, signed(new)])?;
        sums::change(connection, place.gateway, name, What::Delivered, Change { before: 0, after: new })?;
    }
    Ok(())
}

fn stream_key(connection: &Connection, name: &str) -> Result<i64, Fault> {
    let mut find = connection.prepare_cached("SELECT key FROM streams WHERE name = ?1")?;
    if let Some(key) = find.query_row([name], |row| row.get(0)).optional()? {
        return Ok(key);
    }
    connection.prepare_cached("INSERT INTO streams (name, records) VALUES (?1, 0)")?.execute([name])?;
    Ok(connection.last_insert_rowid())
}
