//! The agent's decisions: pure, no I/O, no clock.
//!
//! Routing, deduplication, scheduling, deployment and backoff take what they need (also the time) as arguments and
//! return what to do; the drivers in `edge-agent` do it. The crate builds for a target without an operating system, so
//! that the compiler keeps it that way.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod address;
pub mod backoff;
pub mod dedup;
pub mod deploy;
pub mod effect;
pub mod event;
mod form;
pub mod lanes;
pub mod pace;
pub mod request;
pub mod retention;
pub mod router;
pub mod schedule;
pub mod state;
pub mod topic;
mod turns;
pub mod uplink;

pub use backoff::Backoff;
pub use effect::{Effect, Effects};
pub use event::{Event, Identity};
pub use lanes::FunctionId;
pub use state::StateValue;
pub use topic::{Filter, FilterError, Topic, TopicError};
