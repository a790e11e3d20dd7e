//! The control plane over real sockets, as gateways and operators see it.

mod dead;
mod encoding;
mod enroll;
mod fleet;
mod gaps;
mod operator;
mod process;
mod records;
mod twins;
mod usage;
mod world;
