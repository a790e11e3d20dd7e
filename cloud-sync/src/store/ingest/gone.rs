//! Tombstones: what gateways said is gone, and the sums of it.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, params};
use sync_core::ingest::{Here, Offer, Plan, Run, without};
use sync_core::spans::{Span, Spans};
use sync_protocol::records::{Gone, Reason, Tally};

use super::Place;
use crate::fault::Fault;
use crate::limits::MAX_LOOKED_UP;
use crate::store::sums::{self, Change, What};
use crate::store::{read_tally, signed, unsigned};

/// A row: a whole run, or a piece of one. The first piece has the tally.
type Piece = (Span, Option<Vec<Tally>>);

fn piece(row: &Row<'_>) -> Result<Piece, Fault> {
    let span = Span { first: unsigned(row.get(0)?)?, last: unsigned(row.get(1)?)? };
    let tally: Option<Vec<u8>> = row.get(2)?;
    Ok((span, tally.as_deref().map(read_tally).transpose()?))
}

/// The runs of which something lies in what is offered, in order.
pub(super) fn runs(connection: &Connection, place: Place, offer: &Offer<'_>) -> Result<Vec<Run>, Fault> {
    let mut down = connection.prepare_cached(
        "SELECT first, last, tally FROM tombstones \
         WHERE gateway = ?1 AND epoch = ?2 AND class = ?3 AND first <= ?4 ORDER BY first DESC",
    )?;
    let mut up = connection.prepare_cached(
        "SELECT first, last, tally FROM tombstones \
         WHERE gateway = ?1 AND epoch = ?2 AND class = ?3 AND first > ?4 ORDER BY first",
    )?;
    let mut runs: Vec<Run> = Vec::new();
    let mut found_to = 0;
    for range in &offer.ranges {
        let from = range.first.max(found_to + 1);
        let values = params![place.gateway.0, place.epoch, place.class, signed(range.last)];
        let mut pieces: Vec<Piece> = Vec::new();
        let mut rows = down.query(values)?;
        while let Some(row) = rows.next()? {
            let piece = piece(row)?;
            // Below the range only what belongs to a run that reaches into it.
            if piece.0.last < from && pieces.last().is_none_or(|(_, tally)| tally.is_some()) {
                break;
            }
            pieces.push(piece);
        }
        if pieces.is_empty() {
            continue;
        }
        pieces.reverse();
        // Above it the same.
        let mut rows = up.query(values)?;
        while let Some(row) = rows.next()? {
            match piece(row)? {
                (_, Some(_)) => break,
                more => pieces.push(more),
            }
        }
        for (span, tally) in pieces {
            found_to = span.last;
            match (tally, runs.last_mut()) {
                (Some(tally), _) => runs.push(Run { pieces: Spans::between(span.first, span.last), tally }),
                (None, Some(run)) => run.pieces.insert(span),
                (None, None) => {
                    let message = format!("a piece of what is gone from {} on has no first piece", span.first);
                    return Err(Fault::Damaged(message));
                }
            }
        }
    }
    Ok(runs)
}

/// How the gateway's counts change.
#[derive(Default)]
pub(super) struct Changes {
    /// What a disk lost.
    pub(super) damaged: Change,
    /// What a policy gave up.
    pub(super) dropped: Change,
}

/// Stores the runs of a plan in place of those that they replace.
pub(super) fn replace(
    connection: &Connection,
    place: Place,
    here: &Here,
    offer: &Offer<'_>,
    plan: &Plan,
    now_us: u64,
) -> Result<Changes, Fault> {
    let mut new = BTreeMap::new();
    let mut looked_up = 0_u64;
    for ((span, gone), run) in offer.gone.iter().zip(&plan.gone) {
        looked_up = looked_up.saturating_add(run.stored);
        let streams = match run.stored {
            1.. if looked_up <= MAX_LOOKED_UP => streams(connection, place, *span)?,
            _ => Vec::new(),
        };
        if let Some(first) = run.pieces.first() {
            let tally = without(&gone.tally, run.stored, &streams);
            new.insert(first.first, Run { pieces: run.pieces.clone(), tally });
        }
    }
    let mut changes: BTreeMap<(&str, Reason), Change> = BTreeMap::new();
    let replaced = plan.replaced.iter().map(|at| &here.gone[*at]);
    // What was told again as it was stays as it is, with its time.
    for old in replaced.clone().filter(|old| !is_in(&new, old)) {
        delete(connection, place, old)?;
        for one in &old.tally {
            let before = &mut changes.entry((&one.stream, one.reason)).or_default().before;
            *before = before.saturating_add(one.count);
        }
    }
    let kept: BTreeMap<u64, Run> = replaced.filter_map(|old| Some((old.pieces.first()?.first, old.clone()))).collect();
    for run in new.values().filter(|run| !is_in(&kept, run)) {
        insert(connection, place, run, now_us)?;
        for one in &run.tally {
            let after = &mut changes.entry((&one.stream, one.reason)).or_default().after;
            *after = after.saturating_add(one.count);
        }
    }
    let mut all = Changes::default();
    for ((stream, reason), change) in changes {
        let sum = if reason == Reason::Damaged { &mut all.damaged } else { &mut all.dropped };
        sum.before = sum.before.saturating_add(change.before);
        sum.after = sum.after.saturating_add(change.after);
        sums::change(connection, place.gateway, stream, What::Gone(reason), change)?;
    }
    Ok(all)
}

fn is_in(runs: &BTreeMap<u64, Run>, run: &Run) -> bool {
    run.pieces.first().is_some_and(|first| runs.get(&first.first) == Some(run))
}

/// How many records of which streams are stored within a span.
fn streams(connection: &Connection, place: Place, span: Span) -> Result<Vec<(String, u64)>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT s.name, count(*) FROM records r CROSS JOIN streams s ON s.key = r.stream \
         WHERE r.gateway = ?1 AND r.epoch = ?2 AND r.class = ?3 AND r.sequence BETWEEN ?4 AND ?5 GROUP BY s.name",
    )?;
    let values = params![place.gateway.0, place.epoch, place.class, signed(span.first), signed(span.last)];
    let mut rows = statement.query(values)?;
    let mut streams = Vec::new();
    while let Some(row) = rows.next()? {
        streams.push((row.get(0)?, unsigned(row.get(1)?)?));
    }
    Ok(streams)
}

fn delete(connection: &Connection, place: Place, run: &Run) -> Result<(), Fault> {
    let mut delete = connection
        .prepare_cached("DELETE FROM tombstones WHERE gateway = ?1 AND epoch = ?2 AND class = ?3 AND first = ?4")?;
    for span in run.pieces.iter() {
        delete.execute(params![place.gateway.0, place.epoch, place.class, signed(span.first)])?;
    }
    Ok(())
}

fn insert(connection: &Connection, place: Place, run: &Run, now_us: u64) -> Result<(), Fault> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO tombstones (gateway, epoch, class, first, last, tally, told_us) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let mut tally = Some(sync_protocol::encode(&Gone { tally: run.tally.clone() }));
    for span in run.pieces.iter() {
        let (first, last) = (signed(span.first), signed(span.last));
        insert.execute(params![
            place.gateway.0,
            place.epoch,
            place.class,
            first,
            last,
            tally.take(),
            signed(now_us)
        ])?;
    }
    Ok(())
}
