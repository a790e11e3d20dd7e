//! Takes ranges of records.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};
use sync_core::ingest::{Decision, Offer, Plan, Span, decide};
use sync_protocol::records::{Record, Request};

use super::gateways::GatewayKey;
use super::{signed, unsigned};
use crate::fault::Fault;

/// A range that was checked against its checksum.
pub(crate) struct Range {
    pub(crate) request: Request,
    /// The checksum of each record.
    pub(crate) checksums: Vec<u32>,
}

/// What became of a range. Each is kept: a conflict is counted although the range is refused.
pub(crate) enum Outcome {
    /// The mark, for the answer.
    HighWater(u64),
    /// Nothing was stored: these sequences, the first of `count`, hold something else here.
    Conflict { first: u64, count: u64 },
}

/// Where a range belongs.
#[derive(Clone, Copy)]
struct Sequence {
    gateway: GatewayKey,
    epoch: i64,
    class: u8,
}

/// Stores what is new of a range, with the mark, in the transaction that the connection is in.
pub(crate) fn ingest(
    connection: &Connection,
    gateway: GatewayKey,
    range: &Range,
    now_us: u64,
) -> Result<Outcome, Fault> {
    let Range { request, .. } = range;
    let sequence = Sequence { gateway, epoch: request.epoch.0.cast_signed(), class: request.class.number() };
    let high_water = connection
        .prepare_cached("SELECT high_water FROM marks WHERE gateway = ?1 AND epoch = ?2 AND class = ?3")?
        .query_row(params![gateway.0, sequence.epoch, sequence.class], |row| row.get(0))
        .optional()?;
    let high_water = unsigned(high_water.unwrap_or(0))?;
    let last = request.first.saturating_add(request.records.len() as u64);
    let known_missing = overlapping_missing(connection, sequence, request.first, last)?;

    let offer = Offer { first: request.first, floor: request.floor, count: request.records.len() };
    let plan = decide(high_water, &known_missing, offer).map_err(|error| Fault::bad("bad_range", error.to_string()))?;
    let Decision::Take(plan) = plan else {
        count(connection, gateway, now_us, |_| {})?;
        return Ok(Outcome::HighWater(high_water));
    };
    if let Some((first, conflicts)) = conflicts(connection, sequence, range, &plan.duplicates)? {
        count(connection, gateway, now_us, |counts| counts.conflicts = counts.conflicts.saturating_add(conflicts))?;
        return Ok(Outcome::Conflict { first, count: conflicts });
    }
    store(connection, sequence, range, &plan, now_us)?;
    replace_missing(connection, sequence, &known_missing, &plan.missing)?;
    if plan.high_water > high_water {
        connection
            .prepare_cached("INSERT OR REPLACE INTO marks (gateway, epoch, class, high_water) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![gateway.0, sequence.epoch, sequence.class, signed(plan.high_water)])?;
    }
    let (before, after) = (total(&known_missing), total(&plan.missing));
    count(connection, gateway, now_us, |counts| {
        counts.stored = counts.stored.saturating_add(total(&plan.store));
        counts.duplicates = counts.duplicates.saturating_add(total(&plan.duplicates));
        counts.missing = counts.missing.saturating_sub(before).saturating_add(after);
    })?;
    Ok(Outcome::HighWater(plan.high_water))
}

fn total(spans: &[Span]) -> u64 {
    spans.iter().fold(0, |sum, span| sum.saturating_add(span.count()))
}

/// In their order. They do not overlap each other, so the search goes down and ends at the first one below.
fn overlapping_missing(connection: &Connection, sequence: Sequence, first: u64, last: u64) -> Result<Vec<Span>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT first, last FROM missing WHERE gateway = ?1 AND epoch = ?2 AND class = ?3 AND first <= ?4 \
         ORDER BY first DESC",
    )?;
    let mut rows = statement.query(params![sequence.gateway.0, sequence.epoch, sequence.class, signed(last)])?;
    let mut spans = Vec::new();
    while let Some(row) = rows.next()? {
        let span = Span { first: unsigned(row.get(0)?)?, last: unsigned(row.get(1)?)? };
        if span.last < first {
            break;
        }
        spans.push(span);
    }
    spans.reverse();
    Ok(spans)
}

fn replace_missing(connection: &Connection, sequence: Sequence, old: &[Span], new: &[Span]) -> Result<(), Fault> {
    let Sequence { gateway, epoch, class } = sequence;
    for span in old {
        connection
            .prepare_cached("DELETE FROM missing WHERE gateway = ?1 AND epoch = ?2 AND class = ?3 AND first = ?4")?
            .execute(params![gateway.0, epoch, class, signed(span.first)])?;
    }
    for span in new {
        connection
            .prepare_cached("INSERT INTO missing (gateway, epoch, class, first, last) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![gateway.0, epoch, class, signed(span.first), signed(span.last)])?;
    }
    Ok(())
}

/// Compares what came again with what is stored: the first sequence that differs, and how many do.
fn conflicts(
    connection: &Connection,
    sequence: Sequence,
    range: &Range,
    duplicates: &[Span],
) -> Result<Option<(u64, u64)>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT sequence, checksum FROM records \
         WHERE gateway = ?1 AND epoch = ?2 AND class = ?3 AND sequence BETWEEN ?4 AND ?5 ORDER BY sequence",
    )?;
    let mut found: Option<(u64, u64)> = None;
    for span in duplicates {
        let Sequence { gateway, epoch, class } = sequence;
        let mut rows = statement.query(params![gateway.0, epoch, class, signed(span.first), signed(span.last)])?;
        for expected in span.first..=span.last {
            let row = rows.next()?.map(|row| Ok::<_, rusqlite::Error>((row.get::<_, i64>(0)?, row.get::<_, u32>(1)?)));
            let stored = match row.transpose()? {
                Some((number, checksum)) if number == signed(expected) => checksum,
                _ => {
                    let place = format!("gateway {}, epoch {epoch:x}, class {class}", gateway.0);
                    let message = format!("{place}: sequence {expected} lies below the mark and is not there");
                    return Err(Fault::Damaged(message));
                }
            };
            if stored != range.checksums[index(range, expected)] {
                found = Some(found.map_or((expected, 1), |(first, count)| (first, count + 1)));
            }
        }
    }
    Ok(found)
}

fn index(range: &Range, sequence: u64) -> usize {
    usize::try_from(sequence - range.request.first).expect("plans speak of sequences within the range only")
}

fn store(connection: &Connection, sequence: Sequence, range: &Range, plan: &Plan, now_us: u64) -> Result<(), Fault> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO records (gateway, epoch, class, sequence, checksum, stream, function, device, topic, boot_epoch, \
         event_sequence, wall_us, monotonic_us, boot, received_us, body) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )?;
    // Key and number of new records of each stream.
    let mut streams: HashMap<&str, (i64, i64)> = HashMap::new();
    for number in plan.store.iter().flat_map(|span| span.first..=span.last) {
        let at = index(range, number);
        let Record { stream, function, origin, stamp, body } = &range.request.records[at];
        let stream = match streams.get_mut(stream.as_str()) {
            Some(known) => known,
            None => {
                let key = stream_key(connection, stream)?;
                streams.entry(stream).or_insert((key, 0))
            }
        };
        stream.1 += 1;
        insert.execute(params![
            sequence.gateway.0,
            sequence.epoch,
            sequence.class,
            signed(number),
            range.checksums[at],
            stream.0,
            function,
            origin.device,
            origin.topic,
            origin.identity.map(|(boot_epoch, _)| boot_epoch.cast_signed()),
            origin.identity.map(|(_, sequence)| sequence.cast_signed()),
            stamp.wall_us.cast_signed(),
            stamp.monotonic_us.cast_signed(),
            stamp.boot.cast_signed(),
            signed(now_us),
            body,
        ])?;
    }
    let mut add = connection.prepare_cached("UPDATE streams SET records = records + ?2 WHERE key = ?1")?;
    for (key, new) in streams.into_values() {
        add.execute([key, new])?;
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

#[derive(Default)]
struct Counts {
    stored: u64,
    duplicates: u64,
    missing: u64,
    conflicts: u64,
}

/// Changes a gateway's counts; done here and not in SQL, where a sum that does not fit would be an error for ever.
fn count(
    connection: &Connection,
    gateway: GatewayKey,
    now_us: u64,
    change: impl FnOnce(&mut Counts),
) -> Result<(), Fault> {
    let mut counts = connection
        .prepare_cached("SELECT stored, duplicates, missing, conflicts FROM gateways WHERE key = ?1")?
        .query_row([gateway.0], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))
        .map_err(Fault::from)
        .and_then(|[stored, duplicates, missing, conflicts]| {
            let (stored, duplicates) = (unsigned(stored)?, unsigned(duplicates)?);
            Ok(Counts { stored, duplicates, missing: unsigned(missing)?, conflicts: unsigned(conflicts)? })
        })?;
    change(&mut counts);
    connection
        .prepare_cached(
            "UPDATE gateways SET stored = ?2, duplicates = ?3, missing = ?4, conflicts = ?5, last_seen_us = ?6 \
             WHERE key = ?1",
        )?
        .execute(params![
            gateway.0,
            signed(counts.stored),
            signed(counts.duplicates),
            signed(counts.missing),
            signed(counts.conflicts),
            signed(now_us)
        ])?;
    Ok(())
}
