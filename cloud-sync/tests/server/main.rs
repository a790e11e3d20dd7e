//! The control plane over real sockets, as gateways and operators see it.

mod enroll;
mod fleet;
mod operator;
mod process;
mod records;
mod world;
