//! Spans of sequences: the islands above a mark, and what is missing. There may be hundreds of thousands of islands
//! (where every other record of a backlog was given up), so only those are read that an offer concerns.

use rusqlite::{Connection, params};
use sync_core::ingest::Offer;
use sync_core::spans::{Span, Spans};

use super::Place;
use crate::fault::Fault;
use crate::store::{signed, unsigned};

/// Which spans, each with a table.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Islands,
    Missing,
}

impl Kind {
    /// The spans that begin at or below ?4, the highest first.
    const fn select(self) -> &'static str {
        match self {
            Self::Islands => {
                "SELECT first, last FROM islands WHERE gateway = ?1 AND epoch = ?2 AND class = ?3 AND first <= ?4 \
                 ORDER BY first DESC"
            }
            Self::Missing => {
                "SELECT first, last FROM missing WHERE gateway = ?1 AND epoch = ?2 AND class = ?3 AND first <= ?4 \
                 ORDER BY first DESC"
            }
        }
    }

    const fn delete(self) -> &'static str {
        match self {
            Self::Islands => {
                "DELETE FROM islands WHERE gateway = ?1 AND epoch = ?2 AND class = ?3 AND first = ?4 AND last = ?5"
            }
            Self::Missing => {
                "DELETE FROM missing WHERE gateway = ?1 AND epoch = ?2 AND class = ?3 AND first = ?4 AND last = ?5"
            }
        }
    }

    const fn insert(self) -> &'static str {
        match self {
            Self::Islands => "INSERT INTO islands (gateway, epoch, class, first, last) VALUES (?1, ?2, ?3, ?4, ?5)",
            Self::Missing => "INSERT INTO missing (gateway, epoch, class, first, last) VALUES (?1, ?2, ?3, ?4, ?5)",
        }
    }
}

/// The islands that touch what is offered, and those that begin at or below the floor.
pub(super) fn islands(connection: &Connection, place: Place, offer: &Offer<'_>) -> Result<Spans, Fault> {
    let below = Span { first: 0, last: offer.floor };
    let near = offer.ranges.iter().map(|range| Span { first: range.first - 1, last: range.last + 1 });
    read(connection, place, Kind::Islands, std::iter::once(below).chain(near))
}

/// What is missing of what is offered, and up to the mark.
pub(super) fn missing(connection: &Connection, place: Place, mark: u64, offer: &Offer<'_>) -> Result<Spans, Fault> {
    let mut wanted = offer.ranges.clone();
    wanted.push(Span::one(mark));
    wanted.sort_unstable_by_key(|span| span.first);
    read(connection, place, Kind::Missing, wanted.into_iter())
}

/// The spans of which something lies within these, which are in the order of their first sequences.
fn read(connection: &Connection, place: Place, kind: Kind, within: impl Iterator<Item = Span>) -> Result<Spans, Fault> {
    let mut statement = connection.prepare_cached(kind.select())?;
    let mut found = Spans::new();
    for wanted in within {
        // Stored spans do not overlap each other, so the search goes down and ends at the first one below, or at what
        // the search before it has found.
        let from = found.last().map_or(wanted.first, |last| wanted.first.max(last.last + 1));
        let mut rows = statement.query(params![place.gateway.0, place.epoch, place.class, signed(wanted.last)])?;
        let mut spans = Vec::new();
        while let Some(row) = rows.next()? {
            let span = Span { first: unsigned(row.get(0)?)?, last: unsigned(row.get(1)?)? };
            if span.last < from {
                break;
            }
            spans.push(span);
        }
        found.extend(spans.into_iter().rev());
    }
    Ok(found)
}

/// Puts the new spans in place of the old ones; those that are the same stay.
pub(super) fn replace(
    connection: &Connection,
    place: Place,
    kind: Kind,
    old: &Spans,
    new: &Spans,
) -> Result<(), Fault> {
    let run = |sql: &str, span: Span| -> Result<(), Fault> {
        let values = params![place.gateway.0, place.epoch, place.class, signed(span.first), signed(span.last)];
        connection.prepare_cached(sql)?.execute(values)?;
        Ok(())
    };
    old.iter().filter(|span| !new.has(*span)).try_for_each(|span| run(kind.delete(), span))?;
    new.iter().filter(|span| !old.has(*span)).try_for_each(|span| run(kind.insert(), span))
}
