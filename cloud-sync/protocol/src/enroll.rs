//! A gateway becomes known: a claim token, made by an operator and good for one use, is turned into a credential.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Asks to be enrolled.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The claim token, as the operator was given it.
    pub claim: String,
    /// What the gateway calls itself, for people; not an identity.
    pub name: String,
    /// Version of the agent.
    pub agent_version: String,
    /// A random number that the gateway keeps until it holds a credential: an answer that was lost on the way is
    /// given again to the same nonce, so that a claim is never used up for nothing.
    pub nonce: [u8; 16],
}

/// The gateway's identity from now on.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Who the gateway is.
    pub gateway: String,
    /// What it proves it with. A secret: kept in a file that only the agent reads.
    pub credential: String,
}

// Neither a claim nor a credential may reach a log by way of `{:?}`.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("enroll::Request").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("enroll::Reply").field("gateway", &self.gateway).finish_non_exhaustive()
    }
}
