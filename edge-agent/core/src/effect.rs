//! What a function wants done.

use alloc::string::String;
use alloc::vec::Vec;

pub use function_abi::{LogLevel, Priority, PublishFlags};
use serde::{Deserialize, Serialize};

use crate::form;

pub use crate::request::Request;

/// One thing a function wants done. Nothing of it happens before the commit, and then all of a run's effects together.
///
/// Serialised in recordings of runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Store a value in the function's state, within the run's partition.
    StatePut {
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
        /// For how many seconds from the event's time it is there, at least 1; `None`: until it is removed.
        ttl_s: Option<u32>,
    },
    /// Remove a value from the function's state, within the run's partition.
    StateDelete {
        /// The key.
        key: Vec<u8>,
    },
    /// Deliver a record to the control plane.
    Emit {
        /// The cloud stream it belongs to.
        stream: String,
        /// Any bytes.
        body: Vec<u8>,
        /// Which records go first.
        #[serde(with = "form::priority")]
        priority: Priority,
    },
    /// Publish an MQTT message.
    Publish {
        /// Where to; no wildcards.
        topic: String,
        /// Any bytes.
        payload: Vec<u8>,
        /// Quality of service and retain.
        #[serde(with = "form::flags")]
        flags: PublishFlags,
    },
    /// Put a message into a queue, for the function that reads it.
    Enqueue {
        /// The queue.
        queue: String,
        /// Any bytes.
        body: Vec<u8>,
        /// How long it waits at least, in milliseconds.
        delay_ms: u32,
    },
    /// Store a blob under a name.
    BlobPut {
        /// Bucket and name.
        name: String,
        /// The media type.
        content_type: String,
        /// Any bytes.
        body: Vec<u8>,
    },
    /// Remove a blob.
    BlobDelete {
        /// Bucket and name.
        name: String,
    },
    /// Answer the HTTP request that the event is. The last one counts.
    Respond(Response),
    /// Say what a property of the event's device is now; the control plane keeps the latest value.
    TwinReport {
        /// The property.
        name: String,
        /// Any bytes.
        value: Vec<u8>,
    },
    /// Add to a counter of the function.
    Count {
        /// The counter.
        name: String,
        /// How much; not negative.
        value: Number,
    },
    /// Add a value to a distribution of the function.
    Observe {
        /// The distribution.
        name: String,
        /// The value.
        value: Number,
    },
    /// Send an HTTP request; its answer comes as an event.
    Request(Request),
}

/// A finite number, so that equal effects are equal.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Number(f64);

impl TryFrom<f64> for Number {
    type Error = &'static str;

    fn try_from(value: f64) -> Result<Self, Self::Error> {
        Self::new(value).ok_or("it is not finite")
    }
}

impl From<Number> for f64 {
    fn from(number: Number) -> Self {
        number.0
    }
}

// All that is not equal to itself is kept out.
impl Eq for Number {}

impl Number {
    /// The number; `None` if it is infinite or none.
    pub fn new(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self(value))
    }

    /// As it came.
    pub const fn get(self) -> f64 {
        self.0
    }
}

/// The answer to an HTTP request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The status code, 200 to 599.
    pub status: u16,
    /// Header fields, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// Any bytes.
    pub body: Vec<u8>,
}

/// The effects of one run, in the order the function listed them.
pub type Effects = Vec<Effect>;
