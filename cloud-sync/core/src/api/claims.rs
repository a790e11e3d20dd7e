//! Claims: how gateways come in.

use serde::{Deserialize, Serialize};

use crate::labels::Labels;

/// Asks for a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewClaim {
    /// Labels that the gateway will have from its first moment.
    #[serde(default)]
    pub labels: Labels,
    /// For how many seconds it can be used.
    pub expires_s: u64,
}

/// A claim that was just made. The token is shown this once; the server keeps only its hash.
#[derive(Clone, Serialize, Deserialize)]
pub struct Claim {
    /// The token.
    pub claim: String,
    /// The name under which it is listed.
    pub id: String,
    /// When it ends.
    pub expires_us: u64,
}

/// What can be known of a claim later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimInfo {
    /// A name for it that gives nothing away.
    pub id: String,
    /// Labels for the gateway.
    pub labels: Labels,
    /// When it ends.
    pub expires_us: u64,
    /// Whether it can still be used.
    pub state: ClaimState,
    /// The gateway that enrolled with it.
    pub gateway: Option<String>,
}

/// Whether a claim can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimState {
    /// It can.
    Open,
    /// A gateway did.
    Used,
    /// Nobody did in time.
    Expired,
}

/// Claims, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The claims.
    pub claims: Vec<ClaimInfo>,
}
