//! Twins: what devices are, as their gateways report it.

use function_package::check_twin_name;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use sync_core::api::{TwinProperty, TwinQuery, Twins};
use sync_protocol::records::Record;
use sync_protocol::twin::Report;

use super::gateways::{GatewayKey, epoch_text, key_of};
use super::{paging, unsigned};
use crate::fault::Fault;
use crate::limits::MAX_PAGE_BYTES;

/// Takes what a record of the gateway's own stream says, in the transaction that stores the record. What it does not say as it
/// should is stored as a record and nothing more: a gateway must be able to deliver it.
///
/// Records come in any order, so the latest report is the one with the highest epoch, and in it the highest sequence.
pub(crate) fn note(connection: &Connection, gateway: GatewayKey, key: i64, record: &Record) -> Result<(), Fault> {
    let report = serde_json::from_slice::<Report>(&record.body).ok();
    let Some(Report { property, .. }) = report.filter(|report| check_twin_name(&report.property).is_ok()) else {
        tracing::warn!(
            ?gateway,
            function = record.function,
            "a record about a device's property says nothing that is known"
        );
        return Ok(());
    };
    let device = &record.origin.device;
    let known: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT t.key, t.record FROM twins t WHERE t.gateway = ?1 AND t.device = ?2 AND t.property = ?3",
        )?
        .query_row(params![gateway.0, device, property], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match known {
        None => {
            connection
                .prepare_cached("INSERT INTO twins (gateway, device, property, record) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![gateway.0, device, property, key])?;
        }
        Some((twin, before)) if place(connection, key)? > place(connection, before)? => {
            connection.prepare_cached("UPDATE twins SET record = ?2 WHERE key = ?1")?.execute(params![twin, key])?;
        }
        Some(_) => {}
    }
    Ok(())
}

/// Epoch and sequence of a record.
fn place(connection: &Connection, record: i64) -> Result<(u64, u64), Fault> {
    let (epoch, sequence): (i64, i64) = connection
        .prepare_cached("SELECT epoch, sequence FROM records WHERE key = ?1")?
        .query_row([record], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((epoch.cast_unsigned(), unsigned(sequence)?))
}

/// Where a page ends: device and property of its last row.
type Cursor = (String, String);

/// The query of a list, and its values.
fn list_sql(gateway: i64, device: Option<&str>, after: Cursor) -> (String, Vec<Value>) {
    let mut sql = "SELECT t.device, t.property, r.function, r.epoch, r.sequence, r.wall_us, r.received_us, r.body \
                   FROM twins t CROSS JOIN records r ON r.key = t.record WHERE t.gateway = ?"
        .to_owned();
    let mut values = vec![Value::from(gateway)];
    match device {
        Some(device) => {
            sql.push_str(" AND t.device = ? AND t.property > ?");
            values.extend([device.to_owned().into(), after.1.into()]);
        }
        None => {
            sql.push_str(" AND (t.device, t.property) > (?, ?)");
            values.extend([after.0.into(), after.1.into()]);
        }
    }
    sql.push_str(" ORDER BY t.device, t.property");
    (sql, values)
}

/// A page of what the devices of a gateway are, by their names.
pub(crate) fn page(connection: &Connection, id: &str, query: &TwinQuery) -> Result<Twins, Fault> {
    let limit = paging::limit(query.limit)?;
    let gateway = key_of(connection, id)?;
    let mut last = query.cursor.as_deref().map_or(Ok(Cursor::default()), read_cursor)?;
    let (sql, values) = list_sql(gateway, query.device.as_deref(), last.clone());
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut page, mut bytes) = (Twins { properties: Vec::new(), next: None }, 0);
    while let Some(row) = rows.next()? {
        if page.properties.len() == limit || bytes >= MAX_PAGE_BYTES {
            page.next = Some(write_cursor(&last));
            break;
        }
        last = (row.get(0)?, row.get(1)?);
        let body: Vec<u8> = row.get(7)?;
        bytes += last.0.len() + body.len();
        let report: Report = serde_json::from_slice(&body)
            .map_err(|error| Fault::Damaged(format!("a report of {:?} of {:?}: {error}", last.1, last.0)))?;
        page.properties.push(TwinProperty {
            device: last.0.clone(),
            property: last.1.clone(),
            value: report.value,
            function: row.get(2)?,
            epoch: epoch_text(row.get(3)?),
            sequence: unsigned(row.get(4)?)?,
            wall_us: row.get::<_, i64>(5)?.cast_unsigned(),
            received_us: unsigned(row.get(6)?)?,
        });
    }
    Ok(page)
}

/// Names hold anything, so each is a text of JSON, and all of it hexadecimal digits.
fn write_cursor(cursor: &Cursor) -> String {
    super::to_json(cursor).bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn read_cursor(text: &str) -> Result<Cursor, Fault> {
    let read = || serde_json::from_slice(&hex::decode(text).ok()?).ok();
    read().ok_or_else(|| paging::no_cursor(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_cursors_are_taken() {
        let cursor = ("d/\"1".to_owned(), "net.ß".to_owned());
        assert_eq!(read_cursor(&write_cursor(&cursor)).ok(), Some(cursor));
        for text in ["", "7", "zz", "5b225d", "5b2261225d"] {
            assert!(read_cursor(text).is_err(), "{text}");
        }
    }

    #[test]
    fn they_are_found_without_sorting_or_passing_over_others() {
        let mut connection = Connection::open_in_memory().unwrap();
        crate::schema::migrate(&mut connection).unwrap();
        for (device, index) in [
            (None, "sqlite_autoindex_twins_1 (gateway=? AND (device,property)>(?,?))"),
            (Some("d"), "sqlite_autoindex_twins_1 (gateway=? AND device=? AND property>?)"),
        ] {
            let (sql, values) = list_sql(1, device, Cursor::default());
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let plan = plan.query_map(params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
            let plan: Vec<String> = plan.map(Result::unwrap).collect();
            assert!(plan[0].contains(index), "{plan:?}");
            assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE") || step.starts_with("SCAN")), "{plan:?}");
        }
    }
}
