//! What the tables hold, by concern. Every function here runs within one transaction; times come from the caller.

pub(crate) mod dead;
pub(crate) mod deployments;
pub(crate) mod enroll;
pub(crate) mod functions;
pub(crate) mod gaps;
pub(crate) mod gateways;
pub(crate) mod ingest;
mod paging;
pub(crate) mod records;
mod sums;
pub(crate) mod twins;
pub(crate) mod usage;

use sync_protocol::records::{Gone, Tally};

use crate::fault::Fault;

/// A number that we stored and that cannot be negative: a count, a sequence, a time of ours.
fn unsigned(value: i64) -> Result<u64, Fault> {
    u64::try_from(value).map_err(|_| Fault::Damaged(format!("{value} stands where no negative number can")))
}

/// A number that is stored as one that cannot be negative. What would not fit is a count or a time that cannot be
/// reached, so it ends at the highest.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// JSON that we wrote into a column.
fn from_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| Fault::Damaged(format!("{what}: {error}")))
}

/// JSON for a column.
fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("maps with text keys and plain structs become JSON")
}

/// A digest in a column.
fn digest(bytes: [u8; 32]) -> function_package::Digest {
    function_package::Digest::from_bytes(bytes)
}

/// A tally from its column.
fn read_tally(bytes: &[u8]) -> Result<Vec<Tally>, Fault> {
    let gone: Gone =
        sync_protocol::decode(bytes).map_err(|error| Fault::Damaged(format!("a tally of what is gone: {error}")))?;
    Ok(gone.tally)
}
