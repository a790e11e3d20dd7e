//! Sequences without a record.

use serde::{Deserialize, Serialize};
pub use sync_protocol::records::{Reason, Tally};

use super::Class;

/// Which of a gateway's gaps, in the query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GapQuery {
    /// Most gaps of a page; 1 to 1,000, 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where to go on: `next` of an earlier page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of a gateway's gaps: sequences that are settled here without a record. They are in the order of epoch (as a
/// number with a sign), class and sequence. What is still to come is no gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gaps {
    /// The gaps.
    pub gaps: Vec<Gap>,
    /// The cursor of the next page; `null` when the end was reached.
    pub next: Option<String>,
}

/// Consecutive sequences without a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Store epoch.
    pub epoch: String,
    /// Class.
    pub class: Class,
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// Whether the gateway said what became of them.
    pub kind: GapKind,
    /// When it said so as it is now, if it did.
    pub told_us: Option<u64>,
    /// What they were, if it is gone. Where records were stored in between, what the gateway told together is several
    /// gaps: the first has the tally of all of them, the others have none.
    pub tally: Vec<Tally>,
}

/// Why there is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapKind {
    /// The gateway does not have it any more and gave no reason.
    Missing,
    /// The gateway said that it is gone, and why.
    Gone,
}
