//! The JSON of the operator's interface, `/api/v1`.
//!
//! Times are in microseconds since 1970-01-01 UTC. Numbers that may take all 64 bits (store and boot epochs, and the
//! identity of an event) are text, since many readers of JSON keep 53 bits only. Fields may be added; a reader passes
//! over what it does not know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use crate::health::Health;
use crate::labels::Labels;

/// Path under which everything here lies.
pub const PREFIX: &str = "/api/v1";

/// The body of every answer with a status of 400 or above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Error {
    /// A stable name in snake_case, for programs.
    pub code: String,
    /// What failed, on what, why, and what to do, for a person.
    pub message: String,
}

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
    /// Ranges of sequences that are missing; the first hundred of them.
    pub missing_ranges: Vec<MissingRange>,
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
    /// Came again, and were refused.
    pub duplicates: u64,
    /// The gateway said that they no longer exist, and they never came.
    pub missing: u64,
    /// Came under a key that is stored with another content, and were refused. Anything but 0 is an alarm.
    pub conflicts: u64,
}

/// A range of a gateway's sequences that is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingRange {
    /// Store epoch.
    pub epoch: String,
    /// Class.
    pub class: Class,
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// Class of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// In the order they were committed.
    Normal,
    /// Before every normal record.
    High,
}

/// Changes some labels: a value sets, `null` removes, what is not named stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelChange {
    /// By key.
    pub labels: BTreeMap<String, Option<String>>,
}

/// Registers a publisher, whose signatures are then checked when functions are pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPublisher {
    /// The public key in its text form.
    pub public_key: String,
}

/// A publisher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publisher {
    /// Name of the key.
    pub key_id: String,
    /// The key in its text form.
    pub public_key: String,
}

/// Publishers, by key id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publishers {
    /// The publishers.
    pub publishers: Vec<Publisher>,
}

/// What goes with a package when it is pushed, in the query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushQuery {
    /// The signature over its digest, in the text form that names the key too.
    pub signature: String,
}

/// A function that was pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Digest of its package.
    pub digest: String,
    /// Size of its package in bytes.
    pub size: u64,
    /// Which key signed it.
    pub key_id: String,
    /// Whether the server knew that key and found the signature right. Gateways check for themselves in any case.
    pub verified: bool,
    /// When it was pushed first.
    pub pushed_us: u64,
}

/// Functions, by name and the order they were pushed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Functions {
    /// The functions.
    pub functions: Vec<Function>,
}

/// Deploys a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDeployment {
    /// `NAME` for its highest version, `NAME@VERSION`, or `sha256:…`.
    pub function: String,
    /// `gateway:ID`, `label:KEY=VALUE` or `all`.
    pub target: String,
    /// Configuration that differs from the manifest's defaults.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
}

/// Names what to undeploy, in the query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndeployQuery {
    /// Name of the function.
    pub function: String,
    /// Where from; as in [`NewDeployment`].
    pub target: String,
}

/// A deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its number: a higher one is newer, and wins.
    pub number: u64,
    /// Whether it sets or removes.
    pub kind: Kind,
    /// Name of the function.
    pub function: String,
    /// Its version, if it sets.
    pub version: Option<String>,
    /// Digest of its package, if it sets.
    pub digest: Option<String>,
    /// What it is aimed at.
    pub target: String,
    /// Configuration that differs from the manifest's defaults.
    pub config: BTreeMap<String, String>,
    /// When it was made.
    pub created_us: u64,
}

/// What a deployment does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The function should run.
    Set,
    /// It should not.
    Remove,
}

/// The newest deployment for each function and target, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployments {
    /// The deployments.
    pub deployments: Vec<Deployment>,
}

/// Which records, in the query. All that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordQuery {
    /// Name of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Who sent the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Id of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Name of the function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Wall clock of the gateway, from this microsecond on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Wall clock of the gateway, before this microsecond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Most records of a page; 1 to 1,000, 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where to go on: `next` or `resume` of an earlier page of the same query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of records, in the order in which they were stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page {
    /// The records. A page may be shorter than its limit, even empty, and not be the last one.
    pub records: Vec<Record>,
    /// The cursor of the next page; `null` when the end was reached.
    pub next: Option<String>,
    /// The cursor after what this page looked at, also at the end: for who wants to see what comes later.
    pub resume: String,
}

/// A record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The gateway that delivered it.
    pub gateway: String,
    /// Its store epoch.
    pub epoch: String,
    /// Class.
    pub class: Class,
    /// Sequence within epoch and class.
    pub sequence: u64,
    /// Stream.
    pub stream: String,
    /// Function that emitted it.
    pub function: String,
    /// Who sent the event that it came from.
    pub device: String,
    /// The event's topic.
    pub topic: String,
    /// The event's identity, if it had one.
    pub identity: Option<Identity>,
    /// The gateway's wall clock when the function ran.
    pub wall_us: u64,
    /// Microseconds since the gateway's system started.
    pub monotonic_us: u64,
    /// Which start of the gateway's system that was.
    pub boot: String,
    /// When it was stored here.
    pub received_us: u64,
    /// Whether it still has the checksum that it came with.
    pub intact: bool,
    /// What the function emitted.
    pub body: Body,
}

/// Identity of an event: its device's boot epoch, and the sequence within it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The device's boot epoch.
    pub boot_epoch: String,
    /// Sequence.
    pub sequence: String,
}

/// Deepest nesting of a body that is given as JSON: well below the limits of common parsers (serde_json: 128).
pub const MAX_JSON_DEPTH: usize = 64;

/// The body of a record: `{"json": …}`, byte for byte as it was emitted, or `{"hex": "…"}` if it is not JSON (or is
/// nested deeper than [`MAX_JSON_DEPTH`]).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Valid JSON.
    Json(Box<RawValue>),
    /// Anything else.
    Hex(String),
}

impl Body {
    /// The body in these bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match serde_json::from_slice::<&RawValue>(bytes) {
            Ok(value) if depth(bytes) <= MAX_JSON_DEPTH => Self::Json(value.to_owned()),
            _ => Self::Hex(hex(bytes)),
        }
    }
}

/// How deep valid JSON is nested.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

/// Streams, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// The streams.
    pub streams: Vec<Stream>,
}

/// A stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Its name.
    pub name: String,
    /// Records in it.
    pub records: u64,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_only_if_it_is() {
        let shown = |bytes: &[u8]| serde_json::to_string(&Body::from_bytes(bytes)).unwrap();
        assert_eq!(shown(br#"{"b":1.50,"a":"x"}"#), r#"{"json":{"b":1.50,"a":"x"}}"#);
        assert_eq!(shown(b"12345678901234567890123"), r#"{"json":12345678901234567890123}"#);
        assert_eq!(shown(b"hi"), r#"{"hex":"6869"}"#);
        assert_eq!(shown(b""), r#"{"hex":""}"#);
        assert_eq!(shown(b"\"\xff\""), r#"{"hex":"22ff22"}"#);
        assert_eq!(shown(br#"["[[\"[["]"#), r#"{"json":["[[\"[["]}"#);
        let deep = |levels| [vec![b'['; levels], vec![b']'; levels]].concat();
        assert!(matches!(Body::from_bytes(&deep(MAX_JSON_DEPTH)), Body::Json(_)));
        assert!(matches!(Body::from_bytes(&deep(MAX_JSON_DEPTH + 1)), Body::Hex(_)));
    }

    #[test]
    fn a_body_survives_being_read_again() {
        let text = r#"{"json":{"b":1.50}}"#;
        let body: Body = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&body).unwrap(), text);
    }
}
