//! The control plane's decisions: pure, no I/O, no clock.
//!
//! [`ingest`] says what becomes of a range of records, [`targeting`] what should run on a gateway, [`health`] whether
//! a gateway is there. [`api`] holds the JSON of the operator's interface, which the server writes and `edgectl` reads.

pub mod api;
pub mod health;
pub mod ingest;
pub mod labels;
pub mod spans;
pub mod targeting;
