//! What became of a gateway's records, in sums: kept with every change, so that nobody has to count.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};
use sync_core::api;
use sync_protocol::records::Reason;

use super::gateways::GatewayKey;
use super::{signed, unsigned};
use crate::fault::Fault;
use crate::limits::{MAX_STREAMS_SHOWN, MAX_SUMS_SHOWN};

/// What is summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// Records that are stored here.
    Delivered,
    /// Records that the gateway said are gone.
    Gone(Reason),
}

impl What {
    /// The number under which it is stored: those that are gone have their reason's.
    fn number(self) -> i64 {
        match self {
            Self::Delivered => -1,
            Self::Gone(reason) => {
                let at = Reason::ALL.iter().position(|one| *one == reason);
                at.and_then(|at| i64::try_from(at).ok()).expect("all reasons are among the few")
            }
        }
    }

    fn from_number(number: i64) -> Result<Self, Fault> {
        if number == Self::Delivered.number() {
            return Ok(Self::Delivered);
        }
        let reason = usize::try_from(number).ok().and_then(|at| Reason::ALL.get(at).copied());
        reason.map(Self::Gone).ok_or_else(|| Fault::Damaged(format!("there is no reason {number}")))
    }
}

/// A part of a count that is replaced by another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) before: u64,
    pub(super) after: u64,
}

impl Change {
    /// The count, changed. Done here and not in SQL, where a sum that does not fit would be an error for ever.
    pub(super) fn of(self, count: u64) -> u64 {
        count.saturating_sub(self.before).saturating_add(self.after)
    }
}

/// Changes the sum of a stream.
pub(super) fn change(
    connection: &Connection,
    gateway: GatewayKey,
    stream: &str,
    what: What,
    change: Change,
) -> Result<(), Fault> {
    let number = what.number();
    let count = connection
        .prepare_cached("SELECT count FROM sums WHERE gateway = ?1 AND stream = ?2 AND what = ?3")?
        .query_row(params![gateway.0, stream, number], |row| row.get(0))
        .optional()?;
    let count = change.of(unsigned(count.unwrap_or(0))?);
    if count == 0 {
        connection
            .prepare_cached("DELETE FROM sums WHERE gateway = ?1 AND stream = ?2 AND what = ?3")?
            .execute(params![gateway.0, stream, number])?;
    } else {
        connection
            .prepare_cached("INSERT OR REPLACE INTO sums (gateway, stream, what, count) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![gateway.0, stream, number, signed(count)])?;
    }
    Ok(())
}

/// The largest sums of what is gone.
pub(super) fn gone(connection: &Connection, gateway: GatewayKey) -> Result<Vec<api::Tally>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT stream, what, count FROM sums WHERE gateway = ?1 AND what >= 0 \
         ORDER BY count DESC, stream, what LIMIT ?2",
    )?;
    let mut rows = statement.query(params![gateway.0, signed(MAX_SUMS_SHOWN as u64)])?;
    let mut sums = Vec::new();
    while let Some(row) = rows.next()? {
        if let What::Gone(reason) = What::from_number(row.get(1)?)? {
            sums.push(api::Tally { stream: row.get(0)?, reason, count: unsigned(row.get(2)?)? });
        }
    }
    Ok(sums)
}

/// What became of each stream's records: those with most records here or gone, and those of which something waits.
pub(super) fn streams(
    connection: &Connection,
    gateway: GatewayKey,
    missing: u64,
    reported: Option<&api::Reported>,
) -> Result<Vec<api::StreamCounts>, Fault> {
    let mut streams: BTreeMap<String, api::StreamCounts> = BTreeMap::new();
    let mut of = |name: String, add: &dyn Fn(&mut api::StreamCounts)| {
        add(streams.entry(name.clone()).or_insert_with(|| api::StreamCounts { name, ..Default::default() }));
    };
    // Not sum(), for which what does not fit is an error.
    let mut statement = connection.prepare_cached(
        "SELECT stream, what, count FROM sums WHERE gateway = ?1 AND stream IN \
         (SELECT stream FROM sums WHERE gateway = ?1 GROUP BY stream ORDER BY total(count) DESC, stream LIMIT ?2)",
    )?;
    let mut rows = statement.query(params![gateway.0, signed(MAX_STREAMS_SHOWN as u64)])?;
    while let Some(row) = rows.next()? {
        let (what, count) = (What::from_number(row.get(1)?)?, unsigned(row.get(2)?)?);
        of(row.get(0)?, &|stream| match what {
            What::Delivered => stream.delivered = count,
            What::Gone(Reason::Damaged) => stream.missing = count,
            What::Gone(reason) => _ = stream.dropped.insert(reason, count),
        });
    }
    // Of what is missing without a word nobody knows the stream.
    let unnamed = missing.saturating_sub(damaged(connection, gateway)?);
    if unnamed > 0 {
        of(String::new(), &|stream| stream.missing = stream.missing.saturating_add(unnamed));
    }
    for waits in reported.iter().flat_map(|reported| &reported.streams) {
        of(waits.name.clone(), &|stream| {
            stream.waiting = stream.waiting.saturating_add(waits.waiting);
            stream.waiting_bytes = stream.waiting_bytes.saturating_add(waits.bytes);
        });
    }
    Ok(streams.into_values().collect())
}

/// How many records a gateway said its disk lost.
fn damaged(connection: &Connection, gateway: GatewayKey) -> Result<u64, Fault> {
    let mut statement = connection.prepare_cached("SELECT count FROM sums WHERE gateway = ?1 AND what = ?2")?;
    let mut rows = statement.query(params![gateway.0, What::Gone(Reason::Damaged).number()])?;
    let mut sum = 0_u64;
    while let Some(row) = rows.next()? {
        sum = sum.saturating_add(unsigned(row.get(0)?)?);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_means_one_thing() {
        let all: Vec<What> = std::iter::once(What::Delivered).chain(Reason::ALL.map(What::Gone)).collect();
        for what in &all {
            assert_eq!(What::from_number(what.number()).ok(), Some(*what));
        }
        assert!(What::from_number(-2).is_err() && What::from_number(Reason::ALL.len() as i64).is_err());
    }
}
