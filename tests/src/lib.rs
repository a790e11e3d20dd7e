//! The whole system from its real binaries over real sockets, for tests and for the demo. Nothing depends on this crate.
//!
//! [`World`] is the folder in which one system lives, with its logs. Into it go a [`Cloud`] (the control plane), a
//! [`Gateway`] (the agent), [`Device`]s, a [`Link`] that can be cut, an outside broker ([`Mosquitto`]); [`Edgectl`]
//! does what an operator does; [`System`] is the usual house of them. [`oracle`] judges what became of every event.
//! [`crash`] kills all of it, [`chaos`] gives it a bad network, [`backlog`] leaves it alone
//! for very long, [`simulation`] tries the sync protocol in virtual time, and [`mod@bench`] measures it beside its peers.
//!
//! The binaries and the packed functions must have been built: `cargo xtask test` does, and so does `cargo xtask demo`.

pub mod backlog;
pub mod bench;
mod binaries;
pub mod chaos;
mod cloud;
pub mod crash;
mod device;
mod edgectl;
mod gateway;
mod house;
pub mod http;
mod link;
mod mosquitto;
pub mod oracle;
mod port;
mod process;
mod proxy;
pub mod recording;
mod report;
pub mod simulation;
mod system;
mod wait;
mod witness;
mod world;

pub use binaries::{binary, function, module};
pub use cloud::{Cloud, Record};
pub use device::{Device, Progress, Replay, Summary};
pub use edgectl::Edgectl;
pub use gateway::{Function, Gateway, Inlet, LABEL, Status};
pub use link::Link;
pub use mosquitto::{Mosquitto, Sessions};
pub use port::Port;
pub use process::Process;
pub use report::Report;
pub use system::System;
pub use wait::wait_until;
pub use witness::Witness;
pub use world::World;
