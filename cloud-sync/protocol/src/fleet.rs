//! What should run on a gateway, and what does.
//!
//! The gateway asks with the generation that it has and what it has to report; the control plane answers at once if
//! there is news, otherwise when there is or the wait is over. So a deployment arrives in the time of one round trip,
//! through a link that the gateway opened.

use serde::{Deserialize, Serialize};

/// The longest that a request may ask to wait, in seconds: below the idle limits of common proxies.
pub const MAX_WAIT_S: u16 = 50;

/// Reports, and asks for what is new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The generation of the desired state that the gateway holds; 0: none.
    pub generation: u64,
    /// How long the answer may wait for news, in seconds; at most [`MAX_WAIT_S`].
    pub wait_s: u16,
    /// The number of the last [command](crate::dead::Command) that was carried out; 0: none was.
    pub commands_done: u64,
    /// What runs, if that changed since the last report that was answered, or if it is the first one.
    pub report: Option<Report>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing new.
    Unchanged,
    /// What should run from now on.
    Desired(Desired),
    /// What is to be done, in this order; what should run is as the gateway has it. At most
    /// [`MAX_COMMANDS`](crate::dead::MAX_COMMANDS).
    Commands(Vec<crate::dead::Command>),
}

/// What should run on a gateway: all of it, not a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Changes whenever anything below does. It grows, in steps of any size, but only "the same" means something.
    pub generation: u64,
    /// The functions, no name twice. One that runs and is not named here is to be stopped.
    pub functions: Vec<DesiredFunction>,
}

/// One function that should run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredFunction {
    /// Its name, as in its manifest.
    pub name: String,
    /// Its version, as in its manifest; for people.
    pub version: String,
    /// SHA-256 of its file.
    pub digest: [u8; 32],
    /// Which publisher's key signed the digest.
    pub key_id: String,
    /// The Ed25519 signature (RFC 8032), 64 bytes.
    pub signature: Vec<u8>,
    /// Configuration that differs from the manifest's defaults: (key, value).
    pub config: Vec<(String, String)>,
    /// Which deployment this is: a new number whenever an operator deploys, also the same function again, so that
    /// what was rolled back is tried again exactly when somebody asks for it.
    pub deployment: u64,
}

/// What runs on a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the agent.
    pub agent_version: String,
    /// The generation that this is the result of; 0: none was received.
    pub generation: u64,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// The store that the gateway writes.
    pub epoch: crate::records::StoreEpoch,
    /// Records that wait to be delivered.
    pub waiting: u64,
    /// What waits of each stream: those with most bytes first, at most [`MAX_STREAM_REPORTS`].
    pub streams: Vec<StreamReport>,
    /// Events handled since the agent started.
    pub handled: u64,
    /// Events in the dead letters.
    pub dead_letters: u64,
    /// The functions.
    pub functions: Vec<FunctionReport>,
}

/// Most streams that a report names.
pub const MAX_STREAM_REPORTS: usize = 100;

/// What waits of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReport {
    /// Its name.
    pub name: String,
    /// Records that wait to be delivered.
    pub waiting: u64,
    /// How many bytes of the gateway's disk they take, without what SQLite adds.
    pub bytes: u64,
}

/// One function on a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionReport {
    /// Its name.
    pub name: String,
    /// Version that runs; empty if none does.
    pub version: String,
    /// SHA-256 of the file that runs; zeroes if none does.
    pub digest: [u8; 32],
    /// The deployment that this is the result of; 0: it came from the gateway's own configuration.
    pub deployment: u64,
    /// How it is.
    pub status: FunctionStatus,
    /// The cause, for a person, where there is one: names the function, what failed, and what to do.
    pub detail: String,
}

/// How a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FunctionStatus {
    /// It runs, and its first events are still being watched.
    Trial,
    /// It runs.
    Running,
    /// The desired version was not taken or failed its trial; the previous one runs.
    RolledBack,
    /// The desired version was not taken, and there is no other one.
    Failed,
}
