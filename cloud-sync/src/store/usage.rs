//! What functions used and measured: what gateways tell is added to what is here.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use sync_core::api::{MetricPage, MetricQuery, MetricRow, MetricValue, Observed, UsagePage, UsageQuery, UsageRow};
use sync_protocol::records::Record;
use sync_protocol::usage::{self, Counts, Histogram, Part, Usage, add_counts};

use super::gateways::{GatewayKey, key_of};
use super::{paging, signed, unsigned};
use crate::fault::Fault;

/// Takes what a record of the gateway's own stream says, in the transaction that stores the record, hence once. What it
/// does not say as it should is stored as a record and nothing more: a gateway must be able to deliver it.
pub(crate) fn add(connection: &Connection, gateway: GatewayKey, record: &Record) -> Result<(), Fault> {
    let usage = serde_json::from_slice::<Usage>(&record.body).ok().filter(Usage::is_sound);
    let Some(usage) = usage else {
        tracing::warn!(?gateway, "a record about what functions used says nothing that is known");
        return Ok(());
    };
    for Part { hour, function, devices, counters, histograms } in &usage.parts {
        for (device, counts) in devices {
            add_run(connection, gateway, *hour, function, device, counts)?;
        }
        for (name, more) in counters {
            let place = Place { gateway, hour: *hour, function, name, kind: COUNTER };
            let sum = place.read::<f64>(connection)?.map_or(*more, |sum| add_counts(sum, *more));
            place.write(connection, &sum)?;
        }
        for (name, more) in histograms {
            let place = Place { gateway, hour: *hour, function, name, kind: HISTOGRAM };
            let sum = place.read::<Histogram>(connection)?.map(|mut sum| {
                sum.merge(more);
                sum
            });
            place.write(connection, sum.as_ref().unwrap_or(more))?;
        }
    }
    Ok(())
}

fn add_run(
    connection: &Connection,
    gateway: GatewayKey,
    hour: u32,
    function: &str,
    device: &str,
    counts: &Counts,
) -> Result<(), Fault> {
    // What would not fit ends at the highest: SQLite would make a number with a fraction of it, which the table refuses.
    let mut statement = connection.prepare_cached(
        "INSERT INTO usage (gateway, hour, function, device, invocations, failed, fuel, busy_ns, memory_peak, bytes_in, \
         bytes_out, state_peak) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
         ON CONFLICT (gateway, hour, function, device) DO UPDATE SET \
         invocations = invocations + min(excluded.invocations, 9223372036854775807 - invocations), \
         failed = failed + min(excluded.failed, 9223372036854775807 - failed), \
         fuel = fuel + min(excluded.fuel, 9223372036854775807 - fuel), \
         busy_ns = busy_ns + min(excluded.busy_ns, 9223372036854775807 - busy_ns), \
         memory_peak = max(memory_peak, excluded.memory_peak), state_peak = max(state_peak, excluded.state_peak), \
         bytes_in = bytes_in + min(excluded.bytes_in, 9223372036854775807 - bytes_in), \
         bytes_out = bytes_out + min(excluded.bytes_out, 9223372036854775807 - bytes_out)",
    )?;
    statement.execute(params![
        gateway.0,
        hour,
        function,
        device,
        signed(counts.invocations),
        signed(counts.failed),
        signed(counts.fuel),
        signed(counts.busy_ns),
        signed(counts.memory_peak_bytes),
        signed(counts.bytes_in),
        signed(counts.bytes_out),
        signed(counts.state_peak_bytes),
    ])?;
    Ok(())
}

/// Kinds of metrics, as they are stored.
const COUNTER: u8 = 0;
const HISTOGRAM: u8 = 1;

/// Where a metric stands.
struct Place<'a> {
    gateway: GatewayKey,
    hour: u32,
    function: &'a str,
    name: &'a str,
    kind: u8,
}

impl Place<'_> {
    fn read<T: serde::de::DeserializeOwned>(&self, connection: &Connection) -> Result<Option<T>, Fault> {
        let found: Option<Vec<u8>> = connection
            .prepare_cached(
                "SELECT value FROM metrics WHERE gateway = ?1 AND hour = ?2 AND function = ?3 AND name = ?4 AND kind = ?5",
            )?
            .query_row(params![self.gateway.0, self.hour, self.function, self.name, self.kind], |row| row.get(0))
            .optional()?;
        found.map(|value| read_value(&value)).transpose()
    }

    fn write<T: serde::Serialize>(&self, connection: &Connection, value: &T) -> Result<(), Fault> {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO metrics (gateway, hour, function, name, kind, value) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                self.gateway.0,
                self.hour,
                self.function,
                self.name,
                self.kind,
                sync_protocol::encode(value)
            ])?;
        Ok(())
    }
}

fn read_value<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    sync_protocol::decode(bytes).map_err(|error| Fault::Damaged(format!("a metric: {error}")))
}

/// What sums can be told apart by: its name, the column or what is made of it, and whether it is a number.
struct By {
    name: &'static str,
    sql: &'static str,
    number: bool,
}

const HOUR: By = By { name: "hour", sql: "u.hour", number: true };
const DAY: By = By { name: "day", sql: "u.hour / 24 * 24", number: true };
const GATEWAY: By = By { name: "gateway", sql: "g.id", number: false };
const FUNCTION: By = By { name: "function", sql: "u.function", number: false };
const DEVICE: By = By { name: "device", sql: "u.device", number: false };
const NAME: By = By { name: "name", sql: "u.name", number: false };
const KIND: By = By { name: "kind", sql: "u.kind", number: true };

/// Those that a query names, each once.
fn read_by(text: &str, known: &[&'static By]) -> Result<Vec<&'static By>, Fault> {
    let mut by: Vec<&'static By> = Vec::new();
    for word in text.split(',').filter(|word| !word.is_empty()) {
        let found = known.iter().find(|one| one.name == word).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|one| one.name).collect();
            Fault::bad("bad_by", format!("{word:?} is nothing to tell sums apart by; allowed are {}", names.join(", ")))
        })?;
        if by.iter().any(|one| one.name == found.name) {
            return Err(Fault::bad("bad_by", format!("{word:?} stands there twice")));
        }
        by.push(found);
    }
    if by.iter().any(|one| one.name == HOUR.name) && by.iter().any(|one| one.name == DAY.name) {
        return Err(Fault::bad("bad_by", "hour and day both; an hour lies in one day".to_owned()));
    }
    Ok(by)
}

/// A query that is being put together.
struct Sql {
    filters: Vec<String>,
    values: Vec<Value>,
}

impl Sql {
    /// What all queries filter by.
    fn new(
        connection: &Connection,
        gateway: Option<&str>,
        function: Option<&str>,
        (from, to): (Option<u64>, Option<u64>),
    ) -> Result<Self, Fault> {
        let mut sql = Self { filters: Vec::new(), values: Vec::new() };
        if let Some(id) = gateway {
            sql.filter("u.gateway = ?", key_of(connection, id)?);
        }
        if let Some(function) = function {
            sql.filter("u.function = ?", function.to_owned());
        }
        // The first hour that begins then or later.
        let first = |us: u64| i64::from(usage::hour(us)) + i64::from(us > usage::hour_begins_us(usage::hour(us)));
        if let Some(from) = from {
            sql.filter("u.hour >= ?", first(from));
        }
        if let Some(to) = to {
            sql.filter("u.hour < ?", first(to));
        }
        Ok(sql)
    }

    fn filter(&mut self, sql: &str, value: impl Into<Value>) {
        self.filters.push(sql.to_owned());
        self.values.push(value.into());
    }

    /// Only what comes after the last row of a page.
    fn after(&mut self, by: &[&By], cursor: Option<&str>) -> Result<(), Fault> {
        let Some(cursor) = cursor else { return Ok(()) };
        let keys =
            hex::decode(cursor).ok().and_then(|bytes| serde_json::from_slice::<Vec<serde_json::Value>>(&bytes).ok());
        let keys = keys.filter(|keys| keys.len() == by.len()).ok_or_else(|| paging::no_cursor(cursor))?;
        for (one, key) in by.iter().zip(keys) {
            self.values.push(match key {
                serde_json::Value::String(text) if !one.number => text.into(),
                serde_json::Value::Number(number) if one.number => {
                    number.as_i64().ok_or_else(|| paging::no_cursor(cursor))?.into()
                }
                _ => return Err(paging::no_cursor(cursor)),
            });
        }
        let marks = vec!["?"; by.len()].join(", ");
        self.filters.push(format!("({}) > ({marks})", columns(by)));
        Ok(())
    }

    fn filters(&self) -> String {
        if self.filters.is_empty() { String::new() } else { format!(" WHERE {}", self.filters.join(" AND ")) }
    }
}

fn columns(by: &[&By]) -> String {
    by.iter().map(|one| one.sql).collect::<Vec<_>>().join(", ")
}

/// The cursor after a row whose first columns are these.
fn write_cursor(row: &[Value]) -> String {
    let keys: Vec<serde_json::Value> = row
        .iter()
        .map(|key| match key {
            Value::Text(text) => text.as_str().into(),
            Value::Integer(number) => (*number).into(),
            Value::Null | Value::Real(_) | Value::Blob(_) => serde_json::Value::Null,
        })
        .collect();
    hex::encode(serde_json::Value::from(keys).to_string())
}

fn keys(row: &Row<'_>, by: &[&By]) -> Result<Vec<Value>, Fault> {
    (0..by.len()).map(|column| Ok(row.get(column)?)).collect()
}

/// A key's text, or the moment at which its hour begins.
fn text(key: &Value) -> Option<String> {
    if let Value::Text(text) = key { Some(text.clone()) } else { None }
}

fn begins(key: &Value) -> Option<u64> {
    let Value::Integer(hour) = key else { return None };
    u32::try_from(*hour).ok().map(usage::hour_begins_us)
}

/// A page of what runs used.
pub(crate) fn page(connection: &Connection, query: &UsageQuery) -> Result<UsagePage, Fault> {
    let limit = paging::limit(query.limit)?;
    let by = query.by.as_deref().filter(|by| !by.is_empty()).unwrap_or(FUNCTION.name);
    let by = read_by(by, &[&HOUR, &DAY, &GATEWAY, &FUNCTION, &DEVICE])?;
    let times = (query.from, query.to);
    let mut sql = Sql::new(connection, query.gateway.as_deref(), query.function.as_deref(), times)?;
    if let Some(device) = &query.device {
        sql.filter("u.device = ?", device.clone());
    }
    sql.after(&by, query.cursor.as_deref())?;
    let (columns, filters) = (columns(&by), sql.filters());
    // Exact up to 2^53, and rounded beyond. What 64 bits do not hold would be an error of `sum`.
    let sums = ["invocations", "failed", "fuel", "busy_ns", "bytes_in", "bytes_out"]
        .map(|sum| format!("CAST(min(total(u.{sum}), 9.2e18) AS INTEGER)"));
    let text_of = format!(
        "SELECT {columns}, {}, max(u.memory_peak), max(u.state_peak) FROM usage u JOIN gateways g ON g.key = u.gateway{filters} \
         GROUP BY {columns} ORDER BY {columns} LIMIT {}",
        sums.join(", "),
        limit + 1
    );
    let mut statement = connection.prepare_cached(&text_of)?;
    let mut rows = statement.query(params_from_iter(sql.values))?;
    let (mut page, mut last) = (UsagePage { usage: Vec::new(), next: None }, Vec::new());
    while let Some(row) = rows.next()? {
        if page.usage.len() == limit {
            page.next = Some(write_cursor(&last));
            break;
        }
        last = keys(row, &by)?;
        let number = |column: usize| row.get(by.len() + column).map_err(Fault::from).and_then(unsigned);
        let mut found = UsageRow {
            invocations: number(0)?,
            failed: number(1)?,
            fuel: number(2)?,
            busy_us: number(3)? / 1_000,
            bytes_in: number(4)?,
            bytes_out: number(5)?,
            memory_peak_bytes: number(6)?,
            state_peak_bytes: number(7)?,
            ..UsageRow::default()
        };
        for (one, key) in by.iter().zip(&last) {
            match one.name {
                "hour" | "day" => found.from_us = begins(key),
                "gateway" => found.gateway = text(key),
                "function" => found.function = text(key),
                _ => found.device = text(key),
            }
        }
        page.usage.push(found);
    }
    Ok(page)
}

/// A sum of what gateways measured.
enum Sum {
    Counter(f64),
    Histogram(Histogram),
}

/// A page of what functions measured.
pub(crate) fn metrics(connection: &Connection, query: &MetricQuery) -> Result<MetricPage, Fault> {
    let limit = paging::limit(query.limit)?;
    let mut by: Vec<&'static By> = vec![&FUNCTION, &NAME, &KIND];
    by.extend(read_by(query.by.as_deref().unwrap_or_default(), &[&HOUR, &DAY, &GATEWAY])?);
    let times = (query.from, query.to);
    let mut sql = Sql::new(connection, query.gateway.as_deref(), query.function.as_deref(), times)?;
    if let Some(name) = &query.name {
        sql.filter("u.name = ?", name.clone());
    }
    sql.after(&by, query.cursor.as_deref())?;
    let (columns, filters) = (columns(&by), sql.filters());
    let text_of = format!(
        "SELECT {columns}, u.value FROM metrics u JOIN gateways g ON g.key = u.gateway{filters} ORDER BY {columns}"
    );
    let mut statement = connection.prepare_cached(&text_of)?;
    let mut rows = statement.query(params_from_iter(sql.values))?;
    let mut page = MetricPage { metrics: Vec::new(), next: None };
    let mut now: Option<(Vec<Value>, Sum)> = None;
    while let Some(row) = rows.next()? {
        let key = keys(row, &by)?;
        let value: Vec<u8> = row.get(by.len())?;
        let more = match &key[2] {
            Value::Integer(kind) if *kind == i64::from(COUNTER) => Sum::Counter(read_value(&value)?),
            _ => Sum::Histogram(read_value(&value)?),
        };
        now = match (now.take(), more) {
            (Some((known, Sum::Counter(sum))), Sum::Counter(more)) if known == key => {
                Some((known, Sum::Counter(add_counts(sum, more))))
            }
            (Some((known, Sum::Histogram(mut sum))), Sum::Histogram(more)) if known == key => {
                sum.merge(&more);
                Some((known, Sum::Histogram(sum)))
            }
            (before, more) => {
                if let Some((known, sum)) = before {
                    page.metrics.push(metric(&by, &known, &sum));
                    if page.metrics.len() == limit {
                        page.next = Some(write_cursor(&known));
                        return Ok(page);
                    }
                }
                Some((key, more))
            }
        };
    }
    if let Some((known, sum)) = now {
        page.metrics.push(metric(&by, &known, &sum));
    }
    Ok(page)
}

fn metric(by: &[&By], key: &[Value], sum: &Sum) -> MetricRow {
    let value = match sum {
        Sum::Counter(sum) => MetricValue::Counter(*sum),
        Sum::Histogram(values) => MetricValue::Observed(Observed {
            count: values.count(),
            sum: values.sum(),
            min: values.min(),
            max: values.max(),
            p50: values.quantile(0.5),
            p90: values.quantile(0.9),
            p99: values.quantile(0.99),
        }),
    };
    let [function, name] = [&key[0], &key[1]].map(|key| text(key).unwrap_or_default());
    let mut row = MetricRow { function, name, from_us: None, gateway: None, value };
    for (one, key) in by.iter().zip(key).skip(3) {
        match one.name {
            "gateway" => row.gateway = text(key),
            _ => row.from_us = begins(key),
        }
    }
    row
}
