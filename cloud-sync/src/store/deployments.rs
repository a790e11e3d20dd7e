//! What should run where.

use std::collections::BTreeMap;

use function_package::{Digest, Signature};
use rusqlite::{Connection, OptionalExtension, Row, params};
use sync_core::api;
use sync_core::labels::Labels;
use sync_core::targeting::{Deployed, Target, in_force};
use sync_protocol::fleet::{Desired, DesiredFunction};

use super::gateways::{self, GatewayKey};
use super::{digest, from_json, signed, to_json, unsigned};
use crate::fault::Fault;

/// A deployment as it is stored.
pub(crate) struct Deployment {
    number: u64,
    name: String,
    target: Target,
    config: BTreeMap<String, String>,
    created_us: u64,
    /// `None`: it removes the function.
    function: Option<Pushed>,
}

#[derive(Clone)]
struct Pushed {
    version: String,
    digest: Digest,
    signature: Signature,
}

impl Deployed for Deployment {
    fn number(&self) -> u64 {
        self.number
    }

    fn function(&self) -> &str {
        &self.name
    }

    fn target(&self) -> &Target {
        &self.target
    }
}

/// The newest deployment of each name and target: older ones never count again. The newest first.
pub(crate) fn newest(connection: &Connection) -> Result<Vec<Deployment>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT d.number, d.name, d.target, d.config, d.created_us, f.version, f.digest, f.signature \
         FROM deployments d LEFT JOIN functions f ON f.key = d.function \
         WHERE d.number IN (SELECT max(number) FROM deployments GROUP BY name, target) ORDER BY d.number DESC",
    )?;
    let mut rows = statement.query([])?;
    let mut deployments = Vec::new();
    while let Some(row) = rows.next()? {
        deployments.push(deployment(row)?);
    }
    Ok(deployments)
}

fn deployment(row: &Row<'_>) -> Result<Deployment, Fault> {
    let damaged = |what, error: &dyn std::fmt::Display| Fault::Damaged(format!("{what} of a deployment: {error}"));
    let version: Option<String> = row.get(5)?;
    let function = match version {
        None => None,
        Some(version) => {
            let signature: String = row.get(7)?;
            let signature = signature.parse().map_err(|error| damaged("signature", &error))?;
            Some(Pushed { version, digest: digest(row.get(6)?), signature })
        }
    };
    Ok(Deployment {
        number: unsigned(row.get(0)?)?,
        name: row.get(1)?,
        target: row.get::<_, String>(2)?.parse().map_err(|error| damaged("target", &error))?,
        config: from_json("configuration of a deployment", &row.get::<_, String>(3)?)?,
        created_us: unsigned(row.get(4)?)?,
        function,
    })
}

impl Deployment {
    /// As the operator sees it.
    pub(crate) fn to_api(&self) -> api::Deployment {
        api::Deployment {
            number: self.number,
            kind: if self.function.is_some() { api::Kind::Set } else { api::Kind::Remove },
            function: self.name.clone(),
            version: self.function.as_ref().map(|function| function.version.clone()),
            digest: self.function.as_ref().map(|function| function.digest.to_string()),
            target: self.target.to_string(),
            config: self.config.clone(),
            created_us: self.created_us,
        }
    }
}

/// What should run on a gateway, for the operator.
pub(crate) fn desired_for_api(deployments: &[Deployment], gateway: &str, labels: &Labels) -> Vec<api::Desired> {
    let set = in_force(deployments, gateway, labels).into_iter();
    set.filter_map(|deployment| {
        let function = deployment.function.as_ref()?;
        Some(api::Desired {
            function: deployment.name.clone(),
            version: function.version.clone(),
            digest: function.digest.to_string(),
            deployment: deployment.number,
        })
    })
    .collect()
}

/// What should run on a gateway, unless that is the generation that it has.
pub(crate) fn desired_if_changed(
    connection: &Connection,
    gateway: GatewayKey,
    has: u64,
) -> Result<Option<Desired>, Fault> {
    let (id, generation) = connection
        .prepare_cached("SELECT id, generation FROM gateways WHERE key = ?1")?
        .query_row([gateway.0], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    let generation = unsigned(generation)?;
    if generation == has {
        return Ok(None);
    }
    let labels = gateways::labels(connection, gateway)?;
    let functions = in_force(&newest(connection)?, &id, &labels)
        .into_iter()
        .filter_map(|deployment| {
            let function = deployment.function.clone()?;
            Some(DesiredFunction {
                name: deployment.name.clone(),
                version: function.version,
                digest: *function.digest.as_bytes(),
                key_id: function.signature.key_id.to_string(),
                signature: function.signature.bytes.to_vec(),
                config: deployment.config.clone().into_iter().collect(),
                deployment: deployment.number,
            })
        })
        .collect();
    Ok(Some(Desired { generation, functions }))
}

/// What a new deployment does.
pub(crate) enum Change {
    /// A function that was pushed, with its checked configuration.
    Set { digest: Digest, config: BTreeMap<String, String> },
    /// The function of this name, whatever its version.
    Remove { name: String },
}

/// Makes a deployment, and a new generation for every gateway that it may concern.
///
/// A generation grows whatever the clock says; it jumps to the clock's microseconds so that a database that was put back
/// from a copy does not give out again what it gave out before.
pub(crate) fn deploy(
    connection: &Connection,
    change: &Change,
    target: &Target,
    now_us: u64,
) -> Result<api::Deployment, Fault> {
    let empty = BTreeMap::new();
    let (name, function, config) = match change {
        Change::Set { digest, config } => {
            let (key, name) = connection
                .prepare_cached("SELECT key, name FROM functions WHERE digest = ?1")?
                .query_row([digest.as_bytes()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
            (name, Some(key), config)
        }
        Change::Remove { name } => {
            let mut find = connection.prepare_cached("SELECT count(*) > 0 FROM functions WHERE name = ?1")?;
            if !find.query_row([name], |row| row.get::<_, bool>(0))? {
                let message = format!("no function {name:?} was ever pushed, so there is nothing to undeploy");
                return Err(Fault::not_found("unknown_function", message));
            }
            (name.clone(), None, &empty)
        }
    };
    let concerned = match target {
        Target::All => {
            connection.execute("UPDATE gateways SET generation = max(generation + 1, ?1)", [signed(now_us)])?
        }
        Target::Label { key, value } => connection.execute(
            "UPDATE gateways SET generation = max(generation + 1, ?1) \
             WHERE key IN (SELECT gateway FROM labels WHERE key = ?2 AND value = ?3)",
            params![signed(now_us), key, value],
        )?,
        Target::Gateway(id) => {
            let count = connection.execute(
                "UPDATE gateways SET generation = max(generation + 1, ?1) WHERE id = ?2",
                params![signed(now_us), id],
            )?;
            if count == 0 {
                return Err(gateways::unknown(id));
            }
            count
        }
    };
    connection
        .prepare_cached(
            "INSERT INTO deployments (name, target, function, config, created_us) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![name, target.to_string(), function, to_json(config), signed(now_us)])?;
    let number = connection.last_insert_rowid();
    tracing::info!(number, name, %target, removes = function.is_none(), gateways = concerned, "deployment");
    let made = connection
        .prepare_cached(
            "SELECT d.number, d.name, d.target, d.config, d.created_us, f.version, f.digest, f.signature \
             FROM deployments d LEFT JOIN functions f ON f.key = d.function WHERE d.number = ?1",
        )?
        .query_row([number], |row| Ok(deployment(row)))
        .optional()?;
    Ok(made.ok_or_else(|| Fault::Damaged("a deployment is not there after it was made".to_owned()))??.to_api())
}
