//! Claims, and the gateways that they are turned into.

use axum::http::StatusCode;
use rusqlite::{Connection, OptionalExtension, params};
use sync_core::api::{Claim, ClaimInfo, ClaimState, Claims, NewClaim};
use sync_core::labels::{self, Labels};
use sync_protocol::enroll::{Reply, Request};

use super::{from_json, signed, to_json, unsigned};
use crate::fault::Fault;
use crate::limits::{MAX_CLAIM_S, MAX_NAME_BYTES};
use crate::secret::{self, Hash};

/// Makes a claim.
pub(crate) fn new_claim(connection: &Connection, wanted: &NewClaim, now_us: u64) -> Result<Claim, Fault> {
    labels::check_all(&wanted.labels).map_err(|error| Fault::bad("bad_label", error.to_string()))?;
    if !(1..=MAX_CLAIM_S).contains(&wanted.expires_s) {
        let message = format!("a claim is good for 1 to {MAX_CLAIM_S} seconds, not for {}", wanted.expires_s);
        return Err(Fault::bad("bad_expiry", message));
    }
    let claim = secret::new_claim()?;
    let id = format!("claim-{}", hex::encode(secret::random::<4>()?));
    let expires_us = now_us.saturating_add(wanted.expires_s * 1_000_000);
    connection
        .prepare_cached("INSERT INTO claims (id, hash, salt, labels, expires_us) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
        id,
        secret::hash(claim.as_bytes()),
        secret::random::<32>()?,
        to_json(&wanted.labels),
        signed(expires_us)
    ])?;
    Ok(Claim { claim, id, expires_us })
}

/// All claims, the newest first.
pub(crate) fn claims(connection: &Connection, now_us: u64) -> Result<Claims, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT c.id, c.labels, c.expires_us, g.id FROM claims c LEFT JOIN gateways g ON g.key = c.gateway \
         ORDER BY c.key DESC",
    )?;
    let mut rows = statement.query([])?;
    let mut claims = Vec::new();
    while let Some(row) = rows.next()? {
        let expires_us = unsigned(row.get(2)?)?;
        let gateway: Option<String> = row.get(3)?;
        let state = match gateway {
            Some(_) => ClaimState::Used,
            None if expires_us <= now_us => ClaimState::Expired,
            None => ClaimState::Open,
        };
        let labels = from_json("labels of a claim", &row.get::<_, String>(1)?)?;
        claims.push(ClaimInfo { id: row.get(0)?, labels, expires_us, state, gateway });
    }
    Ok(Claims { claims })
}

/// Turns a claim into a gateway and its credential; the same nonce is given the same answer again.
pub(crate) fn enroll(connection: &Connection, request: &Request, now_us: u64) -> Result<Reply, Fault> {
    for (what, text) in [("name", &request.name), ("agent version", &request.agent_version)] {
        if text.len() > MAX_NAME_BYTES {
            let message =
                format!("the gateway's {what} has {} bytes; at most {MAX_NAME_BYTES} are allowed", text.len());
            return Err(Fault::bad("bad_name", message));
        }
    }
    let found = connection
        .prepare_cached(
            "SELECT c.key, c.salt, c.labels, c.expires_us, c.nonce_hash, g.id FROM claims c \
             LEFT JOIN gateways g ON g.key = c.gateway WHERE c.hash = ?1",
        )?
        .query_row([secret::hash(request.claim.as_bytes())], |row| {
            let used: Option<(Hash, String)> = row.get::<_, Option<_>>(4)?.zip(row.get(5)?);
            Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, String>(2)?, row.get::<_, i64>(3)?, used))
        })
        .optional()?;
    let refused = |code, message: &str| Fault::refused(StatusCode::FORBIDDEN, code, message);
    let Some((key, salt, labels, expires_us, used)) = found else {
        let message = "this claim is not known here; ask the operator for a new one (edgectl claim new)";
        return Err(refused("claim_unknown", message));
    };
    let credential = secret::credential(&salt, &request.claim, &request.nonce);
    let nonce_hash = secret::hash(&request.nonce);
    if let Some((used_by, gateway)) = used {
        if secret::same(&used_by, &nonce_hash) {
            return Ok(Reply { gateway, credential });
        }
        let message = "this claim was used by another enrolment; ask the operator for a new one (edgectl claim new)";
        return Err(refused("claim_used", message));
    }
    if unsigned(expires_us)? <= now_us {
        let message = "this claim has expired; ask the operator for a new one (edgectl claim new)";
        return Err(refused("claim_expired", message));
    }

    let id = format!("gw-{}", hex::encode(secret::random::<8>()?));
    // Generation 1: the gateway asks with 0, and is told what should run even if that is nothing.
    connection
        .prepare_cached(
            "INSERT INTO gateways (id, name, credential_hash, agent_version, enrolled_us, generation) \
             VALUES (?1, ?2, ?3, ?4, ?5, 1)",
        )?
        .execute(params![
            id,
            request.name,
            secret::hash(credential.as_bytes()),
            request.agent_version,
            signed(now_us)
        ])?;
    let gateway = connection.last_insert_rowid();
    let labels: Labels = from_json("labels of a claim", &labels)?;
    for (label, value) in &labels {
        connection
            .prepare_cached("INSERT INTO labels (gateway, key, value) VALUES (?1, ?2, ?3)")?
            .execute(params![gateway, label, value])?;
    }
    connection
        .prepare_cached("UPDATE claims SET gateway = ?2, nonce_hash = ?3 WHERE key = ?1")?
        .execute(params![key, gateway, nonce_hash])?;
    Ok(Reply { gateway: id, credential })
}
