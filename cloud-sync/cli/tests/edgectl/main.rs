//! The program, alone and against a control plane or a broker in the same process.

mod author;
mod build;
mod dead;
mod fleet;
mod gateway;
mod keys;
mod local;
mod records;
mod replay;
mod twin;
mod usage;
mod world;
