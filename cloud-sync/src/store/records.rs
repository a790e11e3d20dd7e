//! Queries over records.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use sync_core::api::{self, Body, Page, RecordQuery, Stream, Streams};
use sync_protocol::records::{Origin, Record, Stamp};

use super::gateways::{class, epoch_text};
use super::{paging, unsigned};
use crate::fault::Fault;
use crate::limits::{MAX_PAGE_BYTES, MAX_SCAN};

/// A page of the records that match, in the order in which they were stored.
///
/// The database finds the records of a stream and a device by an index; the other conditions are checked here, on at
/// most [`MAX_SCAN`] records a page, so that no query keeps the reader for long.
pub(crate) fn page(connection: &Connection, query: &RecordQuery) -> Result<Page, Fault> {
    let limit = paging::limit(query.limit)?;
    let start = query.cursor.as_deref().map_or(Ok(0), paging::read_key)?;
    let end_of = |last: i64| Page { records: Vec::new(), next: None, resume: paging::write_key(last) };

    let mut conditions = vec![("r.key > ?", rusqlite::types::Value::from(start))];
    if let Some(stream) = &query.stream {
        let Some(key) = find(connection, "SELECT key FROM streams WHERE name = ?1", stream)? else {
            return Ok(end_of(start));
        };
        conditions.push(("r.stream = ?", key.into()));
    }
    if let Some(device) = &query.device {
        conditions.push(("r.device = ?", device.clone().into()));
    }
    let gateway = match &query.gateway {
        None => None,
        Some(id) => match find(connection, "SELECT key FROM gateways WHERE id = ?1", id)? {
            None => return Ok(end_of(start)),
            found => found,
        },
    };
    let sql: Vec<&str> = conditions.iter().map(|(sql, _)| *sql).collect();
    let sql = format!(
        "SELECT r.key, r.gateway, r.epoch, r.class, r.sequence, r.checksum, s.name, r.function, r.device, r.topic, \
         r.boot_epoch, r.event_sequence, r.wall_us, r.monotonic_us, r.boot, r.synchronised, r.received_us, r.body \
         FROM records r CROSS JOIN streams s ON s.key = r.stream WHERE {} ORDER BY r.key",
        sql.join(" AND ")
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(conditions.iter().map(|(_, value)| value)))?;

    let mut page = end_of(start);
    let (mut last, mut bytes, mut ids) = (start, 0, HashMap::new());
    for looked_at in 0.. {
        let Some(row) = rows.next()? else { break };
        if looked_at == MAX_SCAN || page.records.len() == limit || bytes >= MAX_PAGE_BYTES {
            page.next = Some(paging::write_key(last));
            break;
        }
        last = row.get(0)?;
        let key: i64 = row.get(1)?;
        let wall_us = row.get::<_, i64>(12)?.cast_unsigned();
        let wanted = gateway.is_none_or(|gateway| gateway == key)
            && query.from.is_none_or(|from| from <= wall_us)
            && query.to.is_none_or(|to| wall_us < to)
            && match &query.function {
                Some(function) => row.get_ref(7)?.as_str().is_ok_and(|found| found == function),
                None => true,
            };
        if wanted {
            let id = match ids.get(&key) {
                Some(id) => id,
                None => ids.entry(key).or_insert(gateway_id(connection, key)?),
            };
            let (record, size) = record(row, id)?;
            bytes += size;
            page.records.push(record);
        }
    }
    page.resume = paging::write_key(last);
    Ok(page)
}

fn find(connection: &Connection, sql: &str, name: &str) -> Result<Option<i64>, Fault> {
    Ok(connection.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?)
}

fn gateway_id(connection: &Connection, key: i64) -> Result<String, Fault> {
    Ok(connection.prepare_cached("SELECT id FROM gateways WHERE key = ?1")?.query_row([key], |row| row.get(0))?)
}

/// A record, and how many bytes it has.
fn record(row: &Row<'_>, gateway: &str) -> Result<(api::Record, usize), Fault> {
    let identity: Option<(i64, i64)> = row.get::<_, Option<_>>(10)?.zip(row.get(11)?);
    let identity = identity.map(|(boot_epoch, sequence)| (boot_epoch.cast_unsigned(), sequence.cast_unsigned()));
    let stamp = Stamp {
        wall_us: row.get::<_, i64>(12)?.cast_unsigned(),
        monotonic_us: row.get::<_, i64>(13)?.cast_unsigned(),
        boot: row.get::<_, i64>(14)?.cast_unsigned(),
        synchronised: row.get(15)?,
    };
    let origin = Origin { device: row.get(8)?, topic: row.get(9)?, identity };
    let stored = Record { stream: row.get(6)?, function: row.get(7)?, origin, stamp, body: row.get(17)? };
    let intact = stored.checksum() == row.get::<_, u32>(5)?;
    let Record { stream, function, origin, stamp, body } = stored;
    let sequence = unsigned(row.get(4)?)?;
    let epoch = epoch_text(row.get(2)?);
    if !intact {
        tracing::error!(gateway, epoch, sequence, "a stored record no longer has its checksum");
    }
    let size = body.len() + stream.len() + function.len() + origin.device.len() + origin.topic.len();
    let record = api::Record {
        gateway: gateway.to_owned(),
        epoch,
        class: class(row.get(3)?)?,
        sequence,
        stream,
        function,
        device: origin.device,
        topic: origin.topic,
        identity: origin.identity.map(|(boot_epoch, sequence)| api::Identity {
            boot_epoch: boot_epoch.to_string(),
            sequence: sequence.to_string(),
        }),
        wall_us: stamp.wall_us,
        clock_synchronised: stamp.synchronised,
        monotonic_us: stamp.monotonic_us,
        boot: stamp.boot.to_string(),
        received_us: unsigned(row.get(16)?)?,
        intact,
        body: Body::from_bytes(&body),
    };
    Ok((record, size))
}

/// All streams.
pub(crate) fn streams(connection: &Connection) -> Result<Streams, Fault> {
    let mut statement = connection.prepare_cached("SELECT name, records FROM streams ORDER BY name")?;
    let mut rows = statement.query([])?;
    let mut streams = Vec::new();
    while let Some(row) = rows.next()? {
        streams.push(Stream { name: row.get(0)?, records: unsigned(row.get(1)?)? });
    }
    Ok(Streams { streams })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_cursors_are_taken() {
        assert_eq!(paging::read_key(&paging::write_key(i64::MAX)).ok(), Some(i64::MAX));
        for text in ["", "-1", "xyz", "ffffffffffffffff"] {
            assert!(paging::read_key(text).is_err(), "{text}");
        }
    }
}
