//! Tests that try to break the promise: what a device was told is acknowledged takes effect exactly once, whatever is
//! killed, and whenever.
//!
//! [`draw`] makes a plan of kills from a seed, [`crash`] runs it against the real programs under load; [`power_cut`] takes
//! the disk away from under the gateway. Edges are found from outside, by proxies that understand the protocols and by
//! strace: the product has no doors for tests. A seed gives the same plan on every machine; which event a kill meets
//! depends on how the machine schedules.

mod cuts;
mod disk;
mod edges;
mod http;
mod kills;
mod mqtt;
mod plan;
mod strace;
mod trigger;

pub use cuts::power_cut;
pub use disk::cannot_cut_power;
pub use kills::crash;
pub use plan::{Dice, Edge, Step, Victim, draw};
pub use strace::cannot_trace;
