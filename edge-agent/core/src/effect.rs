//! What a function wants done.

use alloc::string::String;
use alloc::vec::Vec;

pub use function_abi::{LogLevel, Priority, PublishFlags};

pub use crate::request::Request;

/// One thing a function wants done. Nothing of it happens before the commit, and then all of a run's effects together.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        priority: Priority,
    },
    /// Publish an MQTT message.
    Publish {
        /// Where to; no wildcards.
        topic: String,
        /// Any bytes.
        payload: Vec<u8>,
        /// Quality of service and retain.
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
    /// Answer the HTTP request that the event is. The last one counts.
    Respond(Response),
    /// Say what a property of the event's device is now; the control plane keeps the latest value.
    TwinReport {
        /// The property.
        name: String,
        /// Any bytes.
        value: Vec<u8>,
    },
    /// Send an HTTP request; its answer comes as an event.
    Request(Request),
}

/// The answer to an HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
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
