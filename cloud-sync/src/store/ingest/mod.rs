//! Takes what gateways offer: `sync_core::ingest` decides, and this does it.

mod gaps;
mod gone;
mod rows;

use rusqlite::{Connection, OptionalExtension, params};
use sync_core::ingest::{GoneConflict, Here, Offer, decide};
use sync_protocol::records::{Entry, Request};

use super::gateways::GatewayKey;
use super::sums::Change;
use super::{signed, unsigned};
use crate::fault::Fault;

/// A request that was checked against its checksum.
pub(crate) struct Checked {
    request: Request,
    // Of each record in it, in order.
    checksums: Vec<u32>,
}

impl Checked {
    /// Checks a request; or says which checksum it has in place of the one that it names.
    pub(crate) fn new(request: Request) -> Result<Self, (Request, u32)> {
        let checksums = request.entry_checksums();
        let found = request.checksum_over(&checksums);
        if found != request.checksum {
            return Err((request, found));
        }
        let entries = request.ranges.iter().flat_map(|range| &range.entries).zip(checksums);
        let records = entries.filter(|(entry, _)| matches!(entry, Entry::Record(_)));
        let checksums = records.map(|(_, checksum)| checksum).collect();
        Ok(Self { request, checksums })
    }
}

/// What became of a request. Each is kept: a conflict is counted although the request is refused.
pub(crate) enum Outcome {
    /// The mark, for the answer.
    HighWater(u64),
    /// Nothing was stored: these sequences, the first of `count`, hold something else here.
    Conflict { first: u64, count: u64 },
    /// Nothing was stored: what is gone is not what it was.
    GoneConflict(GoneConflict),
}

/// Whose sequences they are.
#[derive(Clone, Copy)]
struct Place {
    gateway: GatewayKey,
    epoch: i64,
    class: u8,
}

/// Stores what is new of a request, with the mark, in the transaction that the connection is in.
pub(crate) fn ingest(
    connection: &Connection,
    gateway: GatewayKey,
    checked: &Checked,
    now_us: u64,
) -> Result<Outcome, Fault> {
    let Checked { request, checksums } = checked;
    let offer = Offer::new(request).map_err(|error| Fault::bad("bad_range", error.to_string()))?;
    let place = Place { gateway, epoch: request.epoch.0.cast_signed(), class: request.class.number() };
    let mark = mark(connection, place)?;
    let here = Here {
        mark,
        islands: gaps::islands(connection, place, &offer)?,
        missing: gaps::missing(connection, place, mark, &offer)?,
        gone: gone::runs(connection, place, &offer)?,
    };
    let plan = match decide(&here, &offer) {
        Ok(plan) => plan,
        Err(conflict) => {
            count(connection, gateway, now_us, |counts| counts.conflicts = counts.conflicts.saturating_add(1))?;
            return Ok(Outcome::GoneConflict(conflict));
        }
    };
    if let Some((first, conflicts)) = rows::conflicts(connection, place, &offer, checksums, &plan.duplicates)? {
        count(connection, gateway, now_us, |counts| counts.conflicts = counts.conflicts.saturating_add(conflicts))?;
        return Ok(Outcome::Conflict { first, count: conflicts });
    }
    let gone = gone::replace(connection, place, &here, &offer, &plan, now_us)?;
    rows::store(connection, place, &offer, checksums, &plan.store, now_us)?;
    gaps::replace(connection, place, gaps::Kind::Islands, &here.islands, &plan.islands)?;
    gaps::replace(connection, place, gaps::Kind::Missing, &here.missing, &plan.missing)?;
    if plan.mark > here.mark {
        connection
            .prepare_cached("INSERT OR REPLACE INTO marks (gateway, epoch, class, high_water) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![gateway.0, place.epoch, place.class, signed(plan.mark)])?;
    }
    count(connection, gateway, now_us, |counts| {
        counts.stored = counts.stored.saturating_add(plan.store.count());
        let again = plan.duplicates.count() + plan.late.count(); // at most MAX_ENTRIES
        counts.duplicates = counts.duplicates.saturating_add(again);
        let missing = Change { before: here.missing.count(), after: plan.missing.count() };
        counts.missing = gone.damaged.of(missing.of(counts.missing));
        counts.dropped = gone.dropped.of(counts.dropped);
    })?;
    Ok(Outcome::HighWater(plan.mark))
}

fn mark(connection: &Connection, place: Place) -> Result<u64, Fault> {
    let mark = connection
        .prepare_cached("SELECT high_water FROM marks WHERE gateway = ?1 AND epoch = ?2 AND class = ?3")?
        .query_row(params![place.gateway.0, place.epoch, place.class], |row| row.get(0))
        .optional()?;
    unsigned(mark.unwrap_or(0))
}

#[derive(Default)]
struct Counts {
    stored: u64,
    duplicates: u64,
    missing: u64,
    dropped: u64,
    conflicts: u64,
}

/// Changes a gateway's counts, and notes that it was there.
fn count(
    connection: &Connection,
    gateway: GatewayKey,
    now_us: u64,
    change: impl FnOnce(&mut Counts),
) -> Result<(), Fault> {
    let mut counts = connection
        .prepare_cached("SELECT stored, duplicates, missing, dropped, conflicts FROM gateways WHERE key = ?1")?
        .query_row([gateway.0], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]))
        .map_err(Fault::from)
        .and_then(|[stored, duplicates, missing, dropped, conflicts]| {
            Ok(Counts {
                stored: unsigned(stored)?,
                duplicates: unsigned(duplicates)?,
                missing: unsigned(missing)?,
                dropped: unsigned(dropped)?,
                conflicts: unsigned(conflicts)?,
            })
        })?;
    change(&mut counts);
    connection
        .prepare_cached(
            "UPDATE gateways SET stored = ?2, duplicates = ?3, missing = ?4, dropped = ?5, conflicts = ?6, \
             last_seen_us = ?7 WHERE key = ?1",
        )?
        .execute(params![
            gateway.0,
            signed(counts.stored),
            signed(counts.duplicates),
            signed(counts.missing),
            signed(counts.dropped),
            signed(counts.conflicts),
            signed(now_us)
        ])?;
    Ok(())
}

#[cfg(test)]
mod tests;
