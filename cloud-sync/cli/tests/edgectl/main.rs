//! The program against a control plane in the same process.

mod build;
mod dead;
mod fleet;
mod gateway;
mod keys;
mod records;
mod world;
