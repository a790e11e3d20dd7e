//! Twins: what devices are, as functions on their gateway report it.

use serde::{Deserialize, Serialize};
use sync_protocol::dead::Payload;

/// Which properties of a gateway's devices, in the query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TwinQuery {
    /// Only those of this device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Most properties of a page; 1 to 1,000, 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where to go on: `next` of an earlier page of the same query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of what a gateway's devices are, in the order of the devices' and the properties' names (byte by byte).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twins {
    /// The properties.
    pub properties: Vec<TwinProperty>,
    /// The cursor of the next page; `null` when the end was reached.
    pub next: Option<String>,
}

/// The latest report of a property of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TwinProperty {
    /// The device.
    pub device: String,
    /// The property.
    pub property: String,
    /// Its value: `{"text": …}`, or `{"hex": …}` where it is no text.
    pub value: Payload,
    /// The function that reported it.
    pub function: String,
    /// The store epoch of the report.
    pub epoch: String,
    /// Its sequence. Of two reports of a property that with the higher epoch, and in it the higher sequence, is the later one.
    pub sequence: u64,
    /// The gateway's wall clock when it was reported.
    pub wall_us: u64,
    /// When it came here.
    pub received_us: u64,
}
