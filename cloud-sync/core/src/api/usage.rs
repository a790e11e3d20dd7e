//! What functions used and measured.

use serde::{Deserialize, Serialize};

/// What is added up, in the query, and what of it is told apart. All that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageQuery {
    /// Id of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Name of the function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Who sent the events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Hours that begin at this microsecond of the gateways' wall clocks or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Hours that begin before this microsecond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// A row for each of these: some of `hour`, `day`, `gateway`, `function` and `device`, with commas; `function` if not
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Most rows of a page; 1 to 1,000, 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where to go on: `next` of an earlier page of the same query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of sums, in the order of what they are told apart by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UsagePage {
    /// The sums.
    pub usage: Vec<UsageRow>,
    /// The cursor of the next page; `null` when the end was reached.
    pub next: Option<String>,
}

/// What runs used. Of the first five those are there by which sums are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRow {
    /// When the hour or the day (UTC) begins, microseconds since 1970-01-01 UTC, by the gateway's wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_us: Option<u64>,
    /// The gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The device; empty for those that were one too many for the gateway to count apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Runs.
    pub invocations: u64,
    /// Of these: that failed or were ended.
    pub failed: u64,
    /// Units of fuel.
    pub fuel: u64,
    /// Time that gateways spent on them, in microseconds.
    pub busy_us: u64,
    /// The most memory that one run had, in bytes.
    pub memory_peak_bytes: u64,
    /// Bytes of payloads and attributes that they were given.
    pub bytes_in: u64,
    /// Bytes of the effects that took place.
    pub bytes_out: u64,
    /// The most bytes of state that one function had on one gateway.
    pub state_peak_bytes: u64,
}

/// Which metrics of functions are added up, in the query, and what of it is told apart beside function and name. All that is
/// given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricQuery {
    /// Id of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Name of the function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Name of the metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Hours that begin at this microsecond of the gateways' wall clocks or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Hours that begin before this microsecond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// A row for each of these: some of `hour`, `day` and `gateway`, with commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Most rows of a page; 1 to 1,000, 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where to go on: `next` of an earlier page of the same query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of metrics, by function and name, and then by what they are told apart by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricPage {
    /// The metrics.
    pub metrics: Vec<MetricRow>,
    /// The cursor of the next page; `null` when the end was reached.
    pub next: Option<String>,
}

/// A metric of a function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricRow {
    /// The function.
    pub function: String,
    /// The metric.
    pub name: String,
    /// When the hour or the day (UTC) begins, if these are told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_us: Option<u64>,
    /// The gateway, if these are told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// What it comes to.
    #[serde(flatten)]
    pub value: MetricValue,
}

/// What a metric comes to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricValue {
    /// The sum of what was counted.
    Counter(f64),
    /// What was observed.
    Observed(Observed),
}

/// Values that were observed. Percentiles are within 4.5 % of the value that has the rank
/// ([`sync_protocol::usage::MAX_RELATIVE_ERROR`]), the rest is exact but for the rounding of the sum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The median.
    pub p50: f64,
    /// Nine of ten are not above this one.
    pub p90: f64,
    /// 99 of 100 are not above this one.
    pub p99: f64,
}
