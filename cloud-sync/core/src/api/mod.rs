//! The JSON of the operator's interface, `/api/v1`.
//!
//! Times are in microseconds since 1970-01-01 UTC. Numbers that may take all 64 bits (store and boot epochs, and the
//! identity of an event) are text, since many readers of JSON keep 53 bits only. Fields may be added; a reader passes
//! over what it does not know.

mod claims;
mod dead;
mod functions;
mod gaps;
mod gateways;
mod records;
mod twins;
mod usage;

use serde::{Deserialize, Serialize};

pub use self::claims::{Claim, ClaimInfo, ClaimState, Claims, NewClaim};
pub use self::dead::{
    Action, All, DeadCommand, DeadCommanded, DeadLetter, DeadLetterDetail, DeadLetters, DeadQuery, Letter, LetterEvent,
    LetterIdentity, Letters, Payload, Resolved,
};
pub use self::functions::{
    Deployment, Deployments, Function, Functions, Kind, NewDeployment, NewPublisher, Publisher, Publishers, PushQuery,
    UndeployQuery,
};
pub use self::gaps::{Gap, GapKind, GapQuery, Gaps, Reason, Tally};
pub use self::gateways::{
    Desired, FunctionState, Gateway, GatewayDetail, Gateways, LabelChange, RecordCounts, Reported, Stats, Status,
    StreamCounts, StreamReport,
};
pub use self::records::{Body, Class, Identity, MAX_JSON_DEPTH, Page, Record, RecordQuery, Stream, Streams};
pub use self::twins::{TwinProperty, TwinQuery, Twins};
pub use self::usage::{MetricPage, MetricQuery, MetricRow, MetricValue, Observed, UsagePage, UsageQuery, UsageRow};
pub use crate::health::Health;

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
