//! Gateways, what they report, and the fleet in numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
pub use sync_protocol::fleet::StreamReport;

use super::{Reason, Tally};
use crate::health::Health;
use crate::labels::Labels;

/// Gateways, in the order in which they enrolled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateways {
    /// The gateways.
    pub gateways: Vec<Gateway>,
}

/// A gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// Its identity.
    pub id: String,
    /// What it calls itself.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Whether it is there.
    pub health: Health,
    /// When it enrolled.
    pub enrolled_us: u64,
    /// When it was last heard of.
    pub last_seen_us: Option<u64>,
    /// Version of its agent, as last reported.
    pub agent_version: String,
    /// The generation of what should run on it.
    pub generation: u64,
    /// What should run on it.
    pub desired: Vec<Desired>,
    /// What it reported last.
    pub reported: Option<Reported>,
    /// Its records.
    pub records: RecordCounts,
    /// What it said is gone, by stream and reason; the hundred largest counts, the largest first.
    pub gone: Vec<Tally>,
}

/// A function that should run on a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Name of the function.
    pub function: String,
    /// Its version.
    pub version: String,
    /// Digest of its package.
    pub digest: String,
    /// Number of the deployment that says so.
    pub deployment: u64,
}

/// What a gateway reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// The generation that this is the result of; 0: none was received.
    pub generation: u64,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// Records that wait on the gateway to be delivered.
    pub waiting: u64,
    /// What waits of each stream: those with most bytes first, at most a hundred.
    pub streams: Vec<StreamReport>,
    /// Events handled since the agent started.
    pub handled: u64,
    /// Events in the dead letters.
    pub dead_letters: u64,
    /// Its functions.
    pub functions: Vec<FunctionState>,
}

/// A function as it runs on a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionState {
    /// Its name.
    pub name: String,
    /// The version that runs; empty if none does.
    pub version: String,
    /// Digest of the package that runs, if one does.
    pub digest: Option<String>,
    /// The deployment that this is the result of; 0: the gateway's own configuration.
    pub deployment: u64,
    /// How it is.
    pub status: Status,
    /// The cause, for a person.
    pub detail: String,
}

/// How a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It runs, and its first events are being watched.
    Trial,
    /// It runs.
    Running,
    /// The desired version was not taken; the previous one runs.
    RolledBack,
    /// The desired version was not taken, and there is no other.
    Failed,
}

impl From<sync_protocol::fleet::FunctionStatus> for Status {
    fn from(status: sync_protocol::fleet::FunctionStatus) -> Self {
        use sync_protocol::fleet::FunctionStatus;
        match status {
            FunctionStatus::Trial => Self::Trial,
            FunctionStatus::Running => Self::Running,
            FunctionStatus::RolledBack => Self::RolledBack,
            FunctionStatus::Failed => Self::Failed,
        }
    }
}

/// What became of a gateway's records, or of all gateways'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordCounts {
    /// Stored.
    pub stored: u64,
    /// Came again, or after they were told as gone, and were refused.
    pub duplicates: u64,
    /// Lost: the gateway said that it does not have them any more and gave no reason, or that its disk lost them.
    pub missing: u64,
    /// Given up by the gateway, as its policies say: told as gone, with a stream and a reason.
    pub dropped: u64,
    /// Came under a key that is stored with another content, or told as gone in part what is known as gone together, and
    /// were refused. Anything but 0 is an alarm.
    pub conflicts: u64,
}

/// One gateway in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayDetail {
    /// What the list says of it; its fields stand beside those below.
    #[serde(flatten)]
    pub gateway: Gateway,
    /// What became of each stream's records, by name: the hundred streams with most records, and those of which the
    /// gateway reports that something waits.
    pub streams: Vec<StreamCounts>,
}

/// What became of the records of a stream that a gateway ever had: each is delivered, waits, was dropped or is missing.
/// What waits is what the gateway reported last, so while records are on their way the sum may be off by as many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamCounts {
    /// Its name; empty for records of which nobody knows any more which stream they were of.
    pub name: String,
    /// Delivered: stored here.
    pub delivered: u64,
    /// Waiting on the gateway to be delivered.
    pub waiting: u64,
    /// How many bytes of the gateway's disk those take.
    pub waiting_bytes: u64,
    /// Dropped by the gateway, as its policies say, by reason.
    pub dropped: BTreeMap<Reason, u64>,
    /// Lost: the gateway said that its disk lost them, or that it does not have them any more and gave no reason.
    pub missing: u64,
}

impl StreamCounts {
    /// Dropped for whatever reason.
    pub fn dropped_in_all(&self) -> u64 {
        self.dropped.values().fold(0, |sum: u64, count| sum.saturating_add(*count))
    }

    /// All records that there ever were, as far as it is known here.
    pub fn all(&self) -> u64 {
        let parts = [self.delivered, self.waiting, self.dropped_in_all(), self.missing];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

/// Changes some labels: a value sets, `null` removes, what is not named stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelChange {
    /// By key.
    pub labels: BTreeMap<String, Option<String>>,
}

/// The whole fleet in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Gateways enrolled.
    pub gateways: u64,
    /// Of these, online.
    pub online: u64,
    /// Functions pushed, each version counted.
    pub functions: u64,
    /// Records of all gateways.
    pub records: RecordCounts,
}
