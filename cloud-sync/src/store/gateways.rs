//! Gateways: who they are, what they are labelled, what they reported.

use function_package::Digest;
use rusqlite::{Connection, OptionalExtension, params};
use sync_core::api;
use sync_core::health::{Health, health};
use sync_core::labels::{self, Labels};
use sync_protocol::fleet::{MAX_STREAM_REPORTS, Report, Request};

use super::{dead, deployments, from_json, signed, sums, to_json, unsigned};
use crate::fault::Fault;
use crate::limits::MAX_NAME_BYTES;
use crate::secret::{self, Hash};

/// A gateway's row; only [`by_credential`] makes one, so who holds it has proved who he is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GatewayKey(pub(super) i64);

/// Highest generation, and highest command, that a gateway may claim to have: from there on there is still room to grow
/// without end, so that none can make the sum overflow in a deployment that concerns all.
const MAX_GENERATION: u64 = 1 << 62;

/// The gateway whose credential has this hash.
pub(crate) fn by_credential(connection: &Connection, hash: &Hash) -> Result<Option<GatewayKey>, Fault> {
    let found: Option<(i64, Hash)> = connection
        .prepare_cached("SELECT key, credential_hash FROM gateways WHERE credential_hash = ?1")?
        .query_row([hash], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(found.filter(|(_, stored)| secret::same(stored, hash)).map(|(key, _)| GatewayKey(key)))
}

/// Refuses an id that does not exist.
pub(crate) fn unknown(id: &str) -> Fault {
    Fault::not_found("unknown_gateway", format!("there is no gateway {id:?}; `edgectl gateways` lists all"))
}

/// The row of a gateway that an operator names.
pub(super) fn key_of(connection: &Connection, id: &str) -> Result<i64, Fault> {
    let key = connection
        .prepare_cached("SELECT key FROM gateways WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    key.ok_or_else(|| unknown(id))
}

/// The labels of a gateway.
pub(crate) fn labels(connection: &Connection, gateway: GatewayKey) -> Result<Labels, Fault> {
    let mut statement = connection.prepare_cached("SELECT key, value FROM labels WHERE gateway = ?1")?;
    let rows = statement.query_map([gateway.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Notes that a gateway asked for news, and what it reports.
pub(crate) fn seen(connection: &Connection, gateway: GatewayKey, request: &Request, now_us: u64) -> Result<(), Fault> {
    if request.generation > MAX_GENERATION {
        let message = format!("there is no generation {}; start with 0", request.generation);
        return Err(Fault::bad("bad_generation", message));
    }
    if request.commands_done > MAX_GENERATION {
        let message = format!("there is no command {}; start with 0", request.commands_done);
        return Err(Fault::bad("bad_command", message));
    }
    dead::done(connection, gateway, request.commands_done)?;
    // A generation above ours: our database is an older copy that was put back. Ours goes past it, so that it grows.
    connection
        .prepare_cached(
            "UPDATE gateways SET last_seen_us = ?2, \
             generation = CASE WHEN generation < ?3 THEN max(?3 + 1, ?2) ELSE generation END WHERE key = ?1",
        )?
        .execute(params![gateway.0, signed(now_us), signed(request.generation)])?;
    if let Some(report) = &request.report {
        if report.agent_version.len() > MAX_NAME_BYTES {
            let message = format!("the agent's version in the report has more than {MAX_NAME_BYTES} bytes");
            return Err(Fault::bad("bad_report", message));
        }
        if report.streams.len() > MAX_STREAM_REPORTS {
            let message = format!("the report names {} streams; at most {MAX_STREAM_REPORTS}", report.streams.len());
            return Err(Fault::bad("bad_report", message));
        }
        connection
            .prepare_cached("UPDATE gateways SET agent_version = ?2, reported = ?3 WHERE key = ?1")?
            .execute(params![gateway.0, report.agent_version, to_json(&reported(report))])?;
    }
    Ok(())
}

fn reported(report: &Report) -> api::Reported {
    let functions = report.functions.iter().map(|function| api::FunctionState {
        name: function.name.clone(),
        version: function.version.clone(),
        digest: (function.digest != [0; 32]).then(|| Digest::from_bytes(function.digest).to_string()),
        deployment: function.deployment,
        status: function.status.into(),
        detail: function.detail.clone(),
    });
    api::Reported {
        generation: report.generation,
        uptime_s: report.uptime_s,
        waiting: report.waiting,
        streams: report.streams.clone(),
        handled: report.handled,
        dead_letters: report.dead_letters,
        functions: functions.collect(),
    }
}

/// All gateways, as the operator sees them.
pub(crate) fn gateways(connection: &Connection, now_us: u64) -> Result<api::Gateways, Fault> {
    list(connection, None, now_us)
}

fn one(connection: &Connection, id: &str, now_us: u64) -> Result<api::Gateway, Fault> {
    list(connection, Some(id), now_us)?.gateways.pop().ok_or_else(|| unknown(id))
}

/// One gateway in full.
pub(crate) fn detail(connection: &Connection, id: &str, now_us: u64) -> Result<api::GatewayDetail, Fault> {
    let key = GatewayKey(key_of(connection, id)?);
    let gateway = one(connection, id, now_us)?;
    let streams = sums::streams(connection, key, gateway.records.missing, gateway.reported.as_ref())?;
    Ok(api::GatewayDetail { gateway, streams })
}

fn list(connection: &Connection, only: Option<&str>, now_us: u64) -> Result<api::Gateways, Fault> {
    let deployments = deployments::newest(connection)?;
    let mut statement = connection.prepare_cached(
        "SELECT key, id, name, agent_version, enrolled_us, last_seen_us, generation, reported, stored, duplicates, \
         missing, dropped, conflicts FROM gateways WHERE ?1 IS NULL OR id = ?1 ORDER BY key",
    )?;
    let mut rows = statement.query([only])?;
    let mut gateways = Vec::new();
    while let Some(row) = rows.next()? {
        let key = GatewayKey(row.get(0)?);
        let id: String = row.get(1)?;
        let labels = labels(connection, key)?;
        let last_seen_us = row.get::<_, Option<i64>>(5)?.map(unsigned).transpose()?;
        let reported: Option<String> = row.get(7)?;
        gateways.push(api::Gateway {
            name: row.get(2)?,
            health: health(last_seen_us, now_us),
            enrolled_us: unsigned(row.get(4)?)?,
            last_seen_us,
            agent_version: row.get(3)?,
            generation: unsigned(row.get(6)?)?,
            desired: deployments::desired_for_api(&deployments, &id, &labels),
            reported: reported.map(|text| from_json("report of a gateway", &text)).transpose()?,
            records: api::RecordCounts {
                stored: unsigned(row.get(8)?)?,
                duplicates: unsigned(row.get(9)?)?,
                missing: unsigned(row.get(10)?)?,
                dropped: unsigned(row.get(11)?)?,
                conflicts: unsigned(row.get(12)?)?,
            },
            gone: sums::gone(connection, key)?,
            id,
            labels,
        });
    }
    Ok(api::Gateways { gateways })
}

/// An epoch as text.
pub(super) fn epoch_text(stored: i64) -> String {
    format!("{:016x}", stored.cast_unsigned())
}

/// A class by its number.
pub(super) fn class(number: u8) -> Result<api::Class, Fault> {
    use sync_protocol::records::Class;
    if number == Class::Normal.number() {
        Ok(api::Class::Normal)
    } else if number == Class::High.number() {
        Ok(api::Class::High)
    } else {
        Err(Fault::Damaged(format!("there is no class {number}")))
    }
}

/// Changes labels, and with them possibly what should run on the gateway.
pub(crate) fn relabel(
    connection: &Connection,
    id: &str,
    change: &api::LabelChange,
    now_us: u64,
) -> Result<api::Gateway, Fault> {
    let key = key_of(connection, id)?;
    for (label, value) in &change.labels {
        match value {
            Some(value) => {
                connection
                    .prepare_cached("INSERT OR REPLACE INTO labels (gateway, key, value) VALUES (?1, ?2, ?3)")?
                    .execute(params![key, label, value])?;
            }
            None => {
                connection
                    .prepare_cached("DELETE FROM labels WHERE gateway = ?1 AND key = ?2")?
                    .execute(params![key, label])?;
            }
        }
    }
    // Refused labels are undone with the whole job.
    let labels = labels(connection, GatewayKey(key))?;
    labels::check_all(&labels).map_err(|error| Fault::bad("bad_label", error.to_string()))?;
    connection
        .prepare_cached("UPDATE gateways SET generation = max(generation + 1, ?2) WHERE key = ?1")?
        .execute(params![key, signed(now_us)])?;
    one(connection, id, now_us)
}

/// The fleet in numbers.
pub(crate) fn stats(connection: &Connection, now_us: u64) -> Result<api::Stats, Fault> {
    let mut stats = api::Stats { gateways: 0, online: 0, functions: 0, records: api::RecordCounts::default() };
    let mut statement = connection
        .prepare_cached("SELECT last_seen_us, stored, duplicates, missing, dropped, conflicts FROM gateways")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let last_seen_us = row.get::<_, Option<i64>>(0)?.map(unsigned).transpose()?;
        stats.gateways += 1;
        stats.online += u64::from(health(last_seen_us, now_us) == Health::Online);
        let sum = &mut stats.records;
        let totals = [&mut sum.stored, &mut sum.duplicates, &mut sum.missing, &mut sum.dropped, &mut sum.conflicts];
        for (column, total) in (1..).zip(totals) {
            *total = total.saturating_add(unsigned(row.get(column)?)?);
        }
    }
    stats.functions =
        unsigned(connection.prepare_cached("SELECT count(*) FROM functions")?.query_row([], |row| row.get(0))?)?;
    Ok(stats)
}
