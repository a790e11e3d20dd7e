//! What devices are, as the functions of a gateway report it.
//!
//! A report is a record of the stream [`STREAM`] with the event's device as its origin and a [`Report`] in JSON as its body. Of
//! each device's property the one with the highest (store epoch, sequence) is the latest, so its order never comes from a
//! clock.

use serde::{Deserialize, Serialize};

use crate::dead::Payload;

/// The stream; all its records have normal priority, so their sequences have one order. No function can name it: names that
/// begin with `@` are the gateway's own.
pub const STREAM: &str = "@twin";

/// A property of a device has this value now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The property.
    pub property: String,
    /// The value.
    pub value: Payload,
}
