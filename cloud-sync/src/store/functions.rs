//! Publishers, and the functions that they signed.

use axum::http::StatusCode;
use function_package::{Digest, Package, PublicKey, Signature};
use rusqlite::{Connection, OptionalExtension, Row, params};
use sync_core::api::{Function, Functions, Publisher, Publishers};

use super::{digest, signed, unsigned};
use crate::fault::Fault;

/// Registers a publisher; the same one again is fine.
pub(crate) fn add_publisher(connection: &Connection, key: PublicKey) -> Result<Publisher, Fault> {
    let publisher = Publisher { key_id: key.key_id().to_string(), public_key: key.to_string() };
    let insert = "INSERT INTO publishers (key_id, public_key) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    connection.prepare_cached(insert)?.execute([&publisher.key_id, &publisher.public_key])?;
    Ok(publisher)
}

/// All publishers.
pub(crate) fn publishers(connection: &Connection) -> Result<Publishers, Fault> {
    let mut statement = connection.prepare_cached("SELECT key_id, public_key FROM publishers ORDER BY key_id")?;
    let rows = statement.query_map([], |row| Ok(Publisher { key_id: row.get(0)?, public_key: row.get(1)? }))?;
    Ok(Publishers { publishers: rows.collect::<Result<_, _>>()? })
}

fn publisher(connection: &Connection, signature: &Signature) -> Result<Option<PublicKey>, Fault> {
    let mut find = connection.prepare_cached("SELECT public_key FROM publishers WHERE key_id = ?1")?;
    let text: Option<String> = find.query_row([signature.key_id.to_string()], |row| row.get(0)).optional()?;
    let damaged = |error| Fault::Damaged(format!("public key of a publisher: {error}"));
    text.map(|text| text.parse().map_err(damaged)).transpose()
}

/// Stores a package. The same again is fine; another package or another signer under the same name and version is not.
pub(crate) fn push(
    connection: &Connection,
    package: &Package,
    signature: &Signature,
    now_us: u64,
) -> Result<Function, Fault> {
    let manifest = package.manifest();
    let (name, version) = (&manifest.name, manifest.version.to_string());
    let key = publisher(connection, signature)?;
    if let Some(key) = key {
        let refused = |error| {
            let message = format!("the function {name} {version} was not stored: {error}");
            Fault::refused(StatusCode::UNPROCESSABLE_ENTITY, "bad_signature", message)
        };
        key.verify(&package.digest(), signature).map_err(refused)?;
    }
    let stored = connection
        .prepare_cached("SELECT digest, signature FROM functions WHERE name = ?1 AND version = ?2")?
        .query_row([name, &version], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))
        .optional()?;
    match stored {
        Some((bytes, _)) if digest(bytes) != package.digest() => {
            let message = format!(
                "the function {name} {version} is stored already, with another content ({}): a version is never \
                 changed; give the new one a higher version in its manifest",
                digest(bytes)
            );
            return Err(Fault::refused(StatusCode::CONFLICT, "version_exists", message));
        }
        Some((_, by)) if by != signature.to_string() => {
            let message = format!(
                "the function {name} {version} is stored already, with a signature by another key or another \
                 signature ({by}); give it a higher version to sign it anew"
            );
            return Err(Fault::refused(StatusCode::CONFLICT, "signed_otherwise", message));
        }
        // The publisher may have been registered since.
        Some(_) => {
            connection
                .prepare_cached("UPDATE functions SET verified = ?2 WHERE digest = ?1")?
                .execute(params![package.digest().as_bytes(), key.is_some()])?;
        }
        None => {
            connection
                .prepare_cached(
                    "INSERT INTO functions (digest, name, version, size, signature, verified, pushed_us) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    package.digest().as_bytes(),
                    name,
                    version,
                    signed(package.bytes().len() as u64),
                    signature.to_string(),
                    key.is_some(),
                    signed(now_us),
                ])?;
            connection
                .prepare_cached("INSERT INTO packages (function, bytes) VALUES (?1, ?2)")?
                .execute(params![connection.last_insert_rowid(), &**package.bytes()])?;
        }
    }
    let mut find = connection.prepare_cached(&format!("{SELECT} WHERE digest = ?1"))?;
    find.query_row([package.digest().as_bytes()], |row| Ok(function(row)))?
}

const SELECT: &str = "SELECT name, version, digest, size, signature, verified, pushed_us FROM functions";

fn function(row: &Row<'_>) -> Result<Function, Fault> {
    let signature: Signature = row
        .get::<_, String>(4)?
        .parse()
        .map_err(|error| Fault::Damaged(format!("signature of a function: {error}")))?;
    Ok(Function {
        name: row.get(0)?,
        version: row.get(1)?,
        digest: digest(row.get(2)?).to_string(),
        size: unsigned(row.get(3)?)?,
        key_id: signature.key_id.to_string(),
        verified: row.get(5)?,
        pushed_us: unsigned(row.get(6)?)?,
    })
}

/// All functions.
pub(crate) fn functions(connection: &Connection) -> Result<Functions, Fault> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} ORDER BY name, key"))?;
    let mut rows = statement.query([])?;
    let mut functions = Vec::new();
    while let Some(row) = rows.next()? {
        functions.push(function(row)?);
    }
    Ok(Functions { functions })
}

/// The bytes of a package.
pub(crate) fn package(connection: &Connection, wanted: Digest) -> Result<Option<Vec<u8>>, Fault> {
    let find = "SELECT p.bytes FROM packages p JOIN functions f ON f.key = p.function WHERE f.digest = ?1";
    Ok(connection.prepare_cached(find)?.query_row([wanted.as_bytes()], |row| row.get(0)).optional()?)
}

/// Which function is meant by `NAME` (its highest version), `NAME@VERSION` or `sha256:…`.
pub(crate) fn resolve(connection: &Connection, text: &str) -> Result<Digest, Fault> {
    let unknown = |why: String| Fault::not_found("unknown_function", why);
    if text.starts_with("sha256:") {
        let digest: Digest = text.parse().map_err(|error| Fault::bad("bad_function", format!("{text:?} {error}")))?;
        let mut find = connection.prepare_cached("SELECT count(*) FROM functions WHERE digest = ?1")?;
        let known: bool = find.query_row([digest.as_bytes()], |row| row.get(0))?;
        let message = || unknown(format!("no function with the digest {digest} was pushed; push it first"));
        return known.then_some(digest).ok_or_else(message);
    }
    let (name, version) = text.split_once('@').map_or((text, None), |(name, version)| (name, Some(version)));
    let mut statement = connection.prepare_cached("SELECT version, digest FROM functions WHERE name = ?1")?;
    let mut rows = statement.query([name])?;
    let (mut highest, mut known) = (None, Vec::new());
    while let Some(row) = rows.next()? {
        let (found, bytes): (String, _) = (row.get(0)?, row.get(1)?);
        let parsed = function_package_version(&found)?;
        if version.is_none_or(|version| version == found) && highest.as_ref().is_none_or(|(top, _)| *top < parsed) {
            highest = Some((parsed, digest(bytes)));
        }
        known.push(found);
    }
    match highest {
        Some((_, digest)) => Ok(digest),
        None if known.is_empty() => Err(unknown(format!("no function {name:?} was pushed; push it first"))),
        None => Err(unknown(format!(
            "the function {name:?} was not pushed in that version; there are: {}",
            known.join(", ")
        ))),
    }
}

fn function_package_version(text: &str) -> Result<semver::Version, Fault> {
    text.parse().map_err(|error| Fault::Damaged(format!("version of a function: {error}")))
}
