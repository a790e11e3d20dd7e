//! What leads to events beside MQTT messages: one module for each sort.
//!
//! Each looks up in the plan which functions want what it has, and gives them events; what is to lead to one event and no
//! more is used up with the outcome ([`Origin`](crate::pipeline::Origin)). Another sort is a kind of event in the contract
//! (`function-sdk/abi`), an entry of the manifest (`function_package::Trigger`), and a module here.

pub mod blobs;
pub mod http;
pub mod queue;
pub mod schedule;
pub mod watch;
